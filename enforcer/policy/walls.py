"""The tenant wall as policy groups: who may enter a tenant before any NetworkPolicy is asked.

The compiler makes one group for each tenant with endpoints here, and one for each namespace in
quarantine. Labels are made to agree with the record before any selector sees them, so a forged
label selects nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enforcer.policy.buckets import EMPTY, Bucket, bucket
from enforcer.policy.groups import ASKS_NOBODY, Number
from enforcer.policy.identity import PeerTerm, PodClass, Quarantine, Shared
from enforcer.policy.ports import EVERYTHING, Ranked, Span, every_port
from enforcer.policy.tables import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    PEER_ANY,
    PEER_TENANT,
    Dir,
    EndpointFlag,
)
from generators.cluster import Cluster, audited, confirmed_namespaces, quarantined
from generators.objects import NAME_LABEL, BlockList, Labels, Namespace
from generators.reachability.protocols import WITH_PORTS
from generators.tenants.model import Grant, Mode, Port, SharedComponent, TenantConfig

NODES = (IDENTITY_HOST, IDENTITY_REMOTE_NODE)
"""What a masked source can be: an address of this node or of another one."""


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A namespace's facts about its pods, with labels that agree with the record."""

    name: str
    labels: Labels = field(default_factory=dict, hash=False)
    tenant: str = ""
    quarantined: bool = False
    shared: frozenset[str] = frozenset()
    """The shared components that live there."""
    audited: bool = False
    """What would be dropped of its pods' traffic is only reported."""
    tried: bool = False
    """Its tenant is under audit: what Ringfence would drop is only reported."""

    @classmethod
    def of(
        cls, name: str, namespace: Namespace | None, tenant: str | None, config: TenantConfig | None
    ) -> NamespaceFacts:
        """Without a tenant file there are no tenants, and no label is special."""
        known = namespace or Namespace(name, {NAME_LABEL: name})
        alone = Cluster(
            namespaces={name: known}, config=config, tenants={name: tenant} if tenant else {}
        )
        is_audited = name in audited(alone)
        if config is None:
            return cls(name, known.labels, audited=is_audited)
        return cls(
            name,
            confirmed_namespaces(alone)[name].labels,
            tenant or "",
            name in quarantined(alone),
            frozenset(c.name for c in config.shared if name in c.namespaces),
            is_audited,
            tenant is not None and tenant in config.tenants and config.tenants[tenant].audited,
        )


def wall_flags(home: NamespaceFacts, config: TenantConfig | None) -> EndpointFlag:
    """Whether a wall is around a namespace's pods, how strictly all is meant, what they may."""
    flags = EndpointFlag.AUDIT if home.audited else EndpointFlag(0)
    if config is not None and home.name in config.encapsulating:
        flags |= EndpointFlag.ENCAPSULATES
    if home.quarantined:
        flags |= EndpointFlag.QUARANTINE
    if config is not None and config.mode is Mode.STRICT:
        flags |= EndpointFlag.REACH
    if config is None or not (home.quarantined or home.tenant):
        return flags
    if not home.quarantined and config.mode is Mode.OVERRIDABLE:
        return flags
    flags |= EndpointFlag.WALL
    if config.mode is Mode.AUDIT or home.audited or home.tried:
        flags |= EndpointFlag.WALL_AUDIT
    known = config.tenants.get(home.tenant)
    if not home.quarantined and known is not None and known.allow_masked:
        flags |= EndpointFlag.ALLOW_MASKED
    return flags


def drops(flags: EndpointFlag) -> bool:
    """Whether the wall is more than a report."""
    return EndpointFlag.WALL in flags and EndpointFlag.WALL_AUDIT not in flags


class WallGroup:
    """Own tenant or quarantined namespace, shared components, consented grants: in this order."""

    def __init__(
        self,
        home: NamespaceFacts,
        config: TenantConfig,
        tenant_ids: Mapping[str, int],
        number: Number,
    ) -> None:
        self.isolating: Mapping[Dir, tuple[str, ...]] = {}
        self.tenant = 0  # it has no blocks
        self.asks = ASKS_NOBODY
        self.lists: frozenset[BlockList] = frozenset()
        self.places: tuple[int | None, ...] = ()
        self._home = home
        self._components = config.shared
        self._grants: tuple[Grant, ...] = ()
        if not home.quarantined and home.tenant in config.tenants:
            self._grants = config.consented(home.tenant)
        self._ids = {
            name: tenant_ids[name]
            for name in (home.tenant, *(grant.tenant for grant in self._grants))
            if name in tenant_ids and not home.quarantined
        }
        self._number = number
        owner = f"quarantine/{home.name}" if home.quarantined else f"tenant/{home.tenant}"
        self.wall = f"{owner}#wall"
        self.rule_sets: frozenset[int] = frozenset()
        self._names = [f"{owner}#own"]
        self._names += [f"{owner}#shared[{c.name}]" for c in self._components]
        self._names += [f"{owner}#allowFrom[{grant.tenant}]" for grant in self._grants]
        words: set[PeerTerm] = {Shared(c.name) for c in self._components}
        if home.quarantined:
            words.add(Quarantine(home.name))
        self.words = frozenset(words)
        sides: tuple[SharedComponent | Grant, ...] = (*self._components, *self._grants)
        spans = [span for side in sides for span in _spans(side)]
        ranged = any(span.first != span.last and not span.whole for span in spans)
        self.needs = EndpointFlag.USES_RANGE if ranged else EndpointFlag(0)

    @property
    def key(self) -> object:
        """Equal for equal meanings."""
        return (self.wall, self._components, self._grants, tuple(self._ids.items()))

    @property
    def lasting(self) -> object:
        """The same, equal in every process."""
        return self.key

    def fixed(self) -> Mapping[int, Bucket]:
        """Tenants as a whole, and nodes where a shared component uses their network."""
        found = {
            PEER_TENANT | number: self._bucket(self._tenants(name))
            for name, number in self._ids.items()
        }
        masked = self._bucket(
            [
                (rank, span)
                for rank, component in enumerate(self._components, start=1)
                if component.host_network
                for span in _spans(component)
            ]
        )
        return found | (dict.fromkeys(NODES, masked) if masked else {})

    def for_pods(self, pods: PodClass) -> Bucket:
        """Shared components and, in quarantine, the namespace itself; tenants are in `fixed`."""
        found = [
            (rank, span)
            for rank, component in enumerate(self._components, start=1)
            if component.name in pods.shared
            for span in _spans(component)
        ]
        if self._home.quarantined:
            if pods.quarantine == self._home.name:
                found.append((0, EVERYTHING))
        elif found:
            found += self._tenants(pods.tenant)
        return self._bucket(found)

    def for_lists(self, lists: frozenset[BlockList], place: int | None) -> Bucket:
        """The wall does not look at addresses."""
        return EMPTY

    def _tenants(self, source: str) -> list[Ranked]:
        """What pods of tenant `source` may do."""
        if source == self._home.tenant:
            return [(0, EVERYTHING)]
        first = 1 + len(self._components)
        return [
            (first + index, span)
            for index, grant in enumerate(self._grants)
            if grant.tenant == source
            for span in _spans(grant)
        ]

    def _bucket(self, found: list[Ranked]) -> Bucket:
        return bucket(found, [self._number(name) for name in self._names], Dir.INGRESS)


