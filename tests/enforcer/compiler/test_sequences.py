"""Whatever happened before, the tables mean what compiling from nothing makes of the inputs.

Random sequences of changes run through one compiler and, write by write, into a stand-in for the
kernel's maps. After each change the maps are compared with a fresh compilation, and while it is
written no flow that is open before and after is ever closed, nor the other way round. What may
surprise: to policies that tell pods from who is outside, an address that becomes a pod's, or is
none any more, may be closed for that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.compiler.compile import Compiler, compile_tables
from enforcer.datapath.engine import answer
from enforcer.policy.changes import Inputs, is_local
from enforcer.policy.identity import Registry
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    PEER_CIDR,
    PEER_TENANT,
    RULE_DENY,
    RULE_NUMBER,
    Dir,
    EndpointEntry,
    EndpointFlag,
    MapWrite,
    PolicyKey,
    Table,
    Tables,
    cidr_of,
    place_of,
)
from generators.cluster import Cluster
from generators.objects import (
    EndpointSlice,
    NetworkPolicy,
    Node,
    Pod,
    Service,
    SliceEndpoint,
    SlicePort,
)
from generators.reachability.classes import evaluate
from generators.reachability.verdicts import Judgement, Verdict
from generators.tenants.model import TenantConfig
from tests.enforcer.clusters import (
    EXTERNALS,
    LABEL_KEY,
    NAMESPACES,
    NODE_ADDRESSES,
    POD_CIDRS,
    clusters,
    configs,
    label_sets,
    placed,
    pods,
    policies,
    questions,
    services,
)

NODE = "here"
KEYS = tuple(f"{namespace}/{name}" for namespace in NAMESPACES for name in "xyz")
INTERFACES = {key: ifindex for ifindex, key in enumerate(KEYS, start=2)}
NODES = tuple(Node(name, ips) for name, ips in NODE_ADDRESSES.items())


@dataclass(frozen=True)
class Restart:
    """A new agent that finds the maps of the old one, and perhaps its file of numbers."""

    file: bool = False


@dataclass(frozen=True)
class Labels:
    """Namespaces and pods get these labels."""

    of: str
    labels: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Claim:
    """A namespace's tenant label, and what the record says."""

    namespace: str
    label: str | None
    tenant: str | None


@dataclass(frozen=True)
class Terminating:
    """A namespace is being deleted, or was made anew."""

    namespace: str
    terminating: bool


@dataclass(frozen=True)
class Gone:
    """A pod or a policy is deleted."""

    key: str


Event = (
    Restart
    | Labels
    | Claim
    | Terminating
    | Gone
    | Pod
    | NetworkPolicy
    | Service
    | EndpointSlice
    | TenantConfig
    | None
)

local_pods = pods.map(lambda p: placed(replace(p, node=p.node or NODE)))
policy_keys = st.builds(
    "{}/{}".format, st.sampled_from(NAMESPACES), st.sampled_from(("p1", "p2", "p3"))
)
slices = st.builds(
    EndpointSlice,
    namespace=st.sampled_from(NAMESPACES),
    name=st.just(""),
    service=st.sampled_from(("s1", "s2")),
    endpoints=st.lists(
        st.builds(SliceEndpoint, st.sampled_from((("10.0.0.1",), ("10.0.0.2",), ("192.0.2.1",)))),
        max_size=2,
    ).map(tuple),
    ports=st.just((SlicePort(80), SlicePort(81, "UDP"))),
).map(lambda found: replace(found, name=found.service))
tenants = st.sampled_from((None, "t1", "t2", "gone"))
events = st.one_of(
    local_pods,
    local_pods,
    policies,
    policies,
    st.builds(Labels, st.sampled_from((*KEYS, *NAMESPACES)), label_sets),
    st.builds(Claim, st.sampled_from(NAMESPACES), st.sampled_from((None, "t1", "t2")), tenants),
    st.builds(Terminating, st.sampled_from(NAMESPACES), st.booleans()),
    st.builds(Gone, st.sampled_from(KEYS)),
    st.builds(Gone, policy_keys),
    services,
    slices,
    st.builds(Gone, st.sampled_from(("n1/s1", "n1/s2", "n2/s1", "n2/s2"))),
    configs(),
    st.builds(Restart, st.booleans()),
    st.none(),
)
"""None takes the tenant file away."""
steps = st.lists(st.lists(events, min_size=1, max_size=3), min_size=2, max_size=6)


