"""The cluster as one value: what the evaluator, the compiler and `plan` decide on.

`from_objects` makes it of users' documents, as webhook and controller would leave them;
`from_record` of what an API server or the lab really holds. Tenancy is in `tenants`; labels never
prove it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from generators.addresses import AddressPool, contains
from generators.assumptions import Assumption, assumptions
from generators.isolation.policies import is_on_trial, is_ours, isolation_policies
from generators.isolation.record import agreed, read_record, tenants_of, unconfirmed
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from generators.manifests import Documents
from generators.objects import (
    NAME_LABEL,
    CiliumPolicy,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Service,
    ServiceKind,
)
from generators.tenants.assignment import assign_by_name
from generators.tenants.consents import by_annotations
from generators.tenants.model import TenantConfig

DEFAULT_POD_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
"""Pod ranges where nothing names them; pods without `status` get their addresses here."""
DEFAULT_NODE_CIDRS = ("172.18.0.0/16", "fd00:172:18::/64")
"""Range of addresses for nodes without one, for the pods on their network."""
DEFAULT_SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
"""Range of ClusterIPs for Services without one."""

_PENDING = "Pending"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that a verdict depends on; every namespace that an object uses is in it."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict, hash=False)
    pods: tuple[Pod, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    nodes: tuple[Node, ...] = ()
    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    config: TenantConfig | None = None
    """The tenant file; None = no tenant wall, only NetworkPolicies count."""
    tenants: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Namespace name -> tenant name, from assignment or from the controller's record."""
    pod_cidrs: tuple[str, ...] = DEFAULT_POD_CIDRS
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What was changed or left out on the way, for the user's eyes."""
    assumptions: tuple[Assumption, ...] = field(default=(), compare=False)
    """What the input does not say and a verdict may depend on."""


def from_objects(documents: Documents, config: TenantConfig | None = None) -> Cluster:
    """The cluster that the documents describe; with a tenant file labelled and isolated by it."""
    warnings: list[str] = list(documents.warnings)
    namespaces = declared_namespaces(documents)
    policies = documents.policies
    cilium = _parts(documents)
    tenants: dict[str, str] = {}
    nodes = known_nodes(documents)
    pod_cidrs = pod_ranges(nodes)
    pods, nodes = _addressed(documents.pods, nodes, pod_cidrs)
    if config is not None:
        namespaces, tenants = label_namespaces(namespaces, config, warnings)
        config, unheard = by_annotations(config, namespaces.values(), tenants)
        warnings += unheard
        policies = _isolated(policies, namespaces, tenants, config, nodes, warnings)
    return Cluster(
        namespaces=namespaces,
        pods=_without_lost_addresses(pods, warnings),
        policies=tuple(sorted((*policies, *cilium), key=lambda p: (p.namespace, p.key))),
        nodes=nodes,
        services=_with_cluster_ips(documents.services),
        slices=documents.slices,
        config=config,
        tenants=tenants,
        pod_cidrs=pod_cidrs,
        warnings=tuple(warnings),
        assumptions=assumptions(documents, {pod.key: pod.ips for pod in pods}, config),
    )


def from_record(documents: Documents, config: TenantConfig | None = None) -> Cluster:
    """The cluster as its objects are: tenants by the record in ConfigMaps, nothing generated."""
    warnings: list[str] = list(documents.warnings)
    namespaces = declared_namespaces(documents)
    tenants: Mapping[str, str] = {}
    if config is not None:
        record = read_record(documents.config_maps)
        tenants, _ = tenants_of(namespaces.values(), record, config)
        config = agreed(config, namespaces.values(), record)
    nodes = known_nodes(documents)
    return Cluster(
        namespaces=namespaces,
        pods=_without_lost_addresses(documents.pods, warnings),
        policies=tuple(
            sorted((*documents.policies, *_parts(documents)), key=lambda p: (p.namespace, p.key))
        ),
        nodes=nodes,
        services=tuple(sorted(documents.services, key=lambda s: s.key)),
        slices=documents.slices,
        config=config,
        tenants=tenants,
        pod_cidrs=pod_ranges(nodes),
        warnings=tuple(warnings),
    )


def assumed(cluster: Cluster, ends: Iterable[str]) -> tuple[str, ...]:
    """What a question about these ends, named as in cells, takes for granted."""
    names = set(ends)
    namespaces = {name.partition("/")[0] for name in names}
    found = [item.text for item in cluster.assumptions if item.namespaces & namespaces]
    walled = cluster.config is not None and "ip" in namespaces
    if walled and not any(node.pod_cidrs for node in cluster.nodes):
        found.append(
            f"no Node says podCIDRs, so pods are taken to be in {' and '.join(cluster.pod_cidrs)}, "
            "and any other address outside the cluster; add the Nodes"
        )
    return tuple(found)


