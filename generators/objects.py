"""The Kubernetes objects that decisions are made of, as frozen values.

Parsed once (manifests/, kube/), trusted afterwards: defaults are filled in, wrong objects never get
here.
Labels and annotations are plain mappings that are never mutated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from generators.http import HttpRule

Labels = Mapping[str, str]

NAME_LABEL = "kubernetes.io/metadata.name"
"""Set on every Namespace by the API server to the namespace's name; cannot be forged."""
SERVICE_ACCOUNT = "k8s:io.cilium.k8s.policy.serviceaccount"
"""How selectors of Cilium's policies ask for a pod's service account; no label can be called so."""
DEFAULT_SERVICE_ACCOUNT = "default"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where an object was read: file (or `-`, or `api-server`) and the line of its document."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Direction(StrEnum):
    """Seen from the pod that a policy isolates; values as in `policyTypes`."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


class Operator(StrEnum):
    """How a requirement compares, as in `matchExpressions`."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One `matchExpressions` item."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector: every requirement must hold; without any it selects everything.

    `matchLabels` are stored as `In` requirements with one value; requirements are sorted, so equal
    selectors compare equal however they were written.
    """

    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; `uid` is what the controller's record knows it by."""

    name: str
    labels: Labels = field(default_factory=dict, hash=False)
    annotations: Labels = field(default_factory=dict, hash=False)
    uid: str = ""
    terminating: bool = False
    origin: Origin = field(default=Origin(), compare=False)
    created: str = field(default="", compare=False)
    """When, as the API server writes it; empty in files."""


@dataclass(frozen=True, slots=True, order=True)
class ContainerPort:
    """A port that a container declares; policies may call it by `name`."""

    port: int
    protocol: str = "TCP"
    name: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """What runs a pod, by the name that people gave it: a Deployment, not its ReplicaSet."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on the pod network, or on its node's when `host_network`.

    `ips` holds every address in canonical text (IPv4 and IPv6), empty while it has none;
    `host_ips` those of its node; `workload` None: no controller runs it.
    """

    namespace: str
    name: str
    labels: Labels = field(default_factory=dict, hash=False)
    annotations: Labels = field(default_factory=dict, hash=False)
    ips: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    node: str = ""
    host_ips: tuple[str, ...] = ()
    host_network: bool = False
    phase: str = "Running"
    terminating: bool = False
    uid: str = ""
    created: str = ""
    workload: Workload | None = None
    affinity: tuple[Selector, ...] = ()
    """Selectors of namespaces in its affinity to other pods: where it may be scheduled."""
    service_account: str = DEFAULT_SERVICE_ACCOUNT
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def key(self) -> str:
        """`namespace/name`, as users write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def selectable(self) -> Labels:
        """All that a policy's selector of pods may ask for: labels, and the service account."""
        return {**self.labels, SERVICE_ACCOUNT: self.service_account}

    @property
    def terminal(self) -> bool:
        """Succeeded or Failed: its address may already belong to another pod."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What a Deployment, StatefulSet, ... makes pods of; `pod` speaks for all of them."""

    workload: Workload
    pod: Pod
    """Named `deployment/NAME`, without an address."""
    owner: Workload | None = None
    """The workload that made this one, as a Deployment makes ReplicaSets."""

    @property
    def namespace(self) -> str:
        """Of its pods."""
        return self.pod.namespace

    @property
    def name(self) -> str:
        """`deployment/NAME`, as kubectl takes it."""
        return self.pod.name

    @property
    def origin(self) -> Origin:
        """Where it was read."""
        return self.pod.origin


@dataclass(frozen=True, slots=True)
class IPBlock:
    """`ipBlock`: canonical CIDR (host bits cleared) minus canonical excepts.

    `outside`: as Cilium's CIDRs, it holds no address of a pod or a node.
    """

    cidr: str
    excepts: tuple[str, ...] = ()
    outside: bool = False


class NodePeer(StrEnum):
    """Nodes as a peer, by Cilium's names: the pod's own one, or any other."""

    HOST = "host"
    REMOTE_NODE = "remote-node"


@dataclass(frozen=True, slots=True)
class ServiceReference:
    """Services that a policy names: what is behind them is its peer.

    `name` None: those whose labels `selector` matches. `namespace` empty: of any namespace.
    """

    namespace: str = ""
    name: str | None = None
    selector: Selector = Selector()
    addresses_only: bool = False
    """The addresses of its endpoints, whoever has them: of the API server."""


