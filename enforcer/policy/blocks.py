"""Which lists of `ipBlock`s hold an address or a smaller block, without asking each of them.

The compiler asks for every pod address and every prefix. A block that holds something is among its
ancestors, and there are only as many as different prefix lengths are in use. Everything here is
integers, because a hundred thousand addresses are asked about. A list may count in part: so it
comes into use in small steps, and goes out of it.
"""

from __future__ import annotations

import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

from generators.objects import BlockList, IPBlock

K = TypeVar("K", bound=Hashable)
BITS = {4: 32, 6: 128}
LENGTH_BITS = 8
Lists = frozenset[BlockList]
NO_LISTS: Lists = frozenset()
NOTHING: Mapping[frozenset[Net], Lists] = {}


class Net(NamedTuple):
    """A block of canonical text as numbers: IP version, prefix length, leading bits."""

    version: int
    length: int
    value: int

    @classmethod
    @lru_cache(maxsize=16_384)
    def of(cls, text: str) -> Net:
        """The block or address that a canonical text means."""
        address, slash, length = text.partition("/")
        version, kind = (6, socket.AF_INET6) if ":" in address else (4, socket.AF_INET)
        number = int.from_bytes(socket.inet_pton(kind, address))
        bits = BITS[version]
        taken = int(length) if slash else bits
        return cls(version, taken, number >> (bits - taken))

    @property
    def text(self) -> str:
        """Its canonical text, as a block."""
        bits, kind = BITS[self.version], socket.AF_INET if self.version == 4 else socket.AF_INET6
        first = self.value << (bits - self.length)
        return f"{socket.inet_ntop(kind, first.to_bytes(bits // 8))}/{self.length}"

    def inside(self, outer: Net) -> bool:
        """Whether all of it is inside `outer`; families never mix."""
        return (
            self.version == outer.version
            and self.length >= outer.length
            and self.value >> (self.length - outer.length) == outer.value
        )

    def shortened(self, length: int) -> Net:
        """The block of that length around it."""
        return Net(self.version, length, self.value >> (self.length - length))


class NetIndex:
    """Blocks and addresses by their texts, found by what they are inside of."""

    def __init__(self) -> None:
        self._texts: dict[int, dict[int, str]] = {4: {}, 6: {}}
        self._order: dict[int, list[int]] = {4: [], 6: []}
        """Sorted; some are gone, or there twice."""
        self._fresh: dict[int, list[int]] = {4: [], 6: []}

    def add(self, net: Net, text: str) -> None:
        """One more."""
        place = _place(net)
        if place not in self._texts[net.version]:
            self._fresh[net.version].append(place)
        self._texts[net.version][place] = text

    def remove(self, net: Net) -> None:
        """One less."""
        del self._texts[net.version][_place(net)]

    def at(self, net: Net) -> str | None:
        """Just this one."""
        return self._texts[net.version].get(_place(net))

    def inside(self, outer: Net) -> Iterable[str]:
        """Those that are wholly in a block, itself included; some of them twice."""
        version, texts = outer.version, self._texts[outer.version]
        if outer.length == BITS[version]:
            if (text := self.at(outer)) is not None:
                yield text
            return
        if fresh := self._fresh[version]:
            known = self._order[version]
            if len(known) > 2 * len(texts) + len(fresh):
                known = self._order[version] = [place for place in known if place in texts]
            known += fresh
            known.sort()  # little work: most of it is sorted
            fresh.clear()
        order, first = self._order[version], _place(outer)
        after = ((outer.value + 1) << (BITS[version] - outer.length)) << LENGTH_BITS
        for place in order[bisect_left(order, first) : bisect_left(order, after)]:
            if place in texts:
                yield texts[place]


def _place(net: Net) -> int:
    """First address and length: whatever is inside a block comes after it, without a gap."""
    return net.value << (BITS[net.version] - net.length) << LENGTH_BITS | net.length


class BlockIndex:
    """The lists in use, found by what they hold."""

    def __init__(self) -> None:
        self._plain: dict[Net, Lists] = {}
        """Block that excepts nothing -> the lists that name it."""
        self._holed: dict[Net, dict[frozenset[Net], Lists]] = {}
        """Block, and what it excepts -> the lists that name it."""
        self._lengths: dict[int, Counter[int]] = {4: Counter(), 6: Counter()}
        self._counts: dict[BlockList, int] = {}

    def reach(self, blocks: BlockList, count: int) -> tuple[IPBlock, ...]:
        """Make this many of a list's blocks count; returns those that start or stop to count."""
        before = self._counts.pop(blocks, 0)
        if count:
            self._counts[blocks] = count
        moved = blocks.blocks[min(before, count) : max(before, count)]
        for block in moved:
            self._turn(block, blocks, 1 if count > before else -1)
        return moved

    def _turn(self, block: IPBlock, of: BlockList, step: int) -> None:
        net, excepts = Net.of(block.cidr), frozenset(map(Net.of, block.excepts))
        if excepts:
            near = self._holed.setdefault(net, {})
            _turn(near, excepts, of)
            if not near:
                del self._holed[net]
        else:
            _turn(self._plain, net, of)
        lengths = self._lengths[net.version]
        for part in (net, *excepts):
            lengths[part.length] += step
            if not lengths[part.length]:
                del lengths[part.length]

    def holding(self, net: Net) -> Lists:
        """The lists with a block that holds the whole of it and excepts no part around it."""
        around = [net.shortened(n) for n in self._lengths[net.version] if n <= net.length]
        found = [self._plain[outer] for outer in around if outer in self._plain]
        found += (
            lists
            for outer in around
            for excepts, lists in self._holed.get(outer, NOTHING).items()
            if excepts.isdisjoint(around)
        )
        return found[0] if len(found) == 1 else NO_LISTS.union(*found)


def _turn(index: dict[K, Lists], key: K, of: BlockList) -> None:
    """The list is among those of a key where it was not, and the other way round."""
    index[key] = _shared(index.get(key, NO_LISTS) ^ {of})
    if not index[key]:
        del index[key]


@lru_cache(maxsize=8)
def _shared(lists: Lists) -> Lists:
    """One object for all blocks that the same lists name: there may be many, one after the other.

    Few are remembered: each keeps its lists alive, and a list may have thousands of blocks.
    """
    return lists