def label_namespaces(
    namespaces: Mapping[str, Namespace], config: TenantConfig, warnings: list[str]
) -> tuple[dict[str, Namespace], dict[str, str]]:
    """The namespaces as the controller labels them, and their tenants; warns of labels that lie."""
    labelled: dict[str, Namespace] = {}
    tenants: dict[str, str] = {}
    for name, namespace in namespaces.items():
        assignment = assign_by_name(config, name)
        claimed = namespace.labels.get(config.label_key)
        if claimed is not None and claimed != assignment.tenant:
            repaired = f'set to "{assignment.tenant}"' if assignment.tenant else "removed"
            warnings.append(
                f'{namespace.origin}: Namespace {name}: label {config.label_key}: "{claimed}" '
                f"proves nothing and was {repaired}: {assignment.reason}"
            )
        kept = {k: v for k, v in namespace.labels.items() if k != config.label_key}
        labels = dict(sorted({**kept, **assignment.labels}.items()))
        labelled[name] = replace(namespace, labels=labels)
        if assignment.tenant is not None:
            tenants[name] = assignment.tenant
    return labelled, tenants


def address_owners(pods: Iterable[Pod]) -> Mapping[str, Pod]:
    """The owner of each pod address: of two running pods the one created later, else listed later.

    Pods on their node's network and completed pods own no address.
    """
    owners: dict[str, Pod] = {}
    for pod in pods:
        if pod.host_network or pod.terminal:
            continue
        for ip in pod.ips:
            if ip not in owners or pod.created >= owners[ip].created:
                owners[ip] = pod
    return owners


def quarantined(cluster: Cluster) -> frozenset[str]:
    """Namespaces with a tenant label that nothing stands behind; none without a tenant file."""
    if cluster.config is None:
        return frozenset()
    return unconfirmed(cluster.namespaces.values(), cluster.tenants, cluster.config)


def audited(cluster: Cluster) -> frozenset[str]:
    """Namespaces whose drops are only reported; one in quarantine cannot ask for that."""
    asking = {
        name
        for name, namespace in cluster.namespaces.items()
        if namespace.annotations.get(MODE_ANNOTATION) == AUDIT_MODE
    }
    return frozenset(asking - quarantined(cluster)) if asking else frozenset()


def on_trial(cluster: Cluster) -> Mapping[str, NetworkPolicy]:
    """Namespace -> the policy that would isolate it, where it is under audit.

    A user's own policy of that name stays in force and is not on trial.
    """
    config = cluster.config
    if config is None:
        return {}
    foreign = {p.key for p in cluster.policies if not is_ours(p.labels)}
    return {
        namespace: policy
        for namespace, tenant in cluster.tenants.items()
        if tenant in config.tenants and namespace in cluster.namespaces
        if is_on_trial(config, cluster.namespaces[namespace], tenant)
        for policy in isolation_policies(config, namespace, tenant, cluster.nodes)
        if policy.key not in foreign
    }


def confirmed_namespaces(cluster: Cluster) -> Mapping[str, Namespace]:
    """The namespaces, tenant labels made to agree with `tenants`: a forged one selects nothing."""
    if cluster.config is None:
        return cluster.namespaces
    key = cluster.config.label_key
    found = {}
    for name, namespace in cluster.namespaces.items():
        labels = {k: v for k, v in namespace.labels.items() if k != key}
        if name in cluster.tenants:
            labels[key] = cluster.tenants[name]
        found[name] = replace(namespace, labels=labels)
    return found


def declared_namespaces(documents: Documents) -> dict[str, Namespace]:
    """The namespaces that are declared or that objects use, by name in order."""
    found = {namespace.name: namespace for namespace in documents.namespaces}
    users: tuple[Pod | NetworkPolicy | CiliumPolicy | Service, ...] = (
        *documents.pods,
        *documents.policies,
        *(policy for policy in documents.cilium_policies if policy.namespace),
        *documents.services,
    )
    for item in users:
        if item.namespace not in found:
            labels = {NAME_LABEL: item.namespace}
            found[item.namespace] = Namespace(item.namespace, labels=labels, origin=item.origin)
    return {
        name: replace(namespace, labels={**namespace.labels, NAME_LABEL: name})
        for name, namespace in sorted(found.items())
    }


def _parts(documents: Documents) -> tuple[NetworkPolicy, ...]:
    """What Cilium's policies say, each part by itself."""
    return tuple(part for policy in documents.cilium_policies for part in policy.parts)


