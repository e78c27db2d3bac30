"""Endpoints of local pods: the groups that hold for each, and the entry of its interface.

The compiler calls `place` for every local pod that something happened to. A pod that has an
interface already and is not known yet (CNI was faster than the API server) gets what the start mode
grants until it is known; and a pod recreated under the same name is another endpoint, even
behind the same interface, so that nothing of the old one's connections is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from enforcer.policy.changes import Attachment, is_local
from enforcer.policy.groups import Isolation, PolicyGroup
from enforcer.policy.identity import Registry, TenantNumbers
from enforcer.policy.modes import StartMode
from enforcer.policy.rulebook import Group, Groups, Rulebook
from enforcer.policy.start import Ground, provisional
from enforcer.policy.tables import EndpointEntry, EndpointFlag
from enforcer.policy.walls import Granted, NamespaceFacts, ReachGroup, WallGroup, wall_flags
from enforcer.writes.budgets import NOBODY
from enforcer.writes.pending import PendingTables
from enforcer.writes.rooms import Room
from generators.isolation.policies import is_ours
from generators.objects import Direction, Namespace, Pod
from generators.tenants.model import TenantConfig

POLICY, WALL, REACH = "policy", "wall", "reach"
"""The groups of an endpoint."""
KEEP_ANNOTATION = "ringfence.io/keep-established"
"""`"true"` on a namespace or on policies: open connections outlive changes of policies."""
KEPT: Mapping[Direction, EndpointFlag] = {
    Direction.INGRESS: EndpointFlag.KEEP_INGRESS,
    Direction.EGRESS: EndpointFlag.KEEP_EGRESS,
}
NONE = EndpointFlag(0)


@dataclass(slots=True)
class Known:
    """The inputs as they are now; the compiler writes them."""

    node: str
    grace: frozenset[int] = frozenset()
    start_mode: StartMode = StartMode.STRICT
    config: TenantConfig | None = None
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    record: dict[str, str] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    interfaces: dict[str, int] = field(default_factory=dict)
    macs: dict[str, str] = field(default_factory=dict)
    """Of the pods that have interfaces."""
    arrivals: dict[str, Attachment] = field(default_factory=dict)
    """Sandboxes of pods that are not known yet."""
    homes: dict[str, NamespaceFacts] = field(default_factory=dict)
    tenants: TenantNumbers = field(default_factory=TenantNumbers)
    granted: Granted = field(default_factory=dict)
    shortcut: bool = False
    """Something on this node may hand packets of pods to other pods past their interfaces."""


class Placement:
    """The endpoints in the ledger."""

    def __init__(
        self,
        known: Known,
        rulebook: Rulebook,
        groups: Groups,
        registry: Registry,
        ledger: PendingTables,
        room: Room[str],
    ) -> None:
        self.placed: dict[str, int] = {}
        """Local pod -> the interface that its endpoint is filed under."""
        self._known = known
        self._rulebook = rulebook
        self._groups = groups
        self._registry = registry
        self._ledger = ledger
        self._room = room

    def place(self, key: str, *, anew: bool = False) -> None:
        """The endpoint of a pod of this node; `anew`: it is another pod than before."""
        before = self.placed.pop(key, None)
        ifindex, entry = self._entry(key, anew=anew)
        owner = self._known.record.get(key.partition("/")[0], NOBODY)
        self._room.put(key, None if entry is None else owner)
        if not self._room.holds(key):
            entry = None
        if entry is None or ifindex is None:
            for side in (POLICY, WALL, REACH):
                self._groups.leave(key, side)
        if before is not None and (entry is None or before != ifindex):
            self._vacate(before)
        if entry is not None and ifindex is not None:
            self.placed[key] = ifindex
            self._succeed(ifindex, entry)
            self._ledger.endpoints.put(ifindex, entry)

    def moved(self) -> Iterable[str]:
        """Pods that came in or went out because of others, where the map is full."""
        return [k for k in self._room.changed() if self._room.holds(k) != (k in self.placed)]

    def _succeed(self, ifindex: int, entry: EndpointEntry) -> None:
        """Free the number of an endpoint whose place another one takes."""
        old = self._ledger.endpoints.now.get(ifindex)
        if old is not None and old.endpoint != entry.endpoint:
            name = (ifindex, old.ip4, old.ip6)
            if self._registry.endpoints.known.get(name) == old.endpoint:
                self._registry.endpoints.forget(name)

    def _vacate(self, ifindex: int) -> None:
        if ifindex in self.placed.values():
            return
        entry = self._ledger.endpoints.now.get(ifindex)
        if entry is not None:
            self._registry.endpoints.forget((ifindex, entry.ip4, entry.ip6))
            self._ledger.endpoints.put(ifindex, None)

    def _entry(self, key: str, *, anew: bool) -> tuple[int | None, EndpointEntry | None]:
        known = self._known
        pod, ifindex = known.pods.get(key), known.interfaces.get(key)
        if pod is None and key in known.arrivals:
            arrival = known.arrivals[key]
            return arrival.ifindex, self._provisional(key, arrival)
        if pod is None or ifindex is None or not is_local(pod, known.node):
            return None, None
        home = known.homes[pod.namespace]
        isolation = self._rulebook.isolation(pod, home.labels)
        walls = wall_flags(home, known.config)
        policy = self._policy_of(pod, home, isolation)
        wall, reach = self._wall(key, home, walls), self._reach(key, home, walls)
        flags = EndpointFlag.READY | walls
        for group in (policy, wall, reach):
            flags |= group.definition.needs if group is not None else NONE
        flags |= self._kept(pod, isolation)
        if self._rulebook.only_reports(isolation):
            flags |= EndpointFlag.AUDIT_INGRESS
        if ifindex in known.grace:
            flags |= EndpointFlag.GRACE
        flags |= self._shortcut()
        ip4 = tuple(a for a in pod.ips if ":" not in a)
        ip6 = tuple(a for a in pod.ips if ":" in a)
        if anew:
            self._registry.endpoints.forget((ifindex, ip4, ip6))
        before = self._ledger.endpoints.now.get(ifindex)
        number = self._registry.endpoints.of((ifindex, ip4, ip6))
        return ifindex, EndpointEntry(
            endpoint=number,
            group=policy.number if policy is not None else 0,
            wall=wall.number if wall is not None else 0,
            tenant=known.tenants.ids.get(home.tenant, 0),
            generation=before.generation if before is not None else 1,
            flags=flags,
            ip4=ip4,
            ip6=ip6,
            mac=self._mac(key, number, before),
            reach=reach.number if reach is not None else 0,
        )

    def _shortcut(self) -> EndpointFlag:
        return EndpointFlag.SHORTCUT if self._known.shortcut else NONE

    def _mac(self, key: str, number: int, before: EndpointEntry | None) -> str:
        """The one that the pod started with: it may give itself another one."""
        if before is not None and before.endpoint == number and before.mac:
            return before.mac
        return self._known.macs.get(key, "")

    def _provisional(self, key: str, arrival: Attachment) -> EndpointEntry | None:
        """What the start mode grants to a pod of which only the interface is known."""
        known, ground = self._known, None
        home = known.homes.get(arrival.namespace)
        self._groups.leave(key, POLICY)
        self._groups.leave(key, REACH)
        if home is None or arrival.namespace not in known.namespaces:
            self._groups.leave(key, WALL)
        else:
            walls = wall_flags(home, known.config)
            wall = self._wall(key, home, walls)
            needs = wall.definition.needs if wall is not None else NONE
            ip4 = tuple(a for a in arrival.ips if ":" not in a)
            ip6 = tuple(a for a in arrival.ips if ":" in a)
            ground = Ground(
                endpoint=self._registry.endpoints.of((arrival.ifindex, ip4, ip6)),
                tenant=known.tenants.ids.get(home.tenant, 0),
                wall=wall.number if wall is not None else 0,
                flags=walls | needs | self._shortcut(),
            )
        return provisional(arrival, ground, known.start_mode)

    def _kept(self, pod: Pod, isolation: Isolation) -> EndpointFlag:
        """In which directions the pod keeps open connections, whatever policies change.

        Its namespace says so, or all policies of users that isolate it do.
        """
        flags = NONE
        namespace = self._known.namespaces.get(pod.namespace)
        everything = namespace is not None and _wants_to_keep(namespace.annotations)
        for direction, flag in KEPT.items():
            users = [p for p in isolation.of(direction) if not is_ours(p.labels)]
            if everything or (users and all(_wants_to_keep(p.annotations) for p in users)):
                flags |= flag
        return flags

    def _policy_of(self, pod: Pod, home: NamespaceFacts, isolation: Isolation) -> Group | None:
        if not (isolation.ingress or isolation.egress):
            self._groups.leave(pod.key, POLICY)
            return None
        known = self._known
        tenant = known.tenants.ids.get(home.tenant, 0)
        key = tenant, self._rulebook.meaning(isolation, pod)
        numbers = self._registry.rules.of, self._registry.of_set
        return self._groups.enter(
            pod.key, POLICY, key, lambda: PolicyGroup(tenant, key, isolation, pod.ports, *numbers)
        )

    def _wall(self, key: str, home: NamespaceFacts, flags: EndpointFlag) -> Group | None:
        config = self._known.config
        if config is None or EndpointFlag.WALL not in flags:
            self._groups.leave(key, WALL)
            return None
        wall = WallGroup(home, config, self._known.tenants.ids, self._registry.rules.of)
        return self._groups.enter(key, WALL, wall.key, lambda: wall)

    def _reach(self, key: str, home: NamespaceFacts, flags: EndpointFlag) -> Group | None:
        known, config = self._known, self._known.config
        if config is not None and EndpointFlag.REACH in flags:
            number = self._registry.rules.of
            reach = ReachGroup(home, config, known.granted, known.tenants.ids, number)
            if reach:
                return self._groups.enter(key, REACH, reach.key, lambda: reach)
        self._groups.leave(key, REACH)
        return None


def _wants_to_keep(annotations: Mapping[str, str]) -> bool:
    return annotations.get(KEEP_ANNOTATION) == "true"
