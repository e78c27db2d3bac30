"""Tenant -> the NetworkPolicies that isolate its namespaces.

Called by the controller and the offline commands. Ingress only: traffic may leave a namespace, it
just may not enter another tenant's. Tenants are named by label, shared components by
`kubernetes.io/metadata.name`, which cannot be forged. A component on its nodes' network, and the
masked traffic that a tenant allows, are named by the addresses of all nodes, so that what the
tenant wall lets in is let in on any CNI. Under audit nothing is written at all, because CNIs have
no audit mode; our agents judge by the same policies "on trial", and only report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network

from generators.labels import (
    AUDIT_MODE,
    MANAGED_BY,
    MANAGER,
    MODE_ANNOTATION,
    POLICY_LABEL,
    RULE_LABEL,
)
from generators.objects import (
    NAME_LABEL,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Node,
    Origin,
    Peer,
    PolicyPort,
    Rule,
)
from generators.selectors import labels_selector
from generators.tenants.model import Port, SharedComponent, TenantConfig

ISOLATION = "tenant-isolation"
"""Value of the policy label on what this module generates."""
POLICY_NAME = "allow-ingress-namespace"


def isolation_policies(
    config: TenantConfig, namespace: str, tenant: str | None, nodes: Iterable[Node] = ()
) -> tuple[NetworkPolicy, ...]:
    """The policies of one namespace: its tenant, shared components and consented grants enter.

    Without a tenant it is in quarantine: only the namespace itself and shared components do.
    `nodes` are those of the cluster: their addresses stand for components on their network.
    """
    known = config.tenant(tenant or "")
    itself = (NAME_LABEL, namespace) if tenant is None else (config.label_key, tenant)
    own = Rule(peers=(_labelled(*itself),))
    hosts = _hosts(nodes)
    shared = [rule for component in config.shared for rule in _shared(component, hosts)]
    granted = [
        Rule(peers=(_labelled(config.label_key, grant.tenant),), ports=_ports(grant.ports))
        for grant in config.consented(known.name)
    ]
    masked = [Rule(peers=hosts)] if hosts and known.allow_masked else []
    policy = NetworkPolicy(
        namespace=namespace,
        name=POLICY_NAME,
        ingress=(own, *shared, *granted, *masked),
        labels={MANAGED_BY: MANAGER, POLICY_LABEL: ISOLATION, RULE_LABEL: POLICY_NAME},
        origin=Origin(*config.located(known.line)),
    )
    return (policy,)


def is_on_trial(config: TenantConfig, namespace: Namespace, tenant: str | None) -> bool:
    """Whether what isolates a namespace only reports: its policies are not written.

    In quarantine, without a tenant, its annotation is ignored.
    """
    asks = tenant is not None and namespace.annotations.get(MODE_ANNOTATION) == AUDIT_MODE
    return config.audits(tenant) or asks


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether an object was generated here: others that Ringfence manages come from policies."""
    return labels.get(MANAGED_BY) == MANAGER and labels.get(POLICY_LABEL, ISOLATION) == ISOLATION


def _shared(component: SharedComponent, hosts: tuple[Peer, ...]) -> Sequence[Rule]:
    """By its namespaces; where it uses its nodes' network also by their addresses."""
    ports = _ports(component.ports)
    spaces = tuple(_labelled(NAME_LABEL, name) for name in component.namespaces)
    named = Rule(peers=spaces, ports=ports)
    # Without a single node there is no such rule: one without peers would let in everybody.
    if not component.host_network or not hosts:
        return [named]
    return [named, Rule(peers=hosts, ports=ports)]


def _hosts(nodes: Iterable[Node]) -> tuple[Peer, ...]:
    """Every address of every node as a block of its own, IPv4 first."""
    blocks = {ip_network(ip) for node in nodes for ip in node.ips}
    ordered = sorted(blocks, key=lambda b: (b.version, int(b.network_address)))
    return tuple(Peer(ip_block=IPBlock(str(block))) for block in ordered)


def _labelled(key: str, value: str) -> Peer:
    return Peer(namespace_selector=labels_selector({key: value}))


def _ports(ports: tuple[Port, ...]) -> tuple[PolicyPort, ...]:
    return tuple(PolicyPort(port.protocol, port.port, port.end_port) for port in ports)
