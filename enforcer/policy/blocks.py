"""Which `ipBlock`s hold an address or a smaller block, without asking each of them.

The compiler asks for every pod address and every prefix. A block that holds something is among its
ancestors, and there are only as many as different prefix lengths are in use. Everything here is
integers, because a hundred thousand addresses are asked about.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from generators.objects import IPBlock

BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True, order=True)
class Net:
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


class Nets:
    """Some blocks, asked whether they hold others."""

    def __init__(self, nets: Iterable[Net]) -> None:
        self._nets = frozenset(nets)
        self._lengths = {
            version: sorted({n.length for n in self._nets if n.version == version})
            for version in BITS
        }

    def hold(self, net: Net) -> bool:
        """Whether one of them holds all of a block."""
        return any(True for _ in self._around(net))

    def _around(self, net: Net) -> Iterable[Net]:
        for length in self._lengths[net.version]:
            if length > net.length:
                return
            outer = net.shortened(length)
            if outer in self._nets:
                yield outer


class BlockIndex:
    """The blocks in use, found by what they hold."""

    def __init__(self) -> None:
        self._blocks: dict[Net, dict[IPBlock, frozenset[Net]]] = {}
        self._lengths: dict[int, Counter[int]] = {4: Counter(), 6: Counter()}

    def add(self, block: IPBlock) -> None:
        """Put a block into use."""
        net, excepts = Net.of(block.cidr), frozenset(map(Net.of, block.excepts))
        self._blocks.setdefault(net, {})[block] = excepts
        self._lengths[net.version].update(n.length for n in (net, *excepts))

    def remove(self, block: IPBlock) -> None:
        """Take a block out of use."""
        net = Net.of(block.cidr)
        excepts = self._blocks[net].pop(block)
        if not self._blocks[net]:
            del self._blocks[net]
        lengths = self._lengths[net.version]
        lengths.subtract(n.length for n in (net, *excepts))
        for gone in [length for length, count in lengths.items() if not count]:
            del lengths[gone]

    def holding(self, net: Net) -> frozenset[IPBlock]:
        """The blocks that hold the whole of it and except no part around it."""
        around = {net.shortened(n) for n in self._lengths[net.version] if n <= net.length}
        return frozenset(
            block
            for outer in around & self._blocks.keys()
            for block, excepts in self._blocks[outer].items()
            if around.isdisjoint(excepts)
        )
