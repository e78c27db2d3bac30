"""The tenant wall as policy groups: who may enter a tenant before any NetworkPolicy is asked.

compile.py builds one group for each tenant with endpoints here, and one for each namespace in
quarantine. What may surprise: labels are made to agree with the record before any selector sees
them, so a forged label selects nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enforcer.groups import Group, Number, entries
from enforcer.identity import PodClass
from enforcer.ports import EVERYTHING, PROTOCOLS, Ranked, Span, every_port
from enforcer.tables import IDENTITY_HOST, IDENTITY_REMOTE_NODE, PEER_TENANT, Dir, EndpointFlag
from generators.cluster import Cluster, confirmed_namespaces, quarantined
from generators.objects import Namespace
from generators.tenants.model import Grant, Mode, Port, SharedComponent, TenantConfig

NO_CONFIG = TenantConfig(mode=Mode.OVERRIDABLE)
NODES = (IDENTITY_HOST, IDENTITY_REMOTE_NODE)
"""What a masked source can be: an address of this node or of another one."""


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Who belongs to whom as the record says it."""

    config: TenantConfig
    namespaces: Mapping[str, Namespace]
    """With labels that agree with the record."""
    tenants: Mapping[str, str]
    quarantined: frozenset[str]
    shared: Mapping[str, frozenset[str]]
    """Namespace -> the shared components that live there."""

    @classmethod
    def of(cls, cluster: Cluster) -> Tenancy:
        """Without a tenant file there are no tenants, and no label is special."""
        config = cluster.config
        if config is None:
            return cls(NO_CONFIG, cluster.namespaces, {}, frozenset(), {})
        shared: dict[str, frozenset[str]] = {}
        for component in config.shared:
            for name in component.namespaces:
                shared[name] = shared.get(name, frozenset()) | {component.name}
        return cls(
            config, confirmed_namespaces(cluster), cluster.tenants, quarantined(cluster), shared
        )


@dataclass(frozen=True, slots=True)
class Wall:
    """The wall of one endpoint: the content of its group, and how strictly it is meant."""

    group: Group
    flags: EndpointFlag


def wall_of(
    namespace: str,
    tenancy: Tenancy,
    classes: Mapping[PodClass, int],
    tenant_ids: Mapping[str, int],
    number: Number,
) -> Wall | None:
    """The wall around the pods of a namespace; None where nothing but NetworkPolicies speaks."""
    mode = tenancy.config.mode
    flags = EndpointFlag.WALL
    if mode is Mode.AUDIT:
        flags |= EndpointFlag.WALL_AUDIT
    if namespace in tenancy.quarantined:
        return Wall(_quarantine(namespace, tenancy.config, classes, number), flags)
    tenant = tenancy.tenants.get(namespace)
    if tenant is None or mode is Mode.OVERRIDABLE:
        return None
    known = tenancy.config.tenants.get(tenant)
    if known is not None and known.allow_masked:
        flags |= EndpointFlag.ALLOW_MASKED
    return Wall(_tenant(tenant, tenancy.config, classes, tenant_ids, number), flags)


def _tenant(
    tenant: str,
    config: TenantConfig,
    classes: Mapping[PodClass, int],
    tenant_ids: Mapping[str, int],
    number: Number,
) -> Group:
    """Own tenant, shared components, consented grants: in this order of rules."""
    grants = config.consented(tenant) if tenant in config.tenants else ()
    prefix = f"tenant/{tenant}#"
    rules = [f"{prefix}own"]
    rules += [f"{prefix}shared[{c.name}]" for c in config.shared]
    rules += [f"{prefix}allowFrom[{g.tenant}]" for g in grants]
    opened = _shared(config.shared, classes)
    for pods, identity in classes.items():
        if identity in opened:
            opened[identity] += _tenants(pods.tenant, tenant, grants, 1 + len(config.shared))
    for other, number_of in tenant_ids.items():
        found = _tenants(other, tenant, grants, 1 + len(config.shared))
        if found:
            opened[PEER_TENANT | number_of] = found
    return _group(opened, rules, f"{prefix}wall", number)


def _tenants(source: str, tenant: str, grants: tuple[Grant, ...], first: int) -> list[Ranked]:
    """What pods of tenant `source` may do in `tenant`; the grants' ranks begin at `first`."""
    if source == tenant:
        return [(0, EVERYTHING)]
    return [
        (first + index, span)
        for index, grant in enumerate(grants)
        if grant.tenant == source
        for span in _spans(grant.ports)
    ]


def _shared(
    components: tuple[SharedComponent, ...], classes: Mapping[PodClass, int]
) -> dict[int, list[Ranked]]:
    """What shared components may do, by identity; ranks begin at 1."""
    opened: dict[int, list[Ranked]] = {}
    for rank, component in enumerate(components, start=1):
        peers = [i for pods, i in classes.items() if component.name in pods.shared]
        if component.host_network:
            peers += NODES
        for peer in peers:
            opened.setdefault(peer, []).extend((rank, s) for s in _spans(component.ports))
    return opened


def _quarantine(
    namespace: str, config: TenantConfig, classes: Mapping[PodClass, int], number: Number
) -> Group:
    """A label without record: only the namespace itself and shared components may enter."""
    prefix = f"quarantine/{namespace}#"
    rules = [f"{prefix}own"] + [f"{prefix}shared[{c.name}]" for c in config.shared]
    opened = _shared(config.shared, classes)
    for pods, identity in classes.items():
        if pods.quarantine == namespace:
            opened.setdefault(identity, []).append((0, EVERYTHING))
    return _group(opened, rules, f"{prefix}wall", number)


def _group(opened: dict[int, list[Ranked]], rules: list[str], denial: str, number: Number) -> Group:
    policy, ranges = entries(opened, [number(r) for r in rules], Dir.INGRESS)
    return Group(frozenset(policy), frozenset(ranges), wall=denial)


def _spans(ports: tuple[Port, ...]) -> list[Span]:
    if not ports:
        return [EVERYTHING]
    return [
        every_port(p.protocol)
        if p.port is None
        else Span(PROTOCOLS[p.protocol], p.port, p.end_port or p.port)
        for p in ports
    ]
