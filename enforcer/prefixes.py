"""Blocks of addresses in use: the prefixes that they are cut into, and who holds each of them.

Kept by the compiler: every `cidr` and `except` of a block in use is a prefix of the kernel's trie,
and so is every pod range. The longest prefix that holds an address speaks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from enforcer.blocks import Net
from enforcer.identity import Numbering
from enforcer.tables import CidrEntry, CidrFlag
from generators.objects import IPBlock

Holding = Callable[[Net], frozenset[IPBlock]]


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
    """All prefixes in use."""

    def __init__(self, holding: Holding, numbers: Numbering) -> None:
        self._holding = holding
        self._numbers = numbers
        self._prefixes: dict[str, _Prefix] = {}
        self._ranges: tuple[Net, ...] = ()
        self._range_texts: tuple[str, ...] = ()

    def change(
        self, added: Iterable[IPBlock], removed: Iterable[IPBlock], ranges: tuple[str, ...]
    ) -> Trimmed:
        """Blocks came or went; the pod ranges are these now. Ask after `holding` knows them."""
        added, removed = list(added), list(removed)
        new: dict[str, None] = {}
        maybe_gone: dict[str, None] = {}
        for text in [p for b in added for p in _texts(b)] + _without(ranges, self._range_texts):
            if text not in self._prefixes:
                net = Net.of(text)
                number = self._numbers.of(text)
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
                self._numbers.forget(text)
        outer = [Net.of(block.cidr) for block in (*added, *removed)]
        for prefix in self._prefixes.values() if outer else ():
            if any(prefix.net.inside(net) for net in outer):
                prefix.held = self._holding(prefix.net)
        return Trimmed({text: None for text in new if text not in gone}, gone, reflagged)

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

    def entries(self) -> Mapping[str, CidrEntry]:
        """All of them as the map holds them."""
        return {
            text: CidrEntry(
                prefix.cidr,
                CidrFlag.IN_CLUSTER
                if any(prefix.net.inside(net) for net in self._ranges)
                else CidrFlag(0),
            )
            for text, prefix in self._prefixes.items()
        }


def _texts(block: IPBlock) -> Iterable[str]:
    return dict.fromkeys((block.cidr, *block.excepts))


def _without(some: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [text for text in dict.fromkeys(some) if text not in left_out]
