"""What can happen to the inputs of a node's tables, and what turned one into another.

A watcher of an API server makes a change of each event; a reader of whole clusters calls `between`.
Both end in `Compiler.apply`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from generators.cluster import Cluster
from generators.objects import (
    BlockList,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Service,
)
from generators.tenants.model import TenantConfig

V = TypeVar("V")

INTERFACE_ANNOTATION = "ringfence.io/interface"
"""On a pod in a manifest: the name of its host-side veth in the agent's network namespace."""


def is_local(pod: Pod, node: str) -> bool:
    """Whether this node enforces the pod."""
    return pod.node == node and not pod.host_network and not pod.terminal


@dataclass(frozen=True, slots=True)
class Attachment:
    """One sandbox (`container`) of a pod behind the host-side interface `ifindex`."""

    container: str
    namespace: str
    pod: str
    uid: str
    """Empty where the runtime does not tell it."""
    ifindex: int
    ips: tuple[str, ...]
    """As in a pod's status: canonical, without prefix length."""

    @property
    def key(self) -> str:
        """`namespace/pod`, as in `Pod.key`."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class PodChange:
    """The pod `namespace/name` as it is now; None: it is gone."""

    key: str
    pod: Pod | None


@dataclass(frozen=True, slots=True)
class NamespaceChange:
    """A namespace as it is now; None: it is gone."""

    name: str
    namespace: Namespace | None


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """The policy `namespace/name` as it is now; None: it is gone."""

    key: str
    policy: NetworkPolicy | None


@dataclass(frozen=True, slots=True)
class BlocksChange:
    """So many blocks of a list are ready in a tenant's trie, whether a policy names it or not."""

    trie: int
    blocks: BlockList
    count: int


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """The Service `namespace/name` as it is now; None: it is gone."""

    key: str
    service: Service | None


@dataclass(frozen=True, slots=True)
class SliceChange:
    """The EndpointSlice `namespace/name` as it is now; None: it is gone."""

    key: str
    slice: EndpointSlice | None


@dataclass(frozen=True, slots=True)
class RecordChange:
    """The tenant of a namespace as the record has it; None: the record does not know it."""

    namespace: str
    tenant: str | None


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """The tenant file; None: there is none."""

    config: TenantConfig | None


@dataclass(frozen=True, slots=True)
class NodesChange:
    """All nodes, and the pod ranges of the cluster."""

    nodes: tuple[Node, ...]
    pod_cidrs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """The ifindex of a local pod's host-side veth; None: it has none."""

    pod: str
    ifindex: int | None
    mac: str = ""
    """Of the pod's side; empty if unknown."""


@dataclass(frozen=True, slots=True)
class ArrivalChange:
    """A sandbox of a pod that is not known yet; None: it is gone, or the pod is known."""

    pod: str
    attachment: Attachment | None


@dataclass(frozen=True, slots=True)
class ShortcutChange:
    """Whether something on this node may hand packets of pods to other pods past our programs."""

    present: bool


@dataclass(frozen=True, slots=True)
class OrderChange:
    """Pods as they were given: the later one gets an address that two claim, all else equal."""

    pods: tuple[str, ...]


InputChange = (
    PodChange
    | NamespaceChange
    | PolicyChange
    | BlocksChange
    | ServiceChange
    | SliceChange
    | RecordChange
    | ConfigChange
    | NodesChange
    | InterfaceChange
    | ArrivalChange
    | ShortcutChange
    | OrderChange
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that the tables of a node depend on."""

    cluster: Cluster
    interfaces: Mapping[str, int]


NOTHING = Inputs(Cluster(pod_cidrs=()), {})


def between(before: Inputs, after: Inputs) -> Iterator[InputChange]:
    """The changes that turn one into the other."""
    old, new = before.cluster, after.cluster
    if old.config is not new.config and old.config != new.config:
        yield ConfigChange(new.config)
    if (old.nodes, old.pod_cidrs) != (new.nodes, new.pod_cidrs):
        yield NodesChange(new.nodes, new.pod_cidrs)
    for name, namespace in _changed(old.namespaces, new.namespaces):
        yield NamespaceChange(name, namespace)
    for name, tenant in _changed(old.tenants, new.tenants):
        yield RecordChange(name, tenant)
    policies = {p.key: p for p in old.policies}, {p.key: p for p in new.policies}
    for key, policy in _changed(*policies):
        yield PolicyChange(key, policy)
    pods = {p.key: p for p in old.pods}, {p.key: p for p in new.pods}
    for key, pod in _changed(*pods):
        yield PodChange(key, pod)
    services = {s.key: s for s in old.services}, {s.key: s for s in new.services}
    for key, service in _changed(*services):
        yield ServiceChange(key, service)
    slices = _slices(old), _slices(new)
    for key, found in _changed(*slices):
        yield SliceChange(key, found)
    for key, ifindex in _changed(before.interfaces, after.interfaces):
        yield InterfaceChange(key, ifindex)
    if list(pods[0]) != list(pods[1]):
        yield OrderChange(tuple(pods[1]))


def _slices(cluster: Cluster) -> Mapping[str, EndpointSlice]:
    return {f"{item.namespace}/{item.name}": item for item in cluster.slices}


def _changed(old: Mapping[str, V], new: Mapping[str, V]) -> Iterator[tuple[str, V | None]]:
    for key in old:
        if key not in new:
            yield key, None
    for key, value in new.items():
        before = old.get(key)
        if before is not value and before != value:
            yield key, value
