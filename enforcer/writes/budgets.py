"""Which policies are refused when a map is too small: pure, from what is wanted to what is refused.

All may use what is free. If not everything fits, a tenant keeps its budget, and the tenant furthest
above its own gives up its largest policies, one direction of one policy at a time, until the rest
fits. A budget is a promise, not a ceiling; and the same wants are refused whatever was there
before, so that every engine and every restart agrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from enforcer.policy.tables import Table
from generators.objects import Direction, NetworkPolicy
from generators.tenants.model import TenantConfig

NOBODY = ""
"""The owner of all namespaces that belong to no tenant."""
WHOLE = 100
"""Shares are percents."""

Unit = tuple[str, Direction]
"""One direction of the policy `namespace/name`: what is refused as a whole."""

BY_POLICY = (Table.CIDRS, Table.POLICY, Table.RANGES)
"""Maps that policies fill. One half is for what is in force, the other for what replaces it."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Which part of every map is kept for whom, in percent."""

    own: Mapping[str, float] = field(default_factory=dict)
    rest: float = WHOLE
    """Of each tenant that is not named, and of all namespaces without a tenant together."""

    @classmethod
    def of(cls, config: TenantConfig | None) -> Shares:
        """From the tenant file; the remainder is shared equally."""
        tenants = config.tenants.values() if config is not None else ()
        own = {t.name: float(t.map_share) for t in tenants if t.map_share is not None}
        others = sum(1 for t in tenants if t.map_share is None) + 1
        return cls(own, (WHOLE - sum(own.values())) / others)

    def budget(self, tenant: str, room: int) -> int:
        """Entries of a map of that size."""
        return int(room * self.own.get(tenant, self.rest) / WHOLE)


@dataclass(frozen=True, slots=True)
class Want:
    """What one direction of a policy needs."""

    tenant: str
    prefixes: frozenset[str] = frozenset()
    exact: int = 0
    ranged: int = 0

    def amount(self, table: Table) -> int:
        """Entries of one map."""
        if table is Table.CIDRS:
            return len(self.prefixes)
        return self.exact if table is Table.POLICY else self.ranged


@dataclass(frozen=True, slots=True)
class Refusal:
    """A policy that is not enforced as written, and the room that it did not find."""

    policy: str
    direction: Direction
    tenant: str
    table: Table
    needs: int
    """Entries of this policy."""
    wanted: int
    """Entries of all policies of its tenant here."""
    budget: int
    room: int
    """Entries of everybody's policies that the map is for."""

    def __str__(self) -> str:
        table, owner = self.table.value, f"tenant {self.tenant}" if self.tenant else "no tenant"
        return (
            f"NetworkPolicy {self.policy} ({owner}) is closed for {self.direction.value.lower()}: "
            f"it needs {self.needs} of the {self.wanted} entries that its owner wants in {table}, "
            f"whose budget is {self.budget} of {self.room}; name fewer peers, ports or blocks, "
            f"raise the tenant's mapShare, or start agents with --map-size {table}=NUMBER"
        )


