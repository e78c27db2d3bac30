"""Blocks of addresses in use: the prefixes that they are cut into, and which lists name each.

Kept by the compiler: every `cidr` and `except` of a block in use is a prefix of its tenant's trie
in the kernel, and so is every pod range. The longest prefix that holds an address decides for it.
Prefixes that the same lists name share a number, so that a list of any length is one peer; but a
number is only ever divided, and joined only by prefixes that no rule in force can tell from it:
prefixes that share one have always been alike to everything in force. A tenant's trie has none of
another's blocks. A list may be there in part, or without a rule that names it (`hold`): that
changes no verdict, so a long one comes and goes in small steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from enforcer.policy.blocks import NO_LISTS, Lists, Net, NetIndex
from enforcer.policy.identity import Numbering
from enforcer.policy.rulebook import Group, Turnover
from enforcer.policy.tables import CidrEntry, CidrFlag, CidrKey
from generators.objects import BlockList, IPBlock

Holding = Callable[[Net], Lists]
Ranges = Mapping[str, CidrFlag]
"""Blocks in which who is not known is no outsider, and what that means."""
Counts = Mapping[BlockList, int]
"""How many of a list's blocks are there, the first of them."""
Idle = Callable[[BlockList], bool]
LINGERS = 250
"""Blocks of a list that are too many to go at once."""


@dataclass(slots=True)
class _Prefix:
    net: Net
    cidr: int = 0
    lists: Lists = NO_LISTS
    users: int = 0