class World:
    """The inputs as an API server would hold them; a list of events is one step."""

    def __init__(self, cluster: Cluster) -> None:
        self.namespaces = dict(cluster.namespaces)
        self.pods = {p.key: placed(replace(p, node=p.node or NODE)) for p in cluster.pods}
        self.policies = {policy.key: policy for policy in cluster.policies}
        self.config = cluster.config
        self.tenants = dict(cluster.tenants)
        self.services = {service.key: service for service in cluster.services}
        self.slices: dict[str, EndpointSlice] = {}

    def happen(self, event: Event) -> None:
        match event:
            case Pod():
                self.pods[event.key] = event
            case NetworkPolicy():
                self.policies[event.key] = event
            case Service():
                virtual = {a for s in self.services.values() for a in s.cluster_ips}
                old = self.services.get(event.key)
                taken = virtual - set(old.cluster_ips if old is not None else ())
                if taken.isdisjoint(event.cluster_ips):
                    self.services[event.key] = event
            case EndpointSlice():
                self.slices[f"{event.namespace}/{event.name}"] = event
            case TenantConfig() | None:
                self.config = event
            case Gone(key):
                self.pods.pop(key, None)
                self.policies.pop(key, None)
                self.services.pop(key, None)
                self.slices.pop(key, None)
            case Labels(of, labels) if of in self.pods:
                self.pods[of] = replace(self.pods[of], labels=labels)
            case Labels(of, labels) if of in self.namespaces:
                kept = {k: v for k, v in self.namespaces[of].labels.items() if "k" in k or "c" in k}
                self._relabel(of, {**kept, **labels})
            case Claim(name, label, tenant):
                kept = {k: v for k, v in self.namespaces[name].labels.items() if k != LABEL_KEY}
                self._relabel(name, {**kept, **({LABEL_KEY: label} if label else {})})
                self.tenants.pop(name, None)
                if tenant is not None:
                    self.tenants[name] = tenant
            case Terminating(name, terminating):
                self.namespaces[name] = replace(self.namespaces[name], terminating=terminating)

    def _relabel(self, name: str, labels: Mapping[str, str]) -> None:
        self.namespaces[name] = replace(self.namespaces[name], labels=labels)

    def inputs(self) -> Inputs:
        cluster = Cluster(
            namespaces=dict(self.namespaces),
            pods=tuple(self.pods.values()),
            policies=tuple(self.policies.values()),
            nodes=NODES,
            services=tuple(self.services.values()),
            slices=tuple(self.slices.values()),
            config=self.config,
            tenants=dict(self.tenants) if self.config else {},
            pod_cidrs=POD_CIDRS,
        )
        local = {p.key: INTERFACES[p.key] for p in cluster.pods if is_local(p, NODE)}
        return Inputs(cluster, local)

    def keeping_policies_of_the_dying(self, before: Inputs) -> Inputs:
        """The inputs as they count: policies outlive their deletion while a namespace dies."""
        now = self.inputs()
        inhabited = {key.partition("/")[0] for key in now.interfaces}
        kept = [
            policy
            for policy in before.cluster.policies
            if policy.key not in self.policies
            and self.namespaces[policy.namespace].terminating
            and policy.namespace in inhabited
        ]
        return replace(now, cluster=replace(now.cluster, policies=(*now.cluster.policies, *kept)))


def written(tables: Tables, change: MapWrite) -> Tables:
    """The maps after one write."""
    name = {
        Table.POLICY: "policy",
        Table.RANGES: "ranges",
        Table.CIDRS: "cidrs",
        Table.SERVICES: "services",
        Table.ADDRESSES: "addresses",
        Table.ENDPOINTS: "endpoints",
    }[change.table]
    entries = dict(getattr(tables, name))
    if change.value is None:
        del entries[change.key]
    else:
        entries[change.key] = change.value
    return replace(tables, **{name: entries})


