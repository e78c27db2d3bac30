"""Policies to map entries: what the maps of one node should hold. Pure but for the registry.

The agent calls `compile_tables` after every change of its inputs. What may surprise: a policy
group is named by its content, so a changed policy always is a new group beside the old one, to
which endpoints are switched by one write each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from enforcer.blocks import BlockIndex, within
from enforcer.endpoints import is_local
from enforcer.groups import DIRECTIONS, Group, Isolation, World, policy_group
from enforcer.identity import (
    Classifier,
    PeerSelector,
    PodClass,
    Registry,
    Vocabulary,
    named_port,
    tenant_ids,
)
from enforcer.tables import (
    FIRST_POD_IDENTITY,
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    SERVICE_BACKENDS,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    CidrFlag,
    Dir,
    EndpointEntry,
    EndpointFlag,
    PolicyKey,
    RangeKey,
    Tables,
)
from enforcer.walls import Tenancy, wall_of
from generators.addresses import parse_network
from generators.cluster import Cluster, address_owners
from generators.isolation import is_ours
from generators.objects import Direction, NetworkPolicy, Pod
from generators.selectors import matches
from generators.services import Backend, ServiceKey, service_map

KEEP_ANNOTATION = "ringfence.io/keep-established"
"""`"true"` on a namespace or on policies: open connections outlive changes of policies."""
KEPT = {
    Dir.INGRESS: EndpointFlag.KEEP_INGRESS,
    Dir.EGRESS: EndpointFlag.KEEP_EGRESS,
}
ISOLATED = {
    Dir.INGRESS: EndpointFlag.ISOLATED_INGRESS,
    Dir.EGRESS: EndpointFlag.ISOLATED_EGRESS,
}


def compile_tables(
    cluster: Cluster,
    node: str,
    interfaces: Mapping[str, int],
    registry: Registry,
    previous: Tables | None = None,
    grace: frozenset[int] = frozenset(),
) -> Tables:
    """The maps of `node`. `interfaces`: `namespace/pod` -> ifindex of its host-side veth.

    `previous` is what is in force: endpoints whose policy differs from it get a new generation,
    which makes the kernel judge their open connections again. `grace`: interfaces whose pods
    were running before we were, so their open connections are adopted for a while.
    """
    before = previous or Tables()
    return _Compilation(cluster, node, interfaces, registry, grace).tables(before)


class _Compilation:
    """One run of the compiler; each method makes one map."""

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        interfaces: Mapping[str, int],
        registry: Registry,
        grace: frozenset[int],
    ) -> None:
        self.cluster, self.node, self.interfaces = cluster, node, interfaces
        self.registry = registry
        self.grace = grace
        self.tenancy = Tenancy.of(cluster)
        self.tenant_ids = tenant_ids([*self.tenancy.tenants.values(), *self.tenancy.config.tenants])
        local = (p for p in cluster.pods if is_local(p, node) and p.key in interfaces)
        self.local = sorted(local, key=lambda p: p.key)
        self.isolation = _isolation(self.local, cluster.policies)
        self.words = _vocabulary(self.isolation.values())
        self.owners = address_owners(cluster.pods)
        self.classes = self._classes()
        identities = registry.identities
        self.world = World(
            {pods: identities.of(pods) for pods in self.classes.values()},
            {prefix: registry.cidrs.of(prefix) for prefix in self._prefixes()},
            BlockIndex(self.words.blocks),
        )
        self.groups: dict[Group, int] = {}
        self._built: dict[object, Group] = {}

    def tables(self, previous: Tables) -> Tables:
        """All maps, endpoints stamped with their generation."""
        addresses, cidrs = self._addresses(), self._cidrs()
        lost = _changed(previous.addresses, addresses) or _changed(previous.cidrs, cidrs)
        endpoints = {
            ifindex: _stamped(entry, previous.endpoints.get(ifindex), lost=lost)
            for ifindex, entry in self._endpoints().items()
        }
        self.registry.forget_all_but(self.classes.values(), self.groups, self.world.prefixes)
        groups = self.groups.items()
        return Tables(
            endpoints=endpoints,
            addresses=addresses,
            policy={
                PolicyKey(group, peer, port, protocol, direction): rule
                for content, group in groups
                for peer, port, protocol, direction, rule in sorted(content.policy)
            },
            ranges={
                RangeKey(group, peer, protocol, direction, port, length): rule
                for content, group in groups
                for peer, port, length, protocol, direction, rule in sorted(content.ranges)
            },
            cidrs=cidrs,
            services=self._services(addresses),
            rules={number: str(name) for name, number in self.registry.rules.known.items()},
            isolating={
                (group, direction): policies
                for content, group in groups
                for direction, policies in content.isolating
            },
            walls={group: content.wall for content, group in groups if content.wall},
            tenants={number: name for name, number in self.tenant_ids.items()},
        )

    def _classes(self) -> Mapping[str, PodClass]:
        """The class of each address, in the order of pod names: so are their numbers."""
        tenancy = self.tenancy
        classifier = Classifier(
            self.words, tenancy.namespaces, tenancy.tenants, tenancy.quarantined, tenancy.shared
        )
        ordered = sorted(self.owners.items(), key=lambda item: (item[1].key, item[0]))
        return {address: classifier.classify(pod, address) for address, pod in ordered}

    def _prefixes(self) -> Iterable[str]:
        blocks = self.words.blocks
        prefixes = {b.cidr for b in blocks} | {e for b in blocks for e in b.excepts}
        return sorted(prefixes | set(self.cluster.pod_cidrs))

    def _addresses(self) -> Mapping[str, AddressEntry]:
        entries = {
            address: AddressEntry(
                self.world.classes[pods],
                self.tenant_ids.get(pods.tenant, 0),
                AddressFlag.QUARANTINE if pods.quarantine else AddressFlag(0),
            )
            for address, pods in self.classes.items()
        }
        for node in sorted(self.cluster.nodes, key=lambda n: n.name == self.node):
            identity = IDENTITY_HOST if node.name == self.node else IDENTITY_REMOTE_NODE
            entries |= dict.fromkeys(node.ips, AddressEntry(identity))
        return entries

    def _cidrs(self) -> Mapping[str, CidrEntry]:
        inside = {
            prefix
            for prefix in self.world.prefixes
            if any(within(parse_network(prefix), c) for c in self.cluster.pod_cidrs)
        }
        return {
            prefix: CidrEntry(cidr, CidrFlag.IN_CLUSTER if prefix in inside else CidrFlag(0))
            for prefix, cidr in self.world.prefixes.items()
        }

    def _services(
        self, addresses: Mapping[str, AddressEntry]
    ) -> Mapping[ServiceKey, tuple[Backend, ...]]:
        """What a call meets. An address that somebody has is not a Service's."""
        cluster = self.cluster
        called = service_map(cluster.services, cluster.slices, cluster.pods)
        return {
            key: _kinds(backends, addresses)
            for key, backends in called.items()
            if key.address not in addresses
        }

    def _endpoints(self) -> Mapping[int, EndpointEntry]:
        return {self.interfaces[pod.key]: self._endpoint(pod) for pod in self.local}

    def _endpoint(self, pod: Pod) -> EndpointEntry:
        ifindex = self.interfaces[pod.key]
        policy, flags = self._policy(pod)
        wall = wall_of(
            pod.namespace,
            self.tenancy,
            self.world.classes,
            self.tenant_ids,
            self.registry.rules.of,
        )
        wall_group = 0
        if wall is not None:
            flags |= wall.flags
            wall_group = self._number(wall.group)
            if wall.group.ranges:
                flags |= EndpointFlag.USES_RANGE
        flags |= self._kept(pod)
        if ifindex in self.grace:
            flags |= EndpointFlag.GRACE
        ip4 = tuple(a for a in pod.ips if ":" not in a)
        ip6 = tuple(a for a in pod.ips if ":" in a)
        return EndpointEntry(
            endpoint=self.registry.endpoints.of((ifindex, ip4, ip6)),
            group=policy,
            wall=wall_group,
            tenant=self.tenant_ids.get(self.tenancy.tenants.get(pod.namespace, ""), 0),
            generation=1,
            flags=flags,
            ip4=ip4,
            ip6=ip6,
        )

    def _policy(self, pod: Pod) -> tuple[int, EndpointFlag]:
        """The number of the pod's policy group (0 where it is not isolated) and what it needs."""
        isolation = self.isolation[pod.key]
        key = (
            tuple(p.key for p in isolation.ingress),
            tuple(p.key for p in isolation.egress),
            tuple(_port_numbers(isolation, pod)),
        )
        group = self._built.get(key)
        if group is None:
            group = policy_group(isolation, pod, self.world, self.registry.rules.of)
            self._built[key] = group
        flags = EndpointFlag.READY
        for direction, _ in group.isolating:
            flags |= ISOLATED[direction]
        if group.uses_cidr:
            flags |= EndpointFlag.USES_CIDR
        if group.ranges:
            flags |= EndpointFlag.USES_RANGE
        return (self._number(group) if group.isolating else 0), flags

    def _kept(self, pod: Pod) -> EndpointFlag:
        """In which directions the pod keeps open connections: its namespace, or all policies of
        users that isolate it, say so."""
        flags = EndpointFlag(0)
        everything = _wants_to_keep(self.cluster.namespaces[pod.namespace].annotations)
        for direction in Direction:
            isolating = self.isolation[pod.key].of(direction)
            users = [p for p in isolating if not is_ours(p.labels)]
            if everything or (users and all(_wants_to_keep(p.annotations) for p in users)):
                flags |= KEPT[DIRECTIONS[direction]]
        return flags

    def _number(self, group: Group) -> int:
        number = self.groups[group] = self.registry.groups.of(group)
        return number


