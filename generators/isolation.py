"""Tenant -> the NetworkPolicies that isolate its namespaces.

Called by the controller and the offline commands. Ingress only: traffic may leave a namespace, it
just may not enter another tenant's. Tenants are named by label, shared components by
`kubernetes.io/metadata.name`, which nobody can forge.
"""

from __future__ import annotations

from collections.abc import Mapping

from generators.labels import MANAGED_BY, MANAGER, POLICY_LABEL, RULE_LABEL
from generators.objects import NAME_LABEL, NetworkPolicy, Origin, Peer, PolicyPort, Rule
from generators.selectors import labels_selector
from generators.tenants.model import Port, TenantConfig

ISOLATION = "tenant-isolation"
"""Value of the policy label on what this module generates."""
POLICY_NAME = "allow-ingress-namespace"


def isolation_policies(
    config: TenantConfig, namespace: str, tenant: str
) -> tuple[NetworkPolicy, ...]:
    """The policies of one namespace: its tenant, shared components and consented grants enter."""
    own = Rule(peers=(_labelled(config.label_key, tenant),))
    shared = [
        Rule(
            peers=tuple(_labelled(NAME_LABEL, name) for name in component.namespaces),
            ports=_ports(component.ports),
        )
        for component in config.shared
    ]
    granted = [
        Rule(peers=(_labelled(config.label_key, grant.tenant),), ports=_ports(grant.ports))
        for grant in config.consented(tenant)
    ]
    line = config.tenants[tenant].line
    policy = NetworkPolicy(
        namespace=namespace,
        name=POLICY_NAME,
        ingress=(own, *shared, *granted),
        labels={MANAGED_BY: MANAGER, POLICY_LABEL: ISOLATION, RULE_LABEL: POLICY_NAME},
        origin=Origin(config.file, line),
    )
    return (policy,)


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether an object was generated here: others that Ringfence manages come from policies."""
    return labels.get(MANAGED_BY) == MANAGER and labels.get(POLICY_LABEL, ISOLATION) == ISOLATION


def _labelled(key: str, value: str) -> Peer:
    return Peer(namespace_selector=labels_selector({key: value}))


def _ports(ports: tuple[Port, ...]) -> tuple[PolicyPort, ...]:
    return tuple(PolicyPort(port.protocol, port.port, port.end_port) for port in ports)