def meaning(tables: Tables) -> object:
    """The tables without their numbers, generations and endpoint ids."""
    peers: dict[int, object] = {}
    blocks: dict[int, list[str]] = {}
    for block, named in tables.cidrs.items():
        blocks.setdefault(named.cidr, []).append(block.prefix)
    for address, entry in sorted(tables.addresses.items()):
        if entry.identity >= FIRST_POD_IDENTITY:
            known = peers.setdefault(entry.identity, frozenset())
            assert isinstance(known, frozenset)
            peers[entry.identity] = known | {address}
    contents: dict[int, set[object]] = {}

    def says(rule: int) -> object:
        return rule & ~RULE_NUMBER, tables.rules.get(rule & RULE_NUMBER)

    def means(peer: int) -> Iterable[object]:
        if peer >= PEER_CIDR:
            return [(place_of(peer), prefix) for prefix in blocks[cidr_of(peer)]]
        return [peers[peer] if FIRST_POD_IDENTITY <= peer < PEER_TENANT else peer]

    for key, rule in tables.policy.items():
        for peer in means(key.peer):
            entry_of = (peer, key.port, key.protocol, key.direction, says(rule))
            contents.setdefault(key.group, set()).add(entry_of)
    for item, rule in tables.ranges.items():
        for peer in means(item.peer):
            ports = (item.port, item.length, item.protocol, item.direction)
            contents.setdefault(item.group, set()).add((peer, *ports, says(rule)))

    def group(number: int) -> object:
        isolating = [(d, tables.isolating.get((number, d))) for d in Dir]
        return frozenset(contents.get(number, ())), tuple(isolating), tables.walls.get(number)

    return (
        {
            ifindex: (group(e.group), group(e.wall), e.tenant, e.flags, e.ip4, e.ip6)
            for ifindex, e in tables.endpoints.items()
        },
        {
            a: (peers.get(e.identity, e.identity), e.tenant, e.flags)
            for a, e in tables.addresses.items()
        },
        tables.services,
        {key: entry.flags for key, entry in tables.cidrs.items()},
        sum(map(len, contents.values())),
    )


def packets(endpoint: EndpointEntry, peers: Iterable[str]) -> Iterator[EndpointPacket]:
    for own in (*endpoint.ip4, *endpoint.ip6):
        for peer in peers:
            if (":" in peer) == (":" in own) and peer != own:
                for direction in Dir:
                    for protocol, port in ((6, 80), (17, 81)):
                        yield EndpointPacket(direction, own, peer, protocol, port)


def is_open(tables: Tables, ifindex: int, packet: EndpointPacket) -> bool:
    return judge(tables, ifindex, packet).verdict is not Verdict.DROPPED


def settled_flows(before: Tables, after: Tables) -> list[tuple[int, EndpointPacket, bool]]:
    """What endpoints that are there before and after answer both times: (packet, open)."""
    called = {key.address for key in (*before.services, *after.services)}
    peers = sorted({*before.addresses, *after.addresses, *called, *EXTERNALS})
    found = []
    for ifindex, endpoint in after.endpoints.items():
        old = before.endpoints.get(ifindex)
        if old is None or old.endpoint != endpoint.endpoint:
            continue
        for packet in packets(endpoint, peers):
            first = is_open(before, ifindex, packet)
            if first == is_open(after, ifindex, packet):
                found.append((ifindex, packet, first))
    return found


def named(tables: Tables, *others: Tables) -> Tables:
    """With the names of all, so that every moment can be read."""
    for other in others:
        tables = replace(
            tables,
            rules={**tables.rules, **other.rules, 0: ""},
            isolating={**tables.isolating, **other.isolating},
            walls={**tables.walls, **other.walls},
            rule_sets={**tables.rule_sets, **other.rule_sets},
        )
    return tables


def rewritten_denials(maps: Tables, writes: Iterable[MapWrite]) -> Iterator[MapWrite]:
    """Entries that deny and get another rule while endpoints are judged by them.

    Whoever looks an entry up while it is written anew may not find it, and finds what is broader.
    """
    judging = {endpoint.group for endpoint in maps.endpoints.values()}
    for change in writes:
        if change.table is Table.POLICY and isinstance(change.key, PolicyKey):
            rule = maps.policy.get(change.key, 0)
            if rule & RULE_DENY and change.value is not None and change.key.group in judging:
                yield change


