"""Who has to stand back where a map is too small: pure, from what is wanted to what is refused.

Everybody may use what is free. Where all of it does not fit, a tenant keeps its budget and whoever
is furthest above its own gives up its largest policies, one direction of one policy at a time, till
the rest fits. What may surprise: a budget is a promise and no ceiling; and the same wants are
refused whatever was there before, so that every engine and every restart agrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from enforcer.datapath.maps import Table
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
    """Of each that is not named, and of all namespaces of nobody together."""

    @classmethod
    def of(cls, config: TenantConfig | None) -> Shares:
        """As the tenant file says; what it leaves is shared equally."""
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
        amounts = {Table.CIDRS: len(self.prefixes), Table.POLICY: self.exact}
        return amounts.get(table, self.ranged)


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
class Usage:
    """Who uses how much of one map, and what is kept for each."""

    room: int
    """Entries that owners share."""
    used: Mapping[str, int]
    """By tenant; nobody's namespaces together under NOBODY."""
    budget: Mapping[str, int]
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Things that found no place, by tenant."""


def prefixes_of(policy: NetworkPolicy, direction: Direction) -> frozenset[str]:
    """All prefixes that the blocks of one direction are cut into."""
    return frozenset(
        prefix
        for rule in policy.rules(direction)
        for peer in rule.peers
        if peer.ip_block is not None
        for prefix in (peer.ip_block.cidr, *peer.ip_block.excepts)
    )


def at_least(policy: NetworkPolicy, direction: Direction, tenant: str) -> Want:
    """What a policy will need wherever it is in use, by its text alone."""
    prefixes = prefixes_of(policy, direction)
    rules = policy.rules(direction)
    ranges = any(port.end_port is not None for rule in rules for port in rule.ports)
    return Want(tenant, prefixes, 0 if ranges or not prefixes else 1)


def refuse(
    wants: Mapping[Unit, Want], room: Mapping[Table, int], shares: Shares
) -> dict[Unit, Refusal]:
    """What has to stand back so that the rest fits."""
    left, refused = dict(wants), dict[Unit, Refusal]()
    for table in BY_POLICY:
        users = _Users(table, left)
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

    def __init__(self, table: Table, wants: Mapping[Unit, Want]) -> None:
        self.used: Counter[str] = Counter()
        self._table = table
        self._wants = wants
        self.units: dict[str, list[Unit]] = {}
        self._prefixes: dict[str, Counter[str]] = {}
        by_size = sorted(wants, key=lambda unit: (wants[unit].amount(table), unit))
        for unit in by_size:
            want = wants[unit]
            if want.amount(table):
                self.units.setdefault(want.tenant, []).append(unit)
                self._add(want)

    def _add(self, want: Want) -> None:
        if self._table is not Table.CIDRS:
            self.used[want.tenant] += want.amount(self._table)
            return
        counted = self._prefixes.setdefault(want.tenant, Counter())
        counted.update(want.prefixes)
        self.used[want.tenant] = len(counted)

    def pop_largest(self, tenant: str) -> Unit:
        """The unit that gives most back."""
        unit = self.units[tenant].pop()
        if not self.units[tenant]:
            del self.units[tenant]
        want = self._wants[unit]
        if self._table is not Table.CIDRS:
            self.used[tenant] -= want.amount(self._table)
            return unit
        counted = self._prefixes[tenant]
        counted.subtract(want.prefixes)
        for prefix in want.prefixes:
            if not counted[prefix]:
                del counted[prefix]
        self.used[tenant] = len(counted)
        return unit


def total(wants: Iterable[Want], table: Table) -> int:
    """The sum, as if no two had a prefix in common."""
    return sum(want.amount(table) for want in wants)