@dataclass(slots=True)
class _Class:
    """Prefixes under one number."""

    lists: Lists
    count: int = 0


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a change of blocks did to the prefixes of a trie."""

    put: Mapping[str, None] = field(default_factory=dict)
    """Prefixes that are new, or have another number or other flags."""
    removed: Iterable[str] = ()
    named: Mapping[int, Net] = field(default_factory=dict)
    """Numbers that are new, or that other lists name; with a prefix of each."""
    emptied: Iterable[int] = ()
    """Numbers out of use."""


class Prefixes:
    """All prefixes in use in one trie."""

    def __init__(self, tenant: int, holding: Holding, numbers: Numbering) -> None:
        self.tenant = tenant
        self._all_holding = holding
        self._numbers = numbers
        self._lists: dict[BlockList, int] = {}
        self._prefixes: dict[str, _Prefix] = {}
        self._classes: dict[int, _Class] = {}
        self._index = NetIndex()
        self._lengths: dict[int, Counter[int]] = {4: Counter(), 6: Counter()}
        self._grown: dict[tuple[int, Lists], int] = {}
        """Number around, and who names a prefix in it -> the number that such prefixes got."""
        self.ranges: Ranges = {}
        self._flags: dict[Net, CidrFlag] = {}
        """The same."""

    def change(self, counts: Counts, ranges: Ranges, idle: Idle) -> Trimmed:
        """So many blocks of these lists are there now, and the ranges are these.

        `idle`: whether no rule in force names a list, nor any that comes into force with this. Ask
        after `holding` knows them.
        """
        more, less, moved = self._count(counts)
        before, self.ranges = self.ranges, ranges
        more += _without(ranges, before)
        less += _without(before, ranges)
        new = {
            text: self._around(Net.of(text))
            for text in dict.fromkeys(more)
            if text not in self._prefixes
        }
        for text in more:
            self._use(text)
        self._flags = {Net.of(text): flag for text, flag in ranges.items()}
        gone = [text for text in less if self._leave(text)]
        inside = (text for block in moved for text in self._index.inside(Net.of(block.cidr)))
        moving: dict[str, Lists] = {}
        for text in dict.fromkeys((*new, *inside)):
            prefix = self._prefixes[text]
            lists = self.holding(prefix.net)
            if text in new or lists != prefix.lists:
                moving[text] = lists
        put, named = self._number(moving, new, idle)
        reflagged = (t for t in (*before, *ranges) if before.get(t) != ranges.get(t))
        for range_text in dict.fromkeys(reflagged):
            put.update(dict.fromkeys(self._index.inside(Net.of(range_text))))
        emptied = tuple(number for number, found in self._classes.items() if not found.count)
        for number in emptied:
            del self._classes[number]
        if emptied or named:
            self._forget_former()
        return Trimmed(put, [t for t in gone if t not in new], named, emptied)

    def _forget_former(self) -> None:
        """Drop the former names of numbers, which would keep every list alive."""
        grown, known = self._grown, self._classes
        self._grown = {
            (around, lists): number
            for (around, lists), number in grown.items()
            if number in known and known[number].lists == lists
        }

    def _count(self, counts: Counts) -> tuple[list[str], list[str], list[IPBlock]]:
        """Prefixes that have one user more, or less, and the blocks that they are of."""
        more: list[str] = []
        less: list[str] = []
        moved: list[IPBlock] = []
        for found, count in counts.items():
            before = self._lists.pop(found, 0)
            if count:
                self._lists[found] = count
            part = found.blocks[min(before, count) : max(before, count)]
            moved += part
            (more if count > before else less).extend(p for block in part for p in _texts(block))
        return more, less, moved

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in use."""
        return not self._prefixes and not self.ranges

    def named_by(self, lists: Lists) -> Iterable[tuple[int, Lists]]:
        """The numbers that some of these lists name, with all that do."""
        if not lists:
            return ()
        found = self._classes.items()
        return [(number, c.lists) for number, c in found if not c.lists.isdisjoint(lists)]

    def lists(self, cidr: int) -> Lists:
        """The lists that name a number."""
        return self._classes[cidr].lists

    def count(self, blocks: BlockList) -> int:
        """How many blocks of a list are there."""
        return self._lists.get(blocks, 0)

    def entry(self, text: str) -> CidrEntry:
        """A prefix as the map holds it."""
        prefix = self._prefixes[text]
        net, flags = prefix.net, CidrFlag(0)
        for length in {r.length for r in self._flags if r.version == net.version}:
            if length <= net.length:
                flags |= self._flags.get(net.shortened(length), CidrFlag(0))
        return CidrEntry(prefix.cidr, flags)

    def holding(self, net: Net) -> Lists:
        """The lists of this trie with a block that holds another one."""
        found = self._all_holding(net)
        if all(each in self._lists for each in found):
            return found
        return frozenset(each for each in found if each in self._lists)

    def _around(self, net: Net) -> int:
        """The number of the longest prefix that holds a block and more; 0: there is none."""
        lengths = self._lengths[net.version]
        for length in sorted((n for n in lengths if n < net.length), reverse=True):
            text = self._index.at(net.shortened(length))
            if text is not None:
                return self._prefixes[text].cidr
        return 0

    def _use(self, text: str) -> None:
        prefix = self._prefixes.get(text)
        if prefix is None:
            prefix = self._prefixes[text] = _Prefix(Net.of(text))
            self._index.add(prefix.net, text)
            self._lengths[prefix.net.version][prefix.net.length] += 1
        prefix.users += 1

    def _leave(self, text: str) -> bool:
        """One user less; whether it was the last one."""
        prefix = self._prefixes[text]
        prefix.users -= 1
        if prefix.users:
            return False
        del self._prefixes[text]
        self._index.remove(prefix.net)
        lengths = self._lengths[prefix.net.version]
        lengths[prefix.net.length] -= 1
        if not lengths[prefix.net.length]:
            del lengths[prefix.net.length]
        if prefix.cidr:
            self._classes[prefix.cidr].count -= 1
        return True

    def _number(
        self, moving: Mapping[str, Lists], new: Mapping[str, int], idle: Idle
    ) -> tuple[dict[str, None], dict[int, Net]]:
        """Numbers for prefixes that other lists name now, or that are new.

        One number for those that were alike, whatever is in force, and are alike. The old one goes
        along if none stays behind.
        """
        leaving = Counter(self._prefixes[text].cidr for text in moving if text not in new)
        numbers: dict[tuple[object, Lists], int] = {}
        put: dict[str, None] = {}
        named: dict[int, Net] = {}
        promised = self._numbers.promised
        for text, lists in moving.items():
            prefix, before = self._prefixes[text], self._prefixes[text].cidr
            origin: object = before
            if text in new:
                before = promised.pop(CidrKey(self.tenant, text), 0)
                origin = before or (text if promised else ("around", new[text]))
            number = numbers.get((origin, lists))
            if number is None and text in new and not before and not promised:
                number = self._joined(new[text], lists, idle)
                numbers.update({(origin, lists): number} if number else {})
            if number is None:
                known = self._classes.get(before)
                alone = known is None or known.count == leaving[before]
                number = before if before and alone and before not in named else 0
                number = numbers[origin, lists] = number or self._numbers.fresh()
                named[number] = prefix.net
                if text in new:
                    self._grown[new[text], lists] = number
            if prefix.cidr:
                self._classes[prefix.cidr].count -= 1
            if prefix.cidr != number:
                put[text] = None
            prefix.cidr, prefix.lists = number, lists
            found = self._classes.setdefault(number, _Class(lists))
            found.lists = lists
            found.count += 1
        return put, named

    def _joined(self, around: int, lists: Lists, idle: Idle) -> int | None:
        """The number that prefixes like a new one have, if whatever is in force takes them for the
        same as what is around it.
        """
        number = self._grown.get((around, lists), 0)
        known, outer = self._classes.get(number), self._classes.get(around)
        before = outer.lists if outer is not None else NO_LISTS
        if known is None or known.lists != lists or not before <= lists:
            return None
        return number if all(map(idle, lists - before)) else None