Granted = Mapping[str, tuple[tuple[str, Grant], ...]]
"""Tenant -> the tenants that let it in, and what each grants."""


def granted(config: TenantConfig | None) -> Granted:
    """All consented grants, by who profits."""
    found: dict[str, tuple[tuple[str, Grant], ...]] = {}
    for owner in config.tenants if config is not None else ():
        for grant in config.consented(owner) if config is not None else ():
            found[grant.tenant] = (*found.get(grant.tenant, ()), (owner, grant))
    return found


class ReachGroup:
    """The walls of others, as far as they let in the pods of one namespace.

    The programs ask it before a pod's packet to a walled pod opens a connection.
    """

    isolating: Mapping[Dir, tuple[str, ...]] = {}
    tenant = 0
    asks = ASKS_NOBODY
    lists: frozenset[BlockList] = frozenset()
    places: tuple[int | None, ...] = ()
    wall = ""
    rule_sets: frozenset[int] = frozenset()

    def __init__(
        self,
        home: NamespaceFacts,
        config: TenantConfig,
        grants: Granted,
        tenant_ids: Mapping[str, int],
        number: Number,
    ) -> None:
        self._home = home
        self._components = tuple(c for c in config.shared if c.name in home.shared)
        self._grants: tuple[tuple[str, Grant], ...] = ()
        if not home.quarantined:
            self._grants = tuple(g for g in grants.get(home.tenant, ()) if g[0] in tenant_ids)
        owners = [owner for owner, _ in self._grants]
        owners += [home.tenant] if home.tenant in tenant_ids and not home.quarantined else []
        self._ids = {owner: tenant_ids[owner] for owner in owners}
        owner = home.name if home.quarantined else home.tenant
        self._rule = number(f"tenant/{owner}#reach")
        self.words: frozenset[PeerTerm] = frozenset(
            {Quarantine(home.name)} if home.quarantined else ()
        )
        sides: tuple[SharedComponent | Grant, ...] = (
            *self._components,
            *(grant for _, grant in self._grants),
        )
        spans = [span for side in sides for span in _spans(side)]
        ranged = any(span.first != span.last and not span.whole for span in spans)
        self.needs = EndpointFlag.USES_RANGE if ranged else EndpointFlag(0)

    def __bool__(self) -> bool:
        return bool(self.words or self._components or self._ids)

    @property
    def key(self) -> object:
        """Equal for equal meanings."""
        return ("reach", self._rule, self.words, self._components, self._grants, *self._ids.items())

    @property
    def lasting(self) -> object:
        """The same, equal in every process."""
        words = tuple(sorted(map(repr, self.words)))
        return ("reach", words, self._components, self._grants, tuple(self._ids.items()))

    def fixed(self) -> Mapping[int, Bucket]:
        """The own tenant, those that grant something, and everybody for shared components."""
        everybody = [span for component in self._components for span in _spans(component)]
        found = {PEER_ANY: self._bucket(everybody)} if everybody else {}
        for owner, number in self._ids.items():
            spans = [s for name, grant in self._grants if name == owner for s in _spans(grant)]
            if owner == self._home.tenant:
                spans = [EVERYTHING]
            found[PEER_TENANT | number] = self._bucket(spans)
        return found

    def for_pods(self, pods: PodClass) -> Bucket:
        """Pods of the same namespace, while it is in quarantine."""
        same = self._home.quarantined and pods.quarantine == self._home.name
        return self._bucket([EVERYTHING]) if same else EMPTY

    def for_lists(self, lists: frozenset[BlockList], place: int | None) -> Bucket:
        """Walls do not look at addresses."""
        return EMPTY

    def _bucket(self, spans: list[Span]) -> Bucket:
        return bucket([(0, span) for span in spans], [self._rule], Dir.EGRESS)


def _spans(side: SharedComponent | Grant) -> list[Span]:
    return [_span(port) for port in side.ports] or [EVERYTHING]


def _span(port: Port) -> Span:
    if port.port is None:
        return every_port(port.protocol)
    return Span(WITH_PORTS[port.protocol], port.port, port.end_port or port.port)
