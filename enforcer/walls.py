"""The tenant wall as policy groups: who may enter a tenant before any NetworkPolicy is asked.

The compiler makes one group for each tenant with endpoints here, and one for each namespace in
quarantine. What may surprise: labels are made to agree with the record before any selector sees
them, so a forged label selects nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enforcer.groups import EMPTY, Bucket, Number, bucket
from enforcer.identity import PodClass, Quarantine, Shared, Word
from enforcer.ports import EVERYTHING, PROTOCOLS, Ranked, Span, every_port
from enforcer.tables import IDENTITY_HOST, IDENTITY_REMOTE_NODE, PEER_TENANT, Dir, EndpointFlag
from generators.cluster import Cluster, audited, confirmed_namespaces, quarantined
from generators.objects import NAME_LABEL, IPBlock, Labels, Namespace
from generators.tenants.model import Grant, Mode, Port, SharedComponent, TenantConfig

NODES = (IDENTITY_HOST, IDENTITY_REMOTE_NODE)
"""What a masked source can be: an address of this node or of another one."""


@dataclass(frozen=True, slots=True)
class Home:
    """What a namespace tells of its pods, with labels that agree with the record."""

    name: str
    labels: Labels = field(default_factory=dict, hash=False)
    tenant: str = ""
    quarantined: bool = False
    shared: frozenset[str] = frozenset()
    """The shared components that live there."""
    audited: bool = False
    """What would be dropped of its pods' traffic is only reported."""

    @classmethod
    def of(
        cls, name: str, namespace: Namespace | None, tenant: str | None, config: TenantConfig | None
    ) -> Home:
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
        )


def wall_flags(home: Home, config: TenantConfig | None) -> EndpointFlag:
    """Whether a wall is around a namespace's pods, how strictly all is meant, what they may."""
    flags = EndpointFlag.AUDIT if home.audited else EndpointFlag(0)
    if config is not None and home.name in config.encapsulating:
        flags |= EndpointFlag.ENCAPSULATES
    if config is None or not (home.quarantined or home.tenant):
        return flags
    if not home.quarantined and config.mode is Mode.OVERRIDABLE:
        return flags
    flags |= EndpointFlag.WALL
    if config.mode is Mode.AUDIT or home.audited:
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
        self, home: Home, config: TenantConfig, tenant_ids: Mapping[str, int], number: Number
    ) -> None:
        self.isolating: Mapping[Dir, tuple[str, ...]] = {}
        self.tenant = 0  # it has no blocks
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
        self._names = [f"{owner}#own"]
        self._names += [f"{owner}#shared[{c.name}]" for c in self._components]
        self._names += [f"{owner}#allowFrom[{grant.tenant}]" for grant in self._grants]
        words: set[Word] = {Shared(c.name) for c in self._components}
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

    def for_block(self, held: frozenset[IPBlock]) -> Bucket:
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


def _spans(side: SharedComponent | Grant) -> list[Span]:
    return [_span(port) for port in side.ports] or [EVERYTHING]


def _span(port: Port) -> Span:
    if port.port is None:
        return every_port(port.protocol)
    return Span(PROTOCOLS[port.protocol], port.port, port.end_port or port.port)