API_SERVER = ServiceReference("default", "kubernetes", addresses_only=True)
"""What Cilium calls kube-apiserver."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One item of `from` or `to`. None = field absent, an empty Selector = all (types.go).

    Without any field it is nobody.
    """

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IPBlock | None = None
    node: NodePeer | None = None
    service: ServiceReference | None = None
    """Only until `references.resolved` has put what is behind it in its place."""


NOBODY = Peer()


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """One item of `ports`.

    `port` None = every port of the protocol, str = named port of the destination pod. Of the
    protocols ICMP and ICMPv6 it is the type of the message.
    """

    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class BlockList:
    """The blocks that one rule names. Equal lists are equal by name, which is made once: there may
    be thousands of blocks.
    """

    __slots__ = ("blocks", "name", "outside", "prefixes")

    def __init__(self, blocks: Iterable[IPBlock]) -> None:
        self.blocks = tuple(sorted(set(blocks), key=_spelled))
        self.prefixes = frozenset(p for b in self.blocks for p in (b.cidr, *b.excepts))
        """All that they are cut into."""
        self.outside = any(b.outside for b in self.blocks)
        """Whether they hold no address of a pod or a node."""
        text = "\n".join(map(_spelled, self.blocks))
        self.name = hashlib.sha256(text.encode()).hexdigest()[:32]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockList) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"BlockList({self.name})"


def _spelled(block: IPBlock) -> str:
    return " ".join((block.cidr, *block.excepts, *(("outside",) if block.outside else ())))


