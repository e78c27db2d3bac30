"""Blocks of addresses in use: the prefixes that they are cut into, and which rules name each.

Kept by the compiler: every `cidr` and `except` of a block in use is a prefix of its tenant's trie
in the kernel, and so is every pod range. The longest prefix that holds an address speaks for it.
What may surprise: prefixes that the same rules name share a number, so that a list of any length
is one peer; but a number is only ever divided, never joined: what shares one has always been alike
to whatever is in force. A tenant's trie knows none of another's blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from enforcer.policy.blocks import Net, Nets
from enforcer.policy.identity import Numbering
from enforcer.policy.rulebook import Group, Turnover
from enforcer.policy.tables import CidrEntry, CidrFlag, CidrKey
from generators.objects import IPBlock

Holding = Callable[[Net], frozenset[IPBlock]]
_Use = tuple[int, int]
"""A tenant's trie, and a rule whose blocks are in it."""
Rules = frozenset[int]
NO_RULES: Rules = frozenset()
NO_BLOCKS: frozenset[IPBlock] = frozenset()


@dataclass(slots=True)
class _Prefix:
    net: Net
    cidr: int = 0
    rules: Rules = NO_RULES
    users: int = 0


@dataclass(slots=True)
class _Class:
    """Prefixes under one number."""

    rules: Rules
    count: int = 0


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a change of blocks did to the prefixes of a trie."""

    put: Mapping[str, None] = field(default_factory=dict)
    """Prefixes that are new, or have another number."""
    removed: Iterable[str] = ()
    named: Mapping[int, Net] = field(default_factory=dict)
    """Numbers that are new, or that other rules name; with a prefix of each."""
    emptied: Iterable[int] = ()
    """Numbers out of use."""
    reflagged: bool = False
    """The pod ranges are others."""


class Prefixes:
    """All prefixes in use in one trie."""

    def __init__(self, tenant: int, holding: Holding, numbers: Numbering) -> None:
        self.tenant = tenant
        self._all_holding = holding
        self._numbers = numbers
        self._blocks: dict[IPBlock, Rules] = {}
        self._prefixes: dict[str, _Prefix] = {}
        self._classes: dict[int, _Class] = {}
        self._nets: dict[Net, _Prefix] = {}
        self._lengths: dict[int, Counter[int]] = {4: Counter(), 6: Counter()}
        self._ranges: tuple[Net, ...] = ()
        self._range_texts: tuple[str, ...] = ()

    def change(self, blocks: Mapping[IPBlock, Rules], ranges: tuple[str, ...]) -> Trimmed:
        """These rules name these blocks now, and the pod ranges are these.

        A block that no rule names is gone. Ask after `holding` knows them.
        """
        added = [block for block in blocks if block not in self._blocks]
        removed = [block for block, rules in blocks.items() if not rules]
        self._blocks.update(blocks)
        for block in removed:
            del self._blocks[block]
        more = [p for b in added for p in _texts(b)] + _without(ranges, self._range_texts)
        less = [p for b in removed for p in _texts(b)] + _without(self._range_texts, ranges)
        new = {
            text: self._around(Net.of(text))
            for text in dict.fromkeys(more)
            if text not in self._prefixes
        }
        for text in more:
            self._use(text)
        reflagged = ranges != self._range_texts
        self._range_texts, self._ranges = ranges, tuple(map(Net.of, ranges))
        gone = [text for text in less if self._leave(text)]
        touched = Nets(Net.of(block.cidr) for block in blocks)
        moving: dict[str, Rules] = {}
        for text, prefix in self._prefixes.items():
            if text in new or touched.hold(prefix.net):
                rules = self._naming(prefix.net)
                if text in new or rules != prefix.rules:
                    moving[text] = rules
        put, named = self._number(moving, new)
        emptied = tuple(number for number, found in self._classes.items() if not found.count)
        for number in emptied:
            del self._classes[number]
        return Trimmed(put, [t for t in gone if t not in new], named, emptied, reflagged)

    @property
    def ranges(self) -> tuple[str, ...]:
        """The pod ranges, as they are in it."""
        return self._range_texts

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in use."""
        return not self._prefixes and not self._range_texts

    def named_by(self, rules: Rules) -> Iterable[tuple[int, Rules]]:
        """The numbers that some of these rules name, with all that do."""
        if not rules:
            return ()
        found = self._classes.items()
        return [(number, c.rules) for number, c in found if not c.rules.isdisjoint(rules)]

    def rules(self, cidr: int) -> Rules:
        """The rules that name a number."""
        return self._classes[cidr].rules

    def naming(self, block: IPBlock) -> Rules:
        """The rules that name a block."""
        return self._blocks.get(block, NO_RULES)

    def entry(self, text: str) -> CidrEntry:
        """A prefix as the map holds it."""
        prefix = self._prefixes[text]
        inside = any(prefix.net.inside(net) for net in self._ranges)
        return CidrEntry(prefix.cidr, CidrFlag.IN_CLUSTER if inside else CidrFlag(0))

    def all(self) -> Iterable[str]:
        """All of them."""
        return self._prefixes

    def holding(self, net: Net) -> frozenset[IPBlock]:
        """The blocks of this trie that hold another one."""
        return frozenset(b for b in self._all_holding(net) if b in self._blocks)

    def _naming(self, net: Net) -> Rules:
        """The rules that name a prefix, by any block that holds it."""
        held = [self._blocks[block] for block in self.holding(net)]
        return held[0] if len(held) == 1 else NO_RULES.union(*held)

    def _around(self, net: Net) -> int:
        """The number of the longest prefix that holds a block and more; 0: there is none."""
        lengths = self._lengths[net.version]
        for length in sorted((n for n in lengths if n < net.length), reverse=True):
            found = self._nets.get(net.shortened(length))
            if found is not None:
                return found.cidr
        return 0

    def _use(self, text: str) -> None:
        prefix = self._prefixes.get(text)
        if prefix is None:
            prefix = self._prefixes[text] = _Prefix(Net.of(text))
            self._nets[prefix.net] = prefix
            self._lengths[prefix.net.version][prefix.net.length] += 1
        prefix.users += 1

    def _leave(self, text: str) -> bool:
        """One user less; whether it was the last one."""
        prefix = self._prefixes[text]
        prefix.users -= 1
        if prefix.users:
            return False
        del self._prefixes[text], self._nets[prefix.net]
        lengths = self._lengths[prefix.net.version]
        lengths[prefix.net.length] -= 1
        if not lengths[prefix.net.length]:
            del lengths[prefix.net.length]
        if prefix.cidr:
            self._classes[prefix.cidr].count -= 1
        return True

    def _number(
        self, moving: Mapping[str, Rules], new: Mapping[str, int]
    ) -> tuple[dict[str, None], dict[int, Net]]:
        """Numbers for prefixes that other rules name now, or that are new.

        One number for those that were alike, whatever is in force, and are alike. The old one goes
        along where nobody stays behind.
        """
        leaving = Counter(self._prefixes[text].cidr for text in moving if text not in new)
        numbers: dict[tuple[object, Rules], int] = {}
        put: dict[str, None] = {}
        named: dict[int, Net] = {}
        promised = self._numbers.promised
        for text, rules in moving.items():
            prefix, before = self._prefixes[text], self._prefixes[text].cidr
            origin: object = before
            if text in new:
                before = promised.pop(CidrKey(self.tenant, text), 0)
                origin = before or (text if promised else ("around", new[text]))
            number = numbers.get((origin, rules))
            if number is None:
                known = self._classes.get(before)
                alone = known is None or known.count == leaving[before]
                number = before if before and alone and before not in named else 0
                number = numbers[origin, rules] = number or self._numbers.fresh()
                named[number] = prefix.net
            if prefix.cidr:
                self._classes[prefix.cidr].count -= 1
            if prefix.cidr != number:
                put[text] = None
            prefix.cidr, prefix.rules = number, rules
            found = self._classes.setdefault(number, _Class(rules))
            found.rules = rules
            found.count += 1
        return put, named


