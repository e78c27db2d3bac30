"""Blocks of addresses in use: the prefixes that they are cut into, and who holds each of them.

Kept by the compiler: every `cidr` and `except` of a block in use is a prefix of its tenant's trie
in the kernel, and so is every pod range. The longest prefix that holds an address speaks for it.
What may surprise: a prefix has a number in each trie that it is in, and a tenant's trie knows none
of another's blocks, so nobody's groups need entries because of what somebody else names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from enforcer.blocks import Net, Nets
from enforcer.identity import Numbering
from enforcer.rulebook import Group, Turnover
from enforcer.tables import CidrEntry, CidrFlag, CidrKey
from generators.objects import IPBlock

Holding = Callable[[Net], frozenset[IPBlock]]
_Use = tuple[int, IPBlock]
"""A block in a tenant's trie."""


@dataclass(slots=True)
class _Prefix:
    cidr: int
    net: Net
    held: frozenset[IPBlock]
    users: int = 0


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Prefixes that came into use, and those that went out of it with their cidr ids."""

    added: Mapping[str, None] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    reflagged: bool = False
    """The pod ranges are others."""


class Prefixes:
    """All prefixes in use in one trie."""

    def __init__(self, tenant: int, holding: Holding, numbers: Numbering) -> None:
        self.tenant = tenant
        self._all_holding = holding
        self._numbers = numbers
        self._blocks: dict[IPBlock, None] = {}
        self._prefixes: dict[str, _Prefix] = {}
        self._ranges: tuple[Net, ...] = ()
        self._range_texts: tuple[str, ...] = ()

    def change(
        self, added: Iterable[IPBlock], removed: Iterable[IPBlock], ranges: tuple[str, ...]
    ) -> Trimmed:
        """Blocks came or went; the pod ranges are these now. Ask after `holding` knows them."""
        added, removed = list(added), list(removed)
        for block in removed:
            del self._blocks[block]
        self._blocks.update(dict.fromkeys(added))
        new: dict[str, None] = {}
        maybe_gone: dict[str, None] = {}
        for text in [p for b in added for p in _texts(b)] + _without(ranges, self._range_texts):
            if text not in self._prefixes:
                net = Net.of(text)
                number = self._numbers.of(CidrKey(self.tenant, text))
                self._prefixes[text] = _Prefix(number, net, self._holding(net))
                new[text] = None
            self._prefixes[text].users += 1
        for text in [p for b in removed for p in _texts(b)] + _without(self._range_texts, ranges):
            self._prefixes[text].users -= 1
            maybe_gone[text] = None
        reflagged = ranges != self._range_texts
        self._range_texts, self._ranges = ranges, tuple(map(Net.of, ranges))
        gone: dict[str, int] = {}
        for text in maybe_gone:
            if not self._prefixes[text].users:
                gone[text] = self._prefixes.pop(text).cidr
                self._numbers.forget(CidrKey(self.tenant, text))
        touched = Nets(Net.of(block.cidr) for block in (*added, *removed))
        for prefix in self._prefixes.values():
            if touched.hold(prefix.net):
                prefix.held = self._holding(prefix.net)
        return Trimmed({text: None for text in new if text not in gone}, gone, reflagged)

    @property
    def ranges(self) -> tuple[str, ...]:
        """The pod ranges, as they are in it."""
        return self._range_texts

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in use."""
        return not self._prefixes and not self._range_texts

    def cidr(self, text: str) -> int:
        """The id of a prefix."""
        return self._prefixes[text].cidr

    def held(self, text: str) -> frozenset[IPBlock]:
        """The blocks that hold a prefix."""
        return self._prefixes[text].held

    def within(self, blocks: frozenset[IPBlock]) -> Iterable[str]:
        """The prefixes that some of these blocks hold."""
        if not blocks:
            return ()
        return [t for t, prefix in self._prefixes.items() if not prefix.held.isdisjoint(blocks)]

    def entry(self, text: str) -> CidrEntry:
        """A prefix as the map holds it."""
        prefix = self._prefixes[text]
        inside = any(prefix.net.inside(net) for net in self._ranges)
        return CidrEntry(prefix.cidr, CidrFlag.IN_CLUSTER if inside else CidrFlag(0))

    def all(self) -> Iterable[str]:
        """All of them."""
        return self._prefixes

    def _holding(self, net: Net) -> frozenset[IPBlock]:
        """The blocks of this trie that hold another one."""
        return frozenset(b for b in self._all_holding(net) if b in self._blocks)


class Tries:
    """The prefixes of every tenant that has pods here; nobody's pods share one trie."""

    def __init__(self, holding: Holding, numbers: Numbering) -> None:
        self._holding = holding
        self._numbers = numbers
        self._tries: dict[int, Prefixes] = {}
        self._blocks: dict[Group, tuple[IPBlock, ...]] = {}
        self._users: Counter[_Use] = Counter()

    def of(self, tenant: int) -> Prefixes:
        """A tenant's trie."""
        found = self._tries.get(tenant)
        if found is None:
            found = self._tries[tenant] = Prefixes(tenant, self._holding, self._numbers)
        return found

    def change(
        self, turnover: Turnover, tenants: Iterable[int], ranges: tuple[str, ...]
    ) -> Iterable[tuple[Prefixes, Trimmed]]:
        """Groups came or went; `tenants`: those with endpoints here, who need the pod ranges."""
        before = self._count(turnover)
        needed = frozenset(tenants)
        moved: dict[int, tuple[list[IPBlock], list[IPBlock]]] = {
            tenant: ([], []) for tenant in (*self._tries, *needed)
        }
        for (tenant, block), was in before.items():
            if was != ((tenant, block) in self._users):
                moved.setdefault(tenant, ([], []))[was].append(block)
        for tenant, (added, removed) in moved.items():
            wanted = ranges if tenant in needed else ()
            trie = self.of(tenant)
            if added or removed or wanted != trie.ranges:
                yield trie, trie.change(added, removed, wanted)
            if trie.is_empty:
                del self._tries[tenant]

    def _count(self, turnover: Turnover) -> Mapping[_Use, bool]:
        """Keep count of who uses which block; those that changed, with whether they were used."""
        before: dict[_Use, bool] = {}
        for group in turnover.added:
            words = group.definition.words
            self._blocks[group] = tuple(word for word in words if isinstance(word, IPBlock))
        gone = [(group, self._blocks.pop(group, ()), -1) for group in turnover.removed]
        new = [(group, self._blocks[group], 1) for group in turnover.added]
        for group, blocks, step in (*gone, *new):
            for block in blocks:
                use = (group.definition.tenant, block)
                before.setdefault(use, use in self._users)
                self._users[use] += step
                if not self._users[use]:
                    del self._users[use]
        return before


def _texts(block: IPBlock) -> Iterable[str]:
    return dict.fromkeys((block.cidr, *block.excepts))


def _without(some: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [text for text in dict.fromkeys(some) if text not in left_out]