def _isolation(pods: Iterable[Pod], policies: Iterable[NetworkPolicy]) -> Mapping[str, Isolation]:
    by_namespace: dict[str, list[NetworkPolicy]] = {}
    for policy in sorted(policies, key=lambda p: p.key):
        by_namespace.setdefault(policy.namespace, []).append(policy)
    found: dict[str, Isolation] = {}
    for pod in pods:
        near = by_namespace.get(pod.namespace, ())
        own = [p for p in near if matches(p.pod_selector, pod.labels)]
        found[pod.key] = Isolation(
            tuple(p for p in own if Direction.INGRESS in p.directions),
            tuple(p for p in own if Direction.EGRESS in p.directions),
        )
    return found


def _kinds(
    backends: Iterable[Backend], addresses: Mapping[str, AddressEntry]
) -> tuple[Backend, ...]:
    """One backend for each way in which policies can see them; none where these are too many."""
    found: dict[tuple[AddressEntry | str, int], Backend] = {}
    for backend in backends:
        entry = addresses.get(backend.address)
        pod = entry is not None and entry.identity >= FIRST_POD_IDENTITY
        # Blocks of addresses tell apart what no identity does: nodes, and whoever is outside.
        found.setdefault((entry if entry and pod else backend.address, backend.port), backend)
    return tuple(found.values()) if len(found) <= SERVICE_BACKENDS else ()