@dataclass(frozen=True)
class Rule:
    """Peers OR-ed, ports OR-ed, both AND-ed; an empty tuple means any (nil and [] alike).

    `deny`: what it matches is dropped, whatever other rules allow. `name`: `ingressDeny[0]`, where
    its place in the policy's list does not say it.
    """

    peers: tuple[Peer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()
    deny: bool = False
    name: str = ""
    http: tuple[HttpRule, ...] = ()
    """What it lets pass are requests that one of these matches; without any: all packets."""

    @cached_property
    def block_lists(self) -> tuple[BlockList, ...]:
        """The blocks among its peers: any address, and such as are nobody's in the cluster."""
        found = [peer.ip_block for peer in self.peers if peer.ip_block is not None]
        parts = ([b for b in found if not b.outside], [b for b in found if b.outside])
        return tuple(BlockList(part) for part in parts if part)

    @cached_property
    def selecting(self) -> tuple[Peer, ...]:
        """The peers that are not blocks."""
        return tuple(peer for peer in self.peers if peer.ip_block is None)


_PREFIXES = {"CiliumNetworkPolicy": "cnp:", "CiliumClusterwideNetworkPolicy": "ccnp:"}


class PolicyKind(StrEnum):
    """Which object a policy was written as."""

    NETWORK_POLICY = "NetworkPolicy"
    CILIUM = "CiliumNetworkPolicy"
    CILIUM_CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"

    @property
    def prefix(self) -> str:
        """What stands before the object's name in keys and rules: one name may be used by all."""
        return _PREFIXES.get(self.value, "")


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """networking.k8s.io/v1 NetworkPolicy with defaults applied (policyTypes, protocol).

    A CiliumNetworkPolicy is one or several of these: one for `spec`, and for each of `specs`.
    `directions` are those that it closes; rules of others count without closing them.
    """

    namespace: str
    name: str
    pod_selector: Selector = Selector()
    directions: frozenset[Direction] = frozenset({Direction.INGRESS})
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels: Labels = field(default_factory=dict, hash=False)
    annotations: Labels = field(default_factory=dict, hash=False)
    uid: str = ""
    kind: PolicyKind = PolicyKind.NETWORK_POLICY
    part: str = ""
    """`specs[1]`, where it is not `spec`."""
    log: str = ""
    """What flows that its rules decide are marked with."""
    namespace_selector: Selector | None = None
    """Of its subjects' namespaces, within its own where it has one; None: that one."""
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def object_key(self) -> str:
        """Of the object: `namespace/name`, `namespace/cnp:name` or `ccnp:name`."""
        name = self.name if self.kind is PolicyKind.NETWORK_POLICY else self.kind.prefix + self.name
        return f"{self.namespace}/{name}" if self.namespace else name

    @property
    def key(self) -> str:
        """`namespace/name`, as users write it; `#specs[1]` behind it where it is a part."""
        return f"{self.object_key}#{self.part}" if self.part else self.object_key

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rule list of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def rule_name(self, direction: Direction, index: int) -> str:
        """`namespace/policy#ingress[0]`, as verdicts name rules."""
        name = self.rules(direction)[index].name or f"{direction.lower()}[{index}]"
        return f"{self.key}{'.' if self.part else '#'}{name}"

    def opening(self, direction: Direction) -> str:
        """The rule that lets in whom deny rules spare, where nothing closes the direction."""
        return f"{self.key}{'.' if self.part else '#'}enableDefaultDeny.{direction.lower()}"

    def speaks(self, direction: Direction) -> bool:
        """Whether it has a say on its subjects in a direction."""
        return direction in self.directions or bool(self.rules(direction))


def policy_of(rule: str) -> tuple[str, str]:
    """The key of the policy that a rule's name is of, and the rule's name in it."""
    key, _, place = rule.partition("#")
    if place.startswith("specs["):
        part, _, place = place.partition(".")
        key = f"{key}#{part}"
    return key, place


def namespace_of(policy_key: str) -> str:
    """The namespace in a policy's key; empty for one of the whole cluster."""
    return policy_key.partition("#")[0].rpartition("/")[0]


def object_of(policy_key: str) -> tuple[PolicyKind, str, str]:
    """The object that a policy's key is of: kind, namespace and name."""
    namespace, _, rest = policy_key.partition("#")[0].rpartition("/")
    for kind in PolicyKind:
        if kind.prefix and rest.startswith(kind.prefix):
            return kind, namespace, rest.removeprefix(kind.prefix)
    return PolicyKind.NETWORK_POLICY, namespace, rest


@dataclass(frozen=True, slots=True)
class CiliumPolicy:
    """A CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy, as the policies that it means."""

    namespace: str
    name: str
    kind: PolicyKind
    parts: tuple[NetworkPolicy, ...] = ()
    document: Mapping[str, object] = field(default_factory=dict, hash=False, repr=False)
    """As it was written."""
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def key(self) -> str:
        """`namespace/cnp:name` or `ccnp:name`."""
        return NetworkPolicy(self.namespace, self.name, kind=self.kind).object_key


@dataclass(frozen=True, slots=True)
class Node:
    """A node's own addresses: the source of its kubelet, and of masked traffic."""

    name: str
    ips: tuple[str, ...] = ()
    """As its status lists."""
    pod_cidrs: tuple[str, ...] = ()
    interface_ips: tuple[str, ...] = ()
    """Addresses of its interfaces, such as a bridge: the node to its own pods, unknown to
    others."""
    origin: Origin = field(default=Origin(), compare=False)


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap's text data: what the record is kept in."""

    namespace: str
    name: str
    data: Labels = field(default_factory=dict, hash=False)
    labels: Labels = field(default_factory=dict, hash=False)
    origin: Origin = field(default=Origin(), compare=False)


class ServiceKind(StrEnum):
    """What a Service's name leads to; only the first kind has an address of its own."""

    CLUSTER_IP = "ClusterIP"
    HEADLESS = "None"
    EXTERNAL_NAME = "ExternalName"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service, and the number or port name that it means on a backend."""

    port: int
    protocol: str = "TCP"
    name: str = ""
    target: int | str = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A Service; NodePort and LoadBalancer have a ClusterIP too. `selector` empty = none."""

    namespace: str
    name: str
    kind: ServiceKind = ServiceKind.CLUSTER_IP
    cluster_ips: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    selector: Labels = field(default_factory=dict, hash=False)
    labels: Labels = field(default_factory=dict, hash=False)
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def key(self) -> str:
        """`namespace/name`, as users write it."""
        return f"{self.namespace}/{self.name}"


class Readiness(StrEnum):
    """Whether a backend gets connections: DRAINING only where no other is READY."""

    READY = "ready"
    DRAINING = "terminating and still serving"
    NOT_READY = "not ready"


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One item of `endpoints`: a backend's addresses."""

    addresses: tuple[str, ...]
    readiness: Readiness = Readiness.READY


@dataclass(frozen=True, slots=True)
class SlicePort:
    """One item of a slice's `ports`, already a number on the backends."""

    port: int
    protocol: str = "TCP"
    name: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """discovery.k8s.io/v1 EndpointSlice: some backends of the Service `service`."""

    namespace: str
    name: str
    service: str
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()
    origin: Origin = field(default=Origin(), compare=False)
