"""Tenant -> the NetworkPolicies that isolate its namespaces.

Called by the controller and the offline commands. Ingress only: traffic may leave a namespace, it
just may not enter another tenant's. Tenants are named by label, shared components by
`kubernetes.io/metadata.name`, which nobody can forge. What may surprise: a component on its nodes'
network, and the masked traffic that a tenant allows, are named by the addresses of all nodes, so
that what the tenant wall lets in is let in on any CNI. Under audit nothing is written at all, for
a CNI knows no audit; our agents judge by the same policies "on trial", and only report.
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
    config: TenantConfig, namespace: str, tenant: str, nodes: Iterable[Node] = ()
) -> tuple[NetworkPolicy, ...]:
    """The policies of one namespace: its tenant, shared components and consented grants enter.

    `nodes` are those of the cluster: their addresses stand for components on their network.
    """
    own = Rule(peers=(_labelled(config.label_key, tenant),))
    hosts = _hosts(nodes)
    shared = [rule for component in config.shared for rule in _shared(component, hosts)]
    granted = [
        Rule(peers=(_labelled(config.label_key, grant.tenant),), ports=_ports(grant.ports))
        for grant in config.consented(tenant)
    ]
    masked = [Rule(peers=hosts)] if hosts and config.tenants[tenant].allow_masked else []
    line = config.tenants[tenant].line
    policy = NetworkPolicy(
        namespace=namespace,
        name=POLICY_NAME,
        ingress=(own, *shared, *granted, *masked),
        labels={MANAGED_BY: MANAGER, POLICY_LABEL: ISOLATION, RULE_LABEL: POLICY_NAME},
        origin=Origin(config.file, line),
    )
    return (policy,)


def is_on_trial(config: TenantConfig, namespace: Namespace, tenant: str) -> bool:
    """Whether what isolates a tenant's namespace only reports: its policies are not written."""
    return config.audits(tenant) or namespace.annotations.get(MODE_ANNOTATION) == AUDIT_MODE


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