def _vocabulary(isolations: Iterable[Isolation]) -> Vocabulary:
    rules = [r for isolation in set(isolations) for r in isolation.rules]
    peers = [(policy.namespace, peer) for _, policy, rule in rules for peer in rule.peers]
    return Vocabulary(
        selectors=frozenset(
            PeerSelector.of(peer, namespace) for namespace, peer in peers if peer.ip_block is None
        ),
        blocks=frozenset(peer.ip_block for _, peer in peers if peer.ip_block is not None),
        port_names=frozenset(
            (port.port, port.protocol)
            for direction, _, rule in rules
            if direction is Direction.EGRESS
            for port in rule.ports
            if isinstance(port.port, str)
        ),
    )


def _port_numbers(isolation: Isolation, pod: Pod) -> Iterable[int | None]:
    """What the port names of ingress rules mean on this pod."""
    for direction, _, rule in isolation.rules:
        if direction is Direction.INGRESS:
            for port in rule.ports:
                if isinstance(port.port, str):
                    yield named_port(pod, port.port, port.protocol)


def _wants_to_keep(annotations: Mapping[str, str]) -> bool:
    return annotations.get(KEEP_ANNOTATION) == "true"


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Whether an entry is gone or means something else; new entries do not count."""
    return any(after.get(key) != value for key, value in before.items())


def _stamped(entry: EndpointEntry, before: EndpointEntry | None, *, lost: bool) -> EndpointEntry:
    """With the generation that it had while nothing changed for it, else with the next one."""
    if before is None or before.endpoint != entry.endpoint:
        return entry
    same = replace(entry, generation=before.generation)
    if same == before and not lost:
        return before
    return replace(entry, generation=before.generation + 1)
