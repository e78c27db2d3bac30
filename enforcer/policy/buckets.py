"""All entries of one group for one peer, by port: what the ledger keeps and the maps hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from enforcer.policy.ports import Ranked, slots
from enforcer.policy.tables import RULE_DENY, RULE_NUMBER, Dir, PolicyKey, RangeKey

ExactSlot = tuple[int, int, Dir]
"""(port, protocol, direction)"""
RangeSlot = tuple[int, Dir, int, int]
"""(protocol, direction, port, length)"""
Slot = TypeVar("Slot", ExactSlot, RangeSlot)


@dataclass(frozen=True, slots=True)
class Bucket:
    """All entries of one group for one peer: slot -> rule id. Immutable."""

    policy: Mapping[ExactSlot, int] = field(default_factory=dict)
    ranges: Mapping[RangeSlot, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.policy or self.ranges)

    def __or__(self, other: Bucket) -> Bucket:
        """Entries of both; this one's rule where both have a slot."""
        if not self or not other:
            return self or other
        return Bucket({**other.policy, **self.policy}, {**other.ranges, **self.ranges})

    def opens_all_of(self, other: Bucket) -> bool:
        """Whether every slot of the other is open here too, and nothing is denied but here."""
        return _opens(self.policy, other.policy) and _opens(self.ranges, other.ranges)

    def policy_entries(self, group: int, peer: int) -> Iterable[tuple[PolicyKey, int]]:
        """As keys of the map."""
        for (port, protocol, direction), rule in self.policy.items():
            yield PolicyKey(group, peer, port, protocol, direction), rule

    def range_entries(self, group: int, peer: int) -> Iterable[tuple[RangeKey, int]]:
        """As keys of the map."""
        for (protocol, direction, port, length), rule in self.ranges.items():
            yield RangeKey(group, peer, protocol, direction, port, length), rule


def _opens(mine: Mapping[Slot, int], others: Mapping[Slot, int]) -> bool:
    for slot, rule in others.items():
        if not rule & RULE_DENY and mine.get(slot, RULE_DENY) & RULE_DENY:
            return False
    for slot, rule in mine.items():
        there = others.get(slot)
        if rule & RULE_DENY:
            if not (there and there & RULE_DENY):
                return False
        elif rule & ~RULE_NUMBER and there not in (None, rule):
            return False
    return True


EMPTY = Bucket()


def bucket(allowed: Sequence[Ranked], rules: Sequence[int], direction: Dir) -> Bucket:
    """Entries of one direction for one peer, ranks being indexes into `rules`."""
    if not allowed:
        return EMPTY
    found = slots(allowed)
    return Bucket(
        {(port, proto, direction): rules[rank] for (port, proto), rank in found.exact.items()},
        {
            (proto, direction, port, length): rules[rank]
            for (port, length, proto), rank in found.prefixes.items()
        },
    )