class Tries:
    """The prefixes of every tenant that has pods here; nobody's pods share one trie."""

    def __init__(self, holding: Holding, numbers: Numbering) -> None:
        self._holding = holding
        self._numbers = numbers
        self._tries: dict[int, Prefixes] = {}
        self._counted: set[Group] = set()
        self._users: dict[_Use, Counter[frozenset[IPBlock]]] = {}

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
        moved = self._count(turnover)
        needed = frozenset(tenants)
        for tenant in dict.fromkeys((*self._tries, *needed, *moved)):
            wanted = ranges if tenant in needed else ()
            blocks = moved.get(tenant, {})
            trie = self.of(tenant)
            if blocks or wanted != trie.ranges:
                yield trie, trie.change(blocks, wanted)
            if trie.is_empty:
                del self._tries[tenant]

    def _count(self, turnover: Turnover) -> Mapping[int, Mapping[IPBlock, Rules]]:
        """Keep count of who names which block; by tenant, those that other rules name now."""
        before: dict[_Use, frozenset[IPBlock]] = {}
        gone = [group for group in turnover.removed if group in self._counted]
        self._counted.difference_update(gone)
        self._counted.update(turnover.added)
        for groups, step in ((gone, -1), (turnover.added, 1)):
            for group in groups:
                for rule, blocks in group.definition.naming():
                    use = (group.definition.tenant, rule)
                    counts = self._users.setdefault(use, Counter())
                    before.setdefault(use, NO_BLOCKS.union(*counts))
                    counts[blocks] += step
                    if not counts[blocks]:
                        del counts[blocks]
        moved: dict[int, dict[IPBlock, Rules]] = {}
        for use, was in before.items():
            tenant, rule = use
            near, trie = moved.setdefault(tenant, {}), self.of(tenant)
            for block in was ^ NO_BLOCKS.union(*self._users[use]):
                known = near[block] if block in near else trie.naming(block)
                near[block] = _shared(known ^ {rule})
            if not self._users[use]:
                del self._users[use]
        return moved


@lru_cache(maxsize=4096)
def _shared(rules: Rules) -> Rules:
    """One object for all blocks that the same rules name: there may be many."""
    return rules


def _texts(block: IPBlock) -> Iterable[str]:
    return dict.fromkeys((block.cidr, *block.excepts))


def _without(some: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [text for text in dict.fromkeys(some) if text not in left_out]
