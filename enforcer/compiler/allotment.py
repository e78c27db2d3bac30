"""Which policies of this node's pods find no room in its maps, and are closed instead.

The compiler calls `look` before it makes groups of policies, which decides by their text alone, and
`tighten` after their entries exist, which decides the rest. A refused policy still isolates the
pods that it selects, in its direction, and allows nothing there. It is never compiled again just to
see whether it would fit by now, only when it changes, when the needs that were once counted would
fit, or after `forget`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from enforcer.compiler.placement import Known
from enforcer.policy.rulebook import WHOLE_CLUSTER, GroupNames, Rulebook
from enforcer.policy.tables import RULE_NUMBER, Dir, Table
from enforcer.writes.budgets import (
    BY_POLICY,
    NOBODY,
    Overlaps,
    Refusal,
    RoomUsage,
    Shares,
    Unit,
    Want,
    at_least,
    refuse,
    total,
)
from enforcer.writes.pending import PendingTables
from generators.objects import Direction, NetworkPolicy, namespace_of, policy_of
from generators.tenants.model import TenantConfig

SIDES: Mapping[str, Direction] = {
    f"{d.value.lower()}{kind}": d for d in Direction for kind in ("", "Deny")
} | {f"enableDefaultDeny.{d.value.lower()}": d for d in Direction}
"""By the name of a policy's rule, up to its index."""