class Tries:
    """The prefixes of every tenant that has pods here; pods without a tenant share one trie."""

    def __init__(self, holding: Holding, numbers: Numbering) -> None:
        self._holding = holding
        self._numbers = numbers
        self._tries: dict[int, Prefixes] = {}
        self._counted: set[Group] = set()
        self._users: Counter[tuple[int, BlockList]] = Counter()
        """A tenant's trie, and a list -> the groups that name it."""
        self.held: dict[tuple[int, BlockList], int] = {}
        """How much of a list should be there, whoever names it."""
        self.lingering = False
        """Whether a long list that no rule names any more is held until released."""
        self._spread: dict[BlockList, dict[int, int]] = {}
        """How much of a list is to be there, by trie."""
        self._moved: dict[tuple[int, BlockList], None] = {}
        self._busy: set[BlockList] = set()
        """Lists that came or went with a rule."""
        self._served: tuple[frozenset[int], Ranges] = frozenset(), {}
        """The tenants with endpoints here, and the ranges, at the last change."""

    def of(self, tenant: int) -> Prefixes:
        """A tenant's trie."""
        found = self._tries.get(tenant)
        if found is None:
            found = self._tries[tenant] = Prefixes(tenant, self._holding, self._numbers)
        return found

    def hold(self, tenant: int, blocks: BlockList, count: int) -> None:
        """Have so many blocks there, whether a policy in force names them or not."""
        self.held.pop((tenant, blocks), None)
        if count:
            self.held[tenant, blocks] = count
        self._moved[tenant, blocks] = None

    def is_named(self, tenant: int, blocks: BlockList) -> bool:
        """Whether some rule in use names a list."""
        return bool(self._users[tenant, blocks])

    def count(self, tenant: int, blocks: BlockList) -> int:
        """How much of a list is in a trie."""
        trie = self._tries.get(tenant)
        return trie.count(blocks) if trie is not None else 0

    def follow(self, turnover: Turnover) -> Counts:
        """Groups came or went: how much of each list that this moves is there, in any trie."""
        gone = [group for group in turnover.removed if group in self._counted]
        self._counted.difference_update(gone)
        self._counted.update(turnover.added)
        for groups, step in ((gone, -1), (turnover.added, 1)):
            for group in groups:
                for blocks in group.definition.lists:
                    use = group.definition.tenant, blocks
                    self._users[use] += step
                    self._moved[use] = None
                    self._busy.add(blocks)
        for tenant, blocks in self._moved if self.lingering else ():
            there = self.count(tenant, blocks) if blocks in self._busy else 0
            if there > LINGERS and not self.is_named(tenant, blocks):
                self.held.setdefault((tenant, blocks), there)
        found: dict[BlockList, int] = {}
        for tenant, blocks in self._moved:
            spread = self._spread.setdefault(blocks, {})
            spread[tenant] = self._wanted(tenant, blocks)
            if not spread[tenant]:
                del spread[tenant]
            found[blocks] = max(spread.values(), default=0)
            if not spread:
                del self._spread[blocks]
        return found

    def change(
        self, tenants: Iterable[int], ranges: Ranges, *, calm: bool
    ) -> Iterable[tuple[Prefixes, Trimmed]]:
        """What `follow` found; `tenants`: those with endpoints here, who need the ranges.

        `calm`: everything that was wanted before is in force.
        """
        moved: dict[int, dict[BlockList, int]] = {}
        for tenant, blocks in self._moved:
            moved.setdefault(tenant, {})[blocks] = self._wanted(tenant, blocks)
        busy, self._busy, self._moved = self._busy, set(), {}
        needed = frozenset(tenants)
        # Most changes move no list, and a node may have a thousand tenants.
        served, self._served = self._served, (needed, ranges)
        others = () if self._served == served else (*self._tries, *needed)
        for tenant in dict.fromkeys((*others, *moved)):
            wanted = ranges if tenant in needed else {}
            trie, counts = self.of(tenant), moved.get(tenant, {})
            counts = {b: count for b, count in counts.items() if count != trie.count(b)}
            if counts or wanted != trie.ranges:
                idle = partial(self._is_idle, tenant, busy if calm else None)
                yield trie, trie.change(counts, wanted, idle)
            if trie.is_empty:
                del self._tries[tenant]
        if moved:
            self._users += Counter()  # without those that no rule names any more

    def _is_idle(self, tenant: int, busy: set[BlockList] | None, blocks: BlockList) -> bool:
        """Whether no rule names a list, nor did before this change; None: unknown."""
        return busy is not None and blocks not in busy and not self.is_named(tenant, blocks)

    def _wanted(self, tenant: int, blocks: BlockList) -> int:
        if self._users[tenant, blocks]:
            return len(blocks.blocks)
        return self.held.get((tenant, blocks), 0)


def _texts(block: IPBlock) -> Iterable[str]:
    return dict.fromkeys((block.cidr, *block.excepts))


def _without(some: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [text for text in dict.fromkeys(some) if text not in left_out]