def _isolated(
    policies: Iterable[NetworkPolicy],
    namespaces: Mapping[str, Namespace],
    tenants: Mapping[str, str],
    config: TenantConfig,
    nodes: tuple[Node, ...],
    warnings: list[str],
) -> tuple[NetworkPolicy, ...]:
    """The policies with the generated ones in place, as the controller keeps them."""
    wanted = {
        policy.key: policy
        for namespace, tenant in tenants.items()
        if not is_on_trial(config, namespaces[namespace], tenant)
        for policy in isolation_policies(config, namespace, tenant, nodes)
    }
    for name in unconfirmed(namespaces.values(), tenants, config):
        if not is_on_trial(config, namespaces[name], None):
            wanted |= {p.key: p for p in isolation_policies(config, name, None, nodes)}
    kept = []
    for policy in policies:
        if is_ours(policy.labels):
            continue
        if policy.key in wanted:
            warnings.append(
                f"{policy.origin}: NetworkPolicy {policy.key} has the name of a generated one and "
                "is replaced by it; rename yours"
            )
            continue
        kept.append(policy)
    return (*kept, *wanted.values())


def known_nodes(documents: Documents) -> tuple[Node, ...]:
    """Declared nodes, and what pods say of theirs."""
    nodes = {node.name: node for node in documents.nodes}
    for pod in documents.pods:
        ips = (*pod.host_ips, *(pod.ips if pod.host_network else ()))
        if pod.node and ips:
            node = nodes.get(pod.node, Node(pod.node))
            nodes[pod.node] = replace(node, ips=tuple(dict.fromkeys((*node.ips, *ips))))
    return tuple(node for _, node in sorted(nodes.items()))


def pod_ranges(nodes: Iterable[Node]) -> tuple[str, ...]:
    """The ranges that pods get addresses from, as far as nodes say."""
    named = dict.fromkeys(cidr for node in nodes for cidr in node.pod_cidrs)
    return tuple(named) or DEFAULT_POD_CIDRS


def _addressed(
    pods: tuple[Pod, ...], nodes: tuple[Node, ...], pod_cidrs: tuple[str, ...]
) -> tuple[tuple[Pod, ...], tuple[Node, ...]]:
    """Pods to be get addresses: on a node's network the node's, others from the pod ranges."""
    used = {ip for pod in pods for ip in (*pod.ips, *pod.host_ips)}
    used.update(ip for node in nodes for ip in (*node.ips, *node.interface_ips))
    node_pool = AddressPool(DEFAULT_NODE_CIDRS, used)
    pools = {node.name: AddressPool(node.pod_cidrs, used) for node in nodes if node.pod_cidrs}
    shared_pool = AddressPool(pod_cidrs, used)
    by_name = {node.name: node for node in nodes}
    given: dict[str, Pod] = {}
    for pod in sorted(pods, key=lambda p: p.key):
        if pod.ips or pod.terminal or pod.phase == _PENDING:
            continue
        if pod.host_network:
            node = by_name.get(pod.node, Node(pod.node))
            if not node.ips:
                node = replace(node, ips=node_pool.take(pod.node))
                by_name[pod.node] = node
            given[pod.key] = replace(pod, ips=node.ips)
        else:
            given[pod.key] = replace(pod, ips=pools.get(pod.node, shared_pool).take(pod.key))
    return (
        tuple(given.get(pod.key, pod) for pod in pods),
        tuple(node for _, node in sorted(by_name.items())),
    )


def _with_cluster_ips(services: Iterable[Service]) -> tuple[Service, ...]:
    """Services to be get addresses, as pods do."""
    services = sorted(services, key=lambda s: s.key)
    pool = AddressPool(DEFAULT_SERVICE_CIDRS, {ip for s in services for ip in s.cluster_ips})
    return tuple(
        replace(service, cluster_ips=pool.take(service.key))
        if service.kind is ServiceKind.CLUSTER_IP and not service.cluster_ips
        else service
        for service in services
    )


def _without_lost_addresses(pods: Iterable[Pod], warnings: list[str]) -> tuple[Pod, ...]:
    """Each address at its owner only; pods by namespace and name."""
    pods = tuple(pods)
    owners = address_owners(pods)
    kept = []
    for pod in sorted(pods, key=lambda p: (p.namespace, p.name)):
        lost = []
        if not pod.host_network and not pod.terminal:
            lost = [ip for ip in pod.ips if owners[ip].key != pod.key]
        for ip in lost:
            warnings.append(
                f"{pod.origin}: Pod {pod.key}: address {ip} now belongs to pod {owners[ip].key}"
            )
        kept.append(replace(pod, ips=tuple(ip for ip in pod.ips if ip not in lost)))
    return tuple(kept)


def in_pod_range(cluster: Cluster, address: str) -> bool:
    """Whether an address is inside the cluster's pod ranges."""
    return any(contains(cidr, address) for cidr in cluster.pod_cidrs)