class Allotment:
    """The refused policies of one node."""

    def __init__(
        self,
        known: Known,
        rulebook: Rulebook,
        ledger: PendingTables,
        names: GroupNames,
        rules: Mapping[int, str],
        capacity: Mapping[Table, int],
    ) -> None:
        self.refused: dict[Unit, Refusal] = {}
        self.room = {table: capacity[table] // 2 for table in BY_POLICY}
        """One half of each map: what replaces the other finds room beside it."""
        self.shares = Shares()
        self._config: TenantConfig | None = None
        self._known = known
        self._rulebook = rulebook
        self._ledger = ledger
        self._isolating_names = names.isolating
        self._names = rules
        self._measured: dict[Unit, tuple[NetworkPolicy, int, int]] = {}
        self._least: dict[Unit, tuple[NetworkPolicy, Want]] = {}
        self._in_use: dict[str, Mapping[Unit, NetworkPolicy]] = {}
        """By namespace: the policies that isolate pods here."""
        self._walls: Counter[Table] = Counter()
        self._overlaps = Overlaps()
        self._last: object = None
        self._needs: dict[str, dict[Table, int]] = {}
        """By namespace, what its policies need, and the sum: most changes move none of it."""
        self._sum: Counter[Table] = Counter()

    def look(
        self, touched: Iterable[str], local: Mapping[str, Mapping[str, None]]
    ) -> tuple[str, ...]:
        """Decide again; `touched`: namespaces whose policies or local pods are others.

        The namespaces whose policies mean something else now.
        """
        if self._known.config is not self._config:
            self._config = self._known.config
            self.shares = Shares.of(self._config)
        for namespace in touched:
            self._forget(namespace)
            if namespace in local:
                self._in_use[namespace] = self._isolating(namespace, local[namespace])
            self._add_up(namespace)
        if not self.refused and all(self._sum[table] <= room for table, room in self.room.items()):
            return ()
        wants = self._wants()
        if (wants, self.shares) == self._last:
            return ()
        self._measure()
        wants = self._wants()
        self._last = (wants, self.shares)
        return self._close(self._refuse(wants))

    def tighten(self) -> tuple[str, ...]:
        """The same after entries were made, if they are too many: what is refused stays so."""
        if not self.is_overfull:
            return ()
        self._measure()
        wants = self._wants()
        self._last = (wants, self.shares)
        return self._close(self.refused | self._refuse(wants))

    def would_admit(self, policy: NetworkPolicy) -> bool:
        """Whether a policy would find room by its text, beside all that is in use."""
        tenant = self._known.record.get(policy.namespace, NOBODY)
        heard = [d for d in Direction if policy.speaks(d)]
        more = {(policy.key, d): at_least(policy, d, tenant) for d in heard}
        wants = {**self._wants(), **more}
        self._overlaps.follow(wants)  # a policy at a time, before it matters
        if all(total(wants.values(), table) <= room for table, room in self.room.items()):
            return True
        return self._refuse(wants).keys().isdisjoint(more)

    def _refuse(self, wants: Mapping[Unit, Want]) -> dict[Unit, Refusal]:
        return refuse(wants, self._left(), self.shares, self._overlaps.follow(wants))

    @property
    def is_overfull(self) -> bool:
        """Whether what is wanted by now needs more room than there is."""
        room = self.room
        return self._ledger.exact > room[Table.POLICY] or self._ledger.ranged > room[Table.RANGES]

    def _measure(self) -> None:
        """Count what each policy needs by the entries that it has."""
        buckets = self._ledger.buckets.now.values()
        exact = Counter(rule for bucket in buckets for rule in bucket.policy.values())
        ranged = Counter(rule for bucket in buckets for rule in bucket.ranges.values())
        names = self._names
        of = {rule: _unit_of(names.get(rule & RULE_NUMBER, "")) for rule in (*exact, *ranged)}
        by_unit = {Table.POLICY: _summed(exact, of), Table.RANGES: _summed(ranged, of)}
        self._walls = Counter({table: found.pop(None, 0) for table, found in by_unit.items()})
        for units in self._in_use.values():
            for unit, policy in units.items():
                if unit not in self.refused:
                    found = by_unit[Table.POLICY], by_unit[Table.RANGES]
                    self._measured[unit] = policy, found[0][unit], found[1][unit]
        self._add_up(*self._in_use)

    def forget(self) -> None:
        """Let refused policies be counted again: what they select may be less by now."""
        for unit in self.refused:
            self._measured.pop(unit, None)
        self._add_up(*self._in_use)

    def usage(self, table: Table) -> RoomUsage:
        """Who uses what of a map that policies fill; may be asked from any thread."""
        used: Counter[str] = Counter()
        if table is Table.CIDRS:
            prefixes: dict[str, set[str]] = {}
            for unit, want in self._wants().items():
                if unit not in self.refused:
                    prefixes.setdefault(want.tenant, set()).update(want.prefixes)
            used.update({tenant: len(found) for tenant, found in prefixes.items()})
        else:
            for (group, _), bucket in list(self._ledger.buckets.now.items()):
                owner = self._owner_of(group)
                if owner is not None:
                    used[owner] += len(bucket.policy if table is Table.POLICY else bucket.ranges)
        room = self.room[table]
        budget = {tenant: self.shares.budget(tenant, room) for tenant in used}
        return RoomUsage(room, {tenant: n for tenant, n in used.items() if n}, budget)

    def _owner_of(self, group: int) -> str | None:
        """The tenant of a group of policies; None for walls."""
        for direction in Dir:
            for policy in self._isolating_names.get((group, direction), ()):
                return self._known.record.get(namespace_of(policy), NOBODY)
        return None

    def _forget(self, namespace: str) -> None:
        for unit in self._in_use.pop(namespace, {}):
            policy = self._rulebook.written(unit[0])
            for known in (self._measured, self._least):
                if unit in known and known[unit][0] is not policy:
                    del known[unit]

    def _isolating(self, namespace: str, pods: Iterable[str]) -> Mapping[Unit, NetworkPolicy]:
        home = self._known.homes.get(namespace)
        labels = home.labels if home is not None else {}
        return {
            (policy.key, direction): policy
            for key in pods
            for policy in self._rulebook.selecting(self._known.pods[key], labels)
            for direction in Direction
            if policy.speaks(direction)
        }

    def _add_up(self, *namespaces: str) -> None:
        """What these need has changed."""
        for namespace in namespaces:
            wants = self._wants_of(namespace).values()
            needs = {table: total(wants, table) for table in BY_POLICY}
            before = self._needs.pop(namespace, {})
            if wants:
                self._needs[namespace] = needs
            for table, count in needs.items():
                self._sum[table] += count - before.get(table, 0)

    def _wants(self) -> dict[Unit, Want]:
        found: dict[Unit, Want] = {}
        for namespace in list(self._in_use):
            found.update(self._wants_of(namespace))
        return found

    def _wants_of(self, namespace: str) -> dict[Unit, Want]:
        owner = self._known.record.get
        return {
            unit: self._want(unit, policy, owner(policy.namespace, NOBODY))
            for unit, policy in self._in_use.get(namespace, {}).items()
        }

    def _want(self, unit: Unit, policy: NetworkPolicy, tenant: str) -> Want:
        kept = self._least.get(unit)
        if kept is None or kept[1].tenant != tenant:
            kept = self._least[unit] = policy, at_least(policy, unit[1], tenant)
        least = kept[1]
        if unit not in self._measured:
            return least
        _, exact, ranged = self._measured[unit]
        return replace(least, exact=max(exact, least.exact), ranged=ranged)

    def _left(self) -> Mapping[Table, int]:
        """Room beside the tenants' walls."""
        return {table: room - self._walls[table] for table, room in self.room.items()}

    def _close(self, refused: dict[Unit, Refusal]) -> tuple[str, ...]:
        moved = refused.keys() ^ self.refused.keys()
        self.refused = refused
        keys = dict.fromkeys(key for key, _ in moved)
        for key in keys:
            self._rulebook.close(key, frozenset(d for k, d in refused if k == key))
        homes = dict.fromkeys(map(namespace_of, keys))
        return tuple(self._in_use) if WHOLE_CLUSTER in homes else tuple(homes)


def _unit_of(rule: str) -> Unit | None:
    """The policy of rule `namespace/policy#ingress[0]`; None for one of a wall."""
    policy, place = policy_of(rule)
    side = SIDES.get(place.partition("[")[0])
    return (policy, side) if side is not None else None


def _summed(entries: Mapping[int, int], of: Mapping[int, Unit | None]) -> Counter[Unit | None]:
    found: Counter[Unit | None] = Counter()
    for rule, count in entries.items():
        found[of[rule]] += count
    return found