@dataclass(frozen=True, slots=True)
class RoomUsage:
    """Who uses how much of one map, and what is kept for each."""

    room: int
    """Entries that owners share."""
    used: Mapping[str, int]
    """By tenant; namespaces without one together under NOBODY."""
    budget: Mapping[str, int]
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Things that found no place, by tenant."""


def prefixes_of(policy: NetworkPolicy, direction: Direction) -> frozenset[str]:
    """All prefixes that the blocks of one direction are cut into."""
    found = [b.prefixes for rule in policy.rules(direction) for b in rule.block_lists]
    return found[0] if len(found) == 1 else frozenset().union(*found)


def at_least(policy: NetworkPolicy, direction: Direction, tenant: str) -> Want:
    """What a policy will need wherever it is in use, by its text alone."""
    prefixes = prefixes_of(policy, direction)
    rules = policy.rules(direction)
    ranges = any(port.end_port is not None for rule in rules for port in rule.ports)
    return Want(tenant, prefixes, 0 if ranges or not prefixes else 1)


class Overlaps:
    """Prefixes that several units of a tenant want, kept up to date: they count once, and only they
    need such a look.
    """

    def __init__(self) -> None:
        self.by_tenant: dict[str, set[str]] = {}
        self._known: dict[Unit, Want] = {}
        self._counts: dict[str, Counter[str]] = {}

    def follow(self, wants: Mapping[Unit, Want]) -> Mapping[str, AbstractSet[str]]:
        """By tenant, as of these wants."""
        for unit, old in tuple(self._known.items()):
            new = wants.get(unit)
            if new is None or (new.tenant, new.prefixes) != (old.tenant, old.prefixes):
                del self._known[unit]
                counts, several = self._counts[old.tenant], self.by_tenant[old.tenant]
                counts.subtract(old.prefixes)
                several.difference_update(p for p in old.prefixes if counts[p] == 1)
                for prefix in old.prefixes:
                    if not counts[prefix]:
                        del counts[prefix]
        for unit, want in wants.items():
            if unit not in self._known:
                self._known[unit] = want
                counts = self._counts.setdefault(want.tenant, Counter())
                several = self.by_tenant.setdefault(want.tenant, set())
                several.update(counts.keys() & want.prefixes)
                counts.update(want.prefixes)
        return self.by_tenant


def refuse(
    wants: Mapping[Unit, Want],
    room: Mapping[Table, int],
    shares: Shares,
    overlaps: Mapping[str, AbstractSet[str]],
) -> dict[Unit, Refusal]:
    """What is refused so that the rest fits; `overlaps`: from `Overlaps`."""
    left, refused = dict(wants), dict[Unit, Refusal]()
    for table in BY_POLICY:
        users = _Users(table, left, overlaps)
        budget = partial(shares.budget, room=room[table])
        while sum(users.used.values()) > room[table] and users.units:
            tenant = max(users.units, key=lambda t: (users.used[t] - budget(t), t))
            wanted = users.used[tenant]
            unit = users.pop_largest(tenant)
            needs = left.pop(unit).amount(table)
            refused[unit] = Refusal(
                *unit, tenant, table, needs, wanted, budget(tenant), room[table]
            )
    return refused


class _Users:
    """What tenants use of one map; equal prefixes of one tenant count once."""

    def __init__(
        self, table: Table, wants: Mapping[Unit, Want], overlaps: Mapping[str, AbstractSet[str]]
    ) -> None:
        self.used: Counter[str] = Counter()
        self.units: dict[str, list[Unit]] = {}
        """The largest last."""
        self._sums: dict[str, list[int]] = {}
        """What they use without the units after each."""
        by_size = sorted(wants, key=lambda unit: (wants[unit].amount(table), unit))
        counted: dict[str, set[str]] = {}
        for unit in by_size:
            want = wants[unit]
            if not want.amount(table):
                continue
            self.units.setdefault(want.tenant, []).append(unit)
            self._sums.setdefault(want.tenant, []).append(self.used[want.tenant])
            if table is Table.CIDRS:
                several = want.prefixes & overlaps[want.tenant]
                fresh = several - counted.setdefault(want.tenant, set())
                counted[want.tenant] |= fresh
                self.used[want.tenant] += want.amount(table) - len(several) + len(fresh)
            else:
                self.used[want.tenant] += want.amount(table)

    def pop_largest(self, tenant: str) -> Unit:
        """The unit that gives most back."""
        unit = self.units[tenant].pop()
        if not self.units[tenant]:
            del self.units[tenant]
        self.used[tenant] = self._sums[tenant].pop()
        return unit


def total(wants: Iterable[Want], table: Table) -> int:
    """The sum, as if no two had a prefix in common."""
    return sum(want.amount(table) for want in wants)
