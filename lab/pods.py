"""From the lab's objects to what this machine should hold: addresses, wires, sites, the agent's
input.

Pure. Every pod runs on the lab's one node, whatever its manifest says; a pod on its node's network
lives in the node's network namespace and has no wire.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from generators.cluster import DEFAULT_POD_CIDRS, Cluster, from_objects
from generators.errors import Refused
from generators.isolation.record import record_documents
from generators.manifests import (
    Document,
    Documents,
    namespace_document,
    pod_document,
    policy_document,
)
from generators.objects import Node, Pod, PolicyKind
from lab.names import NODE, NODE_ADDRESSES, Places, PodNetwork, Shape, Wire
from lab.responder import TYPES, Site
from lab.store import Store, Stored, key_of

INTERFACE_ANNOTATION = "ringfence.io/interface"
"""Names the pod's host-side veth to the agent."""
MANIFEST_FILE = "cluster.json"


@dataclass(frozen=True, slots=True)
class Running:
    """One pod as it runs here. `wire` is None on the node's network."""

    pod: Pod
    netns: str
    wire: Wire | None
    node: str = NODE

    def site(self) -> Site:
        """Where and on which ports it answers."""
        return site(self.pod, self.netns)


def pod_network(shape: Shape) -> PodNetwork:
    """The network of the pods on the lab's one node."""
    return PodNetwork(shape, DEFAULT_POD_CIDRS)


def check_addresses(shape: Shape, pods: Iterable[Pod]) -> None:
    """Refused when a pod has the address that is its node's on this network."""
    if shape is Shape.GATEWAY:
        return
    for pod in pods:
        taken = sorted({*pod.ips} & {*pod_network(shape).gateways})
        if taken:
            raise Refused(
                f"{pod.origin}: Pod {pod.key}: address {taken[0]} is the node's own on network "
                f"{shape}; give the pod another, or start the lab with --network gateway"
            )


def site(pod: Pod, netns: str) -> Site:
    """Where and on which ports a pod answers."""
    ports = {(port.protocol, port.port) for port in pod.ports if port.protocol in TYPES}
    return Site(pod.key, netns, tuple(sorted(ports)))


def documents(store: Store) -> Documents:
    """The stored objects as the offline commands would have read them."""
    return Documents(
        namespaces=store.namespaces,
        pods=store.pods,
        policies=store.policies,
        cilium_policies=store.cilium_policies,
        nodes=store.nodes,
    )


def give_addresses(store: Store) -> None:
    """Write addresses into the status of pods that should run and have none."""
    cluster = from_objects(documents(store))
    without = {pod.key for pod in store.pods if not pod.ips}
    for pod in cluster.pods:
        if pod.ips and pod.key in without:
            key = key_of(pod)
            stored = store.objects[key]
            store.objects[key] = Stored(pod_document(pod), stored.applied)


def running(places: Places, store: Store) -> tuple[Running, ...]:
    """The pods that have an address of their own (or their node's), by namespace and name."""
    found = []
    for pod in from_objects(documents(store)).pods:
        if not pod.ips or pod.terminal:
            continue
        if pod.host_network:
            found.append(Running(pod, places.node_netns, None))
            continue
        netns = places.pod_netns(pod.namespace, pod.name)
        wire = Wire(netns, places.interface(pod.namespace, pod.name), pod.ips)
        found.append(Running(pod, netns, wire))
    return tuple(found)


def node_of(cluster: Cluster, pods: Iterable[Running]) -> Node:
    """The lab's node: its own addresses, those of pods on its network, all pod ranges."""
    hosted = (ip for item in pods if item.wire is None for ip in item.pod.ips)
    return Node(NODE, tuple(dict.fromkeys((*NODE_ADDRESSES, *hosted))), cluster.pod_cidrs)


def nodes_of(places: Places, store: Store) -> tuple[Node, ...]:
    """Every node that the lab knows: those that were applied, and its own."""
    cluster = from_objects(documents(store))
    others = (node for node in cluster.nodes if node.name not in ("", NODE))
    return (*others, node_of(cluster, running(places, store)))


def manifest(places: Places, store: Store, only: Collection[str] | None = None) -> bytes:
    """What the agent reads, with the controller's record; `only` these pods where some stop
    first.
    """
    cluster = from_objects(documents(store))
    pods = running(places, store)
    by_key = {item.pod.key: item for item in pods}
    uids = {namespace.uid: namespace.name for namespace in store.namespaces}
    record = {
        uid: replace(entry, namespace=uids[uid])
        for uid, entry in store.record.items()
        if uid in uids
    }
    items: list[Document] = [
        *(namespace_document(namespace) for namespace in cluster.namespaces.values()),
        *(
            _pod(pod, by_key.get(pod.key))
            for pod in cluster.pods
            if only is None or pod.key in only
        ),
        *(policy_document(p) for p in cluster.policies if p.kind is PolicyKind.NETWORK_POLICY),
        *(dict(policy.document) for policy in store.cilium_policies),
        *(node_document(node) for node in nodes_of(places, store)),
        *record_documents(record),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode()


def node_document(node: Node) -> Document:
    """A Node, with what decisions depend on."""
    status = {"addresses": [{"type": "InternalIP", "address": ip} for ip in node.ips]}
    spec = {"podCIDRs": list(node.pod_cidrs)} if node.pod_cidrs else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name},
        "spec": spec,
        "status": status,
    }


def _pod(pod: Pod, item: Running | None) -> Document:
    if item is None:
        return pod_document(pod)
    annotations = dict(pod.annotations)
    if item.wire is not None:
        annotations[INTERFACE_ANNOTATION] = item.wire.interface
    return pod_document(replace(pod, annotations=annotations, node=NODE))