class Enforcement:
    """A compiler and the maps that it writes."""

    def __init__(self) -> None:
        self.maps = Tables()
        self.registry = Registry()
        self.compiler = Compiler(NODE, self.registry)

    def restart(self, *, file: bool) -> None:
        names, old = self.compiler.names(), self.registry
        self.registry = Registry.following(self.maps)
        if file:
            rules = {str(name): number for name, number in old.rules.known.items()}
            self.registry.identities.promise(names["identities"], old.identities.next)
            self.registry.groups.promise(names["groups"], old.groups.next)
            self.registry.rules.promise(rules, old.rules.next)
        self.compiler = Compiler(NODE, self.registry)

    def write(self, *, fresh: bool) -> None:
        if fresh:
            self.compiler.resync(self.maps)
        writes = self.compiler.plan()
        assert not list(rewritten_denials(self.maps, writes))
        desired = self.compiler.tables()
        moment = named(self.maps, desired)
        after = moment
        for change in writes:
            after = written(after, change)
        flows = settled_flows(moment, after)
        becoming = moment.addresses.keys() ^ desired.addresses.keys()
        telling = {
            ifindex
            for tables in (moment, desired)
            for ifindex, endpoint in tables.endpoints.items()
            if EndpointFlag.USES_PLACES in endpoint.flags
        }
        for change, following in zip_longest(writes, writes[1:]):
            moment = written(moment, change)
            same = following is not None and following.table is change.table
            if same and change.table in (Table.POLICY, Table.RANGES):
                continue
            for ifindex, packet, expected in flows:
                found = is_open(moment, ifindex, packet)
                closed = expected and packet.peer in becoming and ifindex in telling
                assert found == expected or closed, (change, packet)
        self.compiler.commit()
        if fresh:
            self.registry.cidrs.settle()
        for name in ("endpoints", "addresses", "policy", "ranges", "cidrs", "services"):
            assert getattr(moment, name) == getattr(desired, name), name
        self.maps = desired


@pytest.mark.timeout(600)
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(clusters(), steps)
def test_every_history_means_what_a_fresh_compilation_means(
    cluster: Cluster, history: list[list[Event]]
) -> None:
    world, node = World(cluster), Enforcement()
    counts = world.inputs()
    for happened in ([], *history):
        restarted = any(isinstance(event, Restart) for event in happened)
        for event in happened:
            world.happen(event)
        before = replace(counts, cluster=Cluster()) if restarted else counts
        counts = world.keeping_policies_of_the_dying(before)
        if restarted:
            node.restart(file=Restart(file=True) in happened)
        node.compiler.become(world.inputs())
        node.write(fresh=restarted)
        fresh = compile_tables(counts.cluster, NODE, counts.interfaces)
        assert meaning(node.maps) == meaning(fresh)
    _agrees_with_the_evaluator(counts, node.maps)


def _agrees_with_the_evaluator(inputs: Inputs, maps: Tables) -> None:
    own = {a: i for i, e in maps.endpoints.items() for a in (*e.ip4, *e.ip6)}

    def ours(tables: Tables, ifindex: int, packet: EndpointPacket) -> Judgement:
        local = own.get(packet.own)
        owner = maps.addresses.get(packet.own)
        if local is None or owner is None or is_shadowed(inputs, packet.own, local):
            return judge(tables, ifindex, packet)
        return judge(maps, local, packet)

    asked = questions(inputs.cluster, (80, 81))
    assert answer(inputs.cluster, asked, ours) == tuple(evaluate(inputs.cluster, asked))


def is_shadowed(inputs: Inputs, address: str, ifindex: int) -> bool:
    """Whether another pod claims the address too: then the engines ask the owner's node."""
    claims = [p.key for p in inputs.cluster.pods if address in p.ips and not p.terminal]
    return len(claims) > 1 or inputs.interfaces.get(claims[0]) != ifindex
