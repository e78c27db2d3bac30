"""Hypothesis strategies for clusters that collide: few labels, few ports, overlapping blocks.

Names are short so that a shrunken example reads well. `questions` asks about every pair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from generators.addresses import Family
from generators.cluster import Cluster
from generators.http import HttpRule
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from generators.objects import (
    API_SERVER,
    NAME_LABEL,
    NOBODY,
    SERVICE_ACCOUNT,
    ContainerPort,
    Direction,
    EndpointSlice,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Node,
    NodePeer,
    Operator,
    Peer,
    Pod,
    PolicyKind,
    PolicyPort,
    Requirement,
    Rule,
    Selector,
    Service,
    ServicePort,
    ServiceReference,
    SliceEndpoint,
)
from generators.reachability.packets import EXTERNAL_PREFIX, Question, is_hairpin
from generators.reachability.protocols import NO_PORT
from generators.reachability.reference import Evaluator
from generators.reachability.services import SERVICE_PREFIX
from generators.tenants.model import Grant, Mode, Port, SharedComponent, Tenant, TenantConfig

LABEL_KEY = "client"
NAMESPACES = ("n1", "n2", "n3")
NODES = ("", "here", "there")
POD_CIDRS = ("10.0.0.0/24", "fd00::/64")
NODE_ADDRESSES = {"here": ("10.9.0.1", "fd09::1"), "there": ("10.9.0.2", "fd09::2")}
INTERFACE_ADDRESSES = {"here": ("10.0.0.250", "fd00::fa"), "there": ("10.0.0.250", "10.9.0.1")}
"""One is on both nodes, as that of a bridge may be; one is the other node's own."""
EXTERNALS = (
    "10.0.0.200",
    "10.0.0.250",
    "10.9.0.1",
    "10.9.0.2",
    "192.0.2.1",
    "fd00::200",
    "2001:db8::1",
    "fd09::2",
)
PROTOCOLS = ("TCP", "UDP", "SCTP")
PORTLESS = ("ICMP", "IP/47")
PORTS = (79, 80, 81, 82, 8080)
BLOCKS = (
    IPBlock("0.0.0.0/0"),
    IPBlock("0.0.0.0/0", ("10.0.0.0/24",)),
    IPBlock("10.0.0.0/8", ("10.0.0.0/30", "10.9.0.1/32")),
    IPBlock("10.0.0.0/30"),
    IPBlock("10.0.0.2/32"),
    IPBlock("192.0.2.0/24"),
    IPBlock("::/0", ("fd00::/64",)),
    IPBlock("fd00::/16", ("fd00::2/128",)),
)

label_sets = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("a", "b")))
protocols = st.sampled_from(PROTOCOLS)
port_names = st.sampled_from(("web", "dns"))

requirements = st.one_of(
    st.builds(
        Requirement,
        key=st.sampled_from(("app", "tier")),
        operator=st.sampled_from((Operator.IN, Operator.NOT_IN)),
        values=st.sampled_from((("a",), ("b",), ("a", "b"))),
    ),
    st.builds(
        Requirement,
        key=st.sampled_from(("app", LABEL_KEY)),
        operator=st.sampled_from((Operator.EXISTS, Operator.DOES_NOT_EXIST)),
    ),
    st.builds(
        Requirement,
        key=st.just(LABEL_KEY),
        operator=st.just(Operator.IN),
        values=st.sampled_from((("t1",), ("t2",))),
    ),
)
selectors = st.builds(Selector, st.lists(requirements, max_size=2).map(tuple))
selector_peers = st.one_of(
    st.builds(Peer, pod_selector=selectors),
    st.builds(Peer, namespace_selector=selectors),
    st.builds(Peer, pod_selector=selectors, namespace_selector=selectors),
)
peers = st.one_of(selector_peers, st.builds(Peer, ip_block=st.sampled_from(BLOCKS)))


@st.composite
def _ranges(draw: st.DrawFn) -> PolicyPort:
    first, last = sorted(draw(st.tuples(*[st.sampled_from((1, *PORTS, 65535))] * 2)))
    return PolicyPort(draw(protocols), first, last)


policy_ports = st.one_of(
    st.builds(PolicyPort, protocols, st.sampled_from(PORTS)),
    st.builds(PolicyPort, protocols),
    st.builds(PolicyPort, protocols, port_names),
    _ranges(),
)
rules = st.builds(
    Rule,
    peers=st.lists(peers, max_size=2).map(tuple),
    ports=st.lists(policy_ports, max_size=4).map(tuple),
)
directions = st.sampled_from(
    (
        frozenset({Direction.INGRESS}),
        frozenset({Direction.EGRESS}),
        frozenset({Direction.INGRESS, Direction.EGRESS}),
    )
)
rule_lists = st.lists(rules, max_size=3).map(tuple)
network_policies = st.builds(
    NetworkPolicy,
    namespace=st.sampled_from(NAMESPACES),
    name=st.sampled_from(("p1", "p2", "p3")),
    pod_selector=st.just(Selector()) | selectors,
    directions=directions,
    ingress=rule_lists,
    egress=rule_lists,
)
cilium_requirements = st.one_of(
    requirements,
    st.builds(
        Requirement,
        key=st.just(SERVICE_ACCOUNT),
        operator=st.sampled_from((Operator.IN, Operator.NOT_IN)),
        values=st.just(("robot",)),
    ),
)
cilium_selectors = st.builds(Selector, st.lists(cilium_requirements, max_size=2).map(tuple))
homes = st.builds(
    Requirement,
    key=st.just(NAME_LABEL),
    operator=st.sampled_from((Operator.IN, Operator.NOT_IN)),
    values=st.sampled_from((("n1",), ("n2", "n3"))),
).map(lambda requirement: Selector((requirement,)))
OUTSIDE = tuple(replace(block, outside=True) for block in BLOCKS)
cilium_peers = st.one_of(
    st.builds(Peer, cilium_selectors, st.none() | homes | selectors),
    st.builds(Peer, ip_block=st.sampled_from(OUTSIDE)),
    st.builds(Peer, node=st.sampled_from(NodePeer)),
    st.builds(
        Peer,
        service=st.sampled_from(
            (
                API_SERVER,
                ServiceReference("n1", "s1"),
                ServiceReference(selector=Selector((Requirement("app", Operator.EXISTS),))),
            )
        ),
    ),
    st.just(NOBODY),
)


@st.composite
def _named_ranges(draw: st.DrawFn) -> PolicyPort:
    return PolicyPort(draw(protocols), draw(port_names), draw(st.sampled_from((80, 8080))))


cilium_ports = st.one_of(
    policy_ports,
    _named_ranges(),
    st.builds(PolicyPort, st.sampled_from(("ICMP", "ICMPv6")), st.sampled_from((0, 8, 128))),
)


judged_ports = st.lists(
    cilium_ports.map(lambda port: replace(port, protocol="TCP", port=port.port or 80)),
    min_size=1,
    max_size=2,
)
http_rules = st.lists(
    st.builds(
        HttpRule,
        method=st.sampled_from(("", "GET")),
        path=st.sampled_from(("/a", "/b.*")),
        name=st.sampled_from(("toPorts[0].rules.http[0]", "toPorts[0].rules.http[1]")),
    ),
    min_size=1,
    max_size=2,
).map(tuple)


@st.composite
def cilium_rules(draw: st.DrawFn, direction: Direction, *, deny: bool) -> tuple[Rule, ...]:
    """A list of rules of one direction, with their names."""
    found = draw(
        st.lists(
            st.tuples(st.lists(cilium_peers, max_size=2), st.lists(cilium_ports, max_size=2)),
            max_size=2,
        )
    )
    name = f"{direction.lower()}{'Deny' if deny else ''}"
    rules = [
        Rule(tuple(peers), tuple(ports), deny, f"{name}[{index}]")
        for index, (peers, ports) in enumerate(found)
    ]
    if deny:
        return tuple(rules)
    for index, rule in enumerate(tuple(rules)):
        if draw(st.booleans()):
            # Some of its ports, or all of them, with HTTP rules.
            judged = replace(rule, ports=tuple(draw(judged_ports)), http=draw(http_rules))
            rules[index : index + 1] = [judged, *draw(st.sampled_from(((), (rule,))))]
    return tuple(rules)


@st.composite
def cilium_policies(draw: st.DrawFn) -> NetworkPolicy:
    """A part of a CiliumNetworkPolicy, or of one of the whole cluster."""
    kind = draw(st.sampled_from((PolicyKind.CILIUM, PolicyKind.CILIUM_CLUSTERWIDE)))
    rules = {
        direction: tuple(
            rule for deny in (False, True) for rule in draw(cilium_rules(direction, deny=deny))
        )
        for direction in Direction
    }
    clusterwide = kind is PolicyKind.CILIUM_CLUSTERWIDE
    return NetworkPolicy(
        namespace="" if clusterwide else draw(st.sampled_from(NAMESPACES)),
        name=draw(st.sampled_from(("p1", "p2"))),
        kind=kind,
        part=draw(st.sampled_from(("", "specs[0]"))),
        pod_selector=draw(st.just(Selector()) | cilium_selectors),
        namespace_selector=draw(st.none() | homes | selectors),
        directions=frozenset(
            d for d in Direction if rules[d] and draw(st.sampled_from((True, True, False)))
        ),
        ingress=rules[Direction.INGRESS],
        egress=rules[Direction.EGRESS],
    )


policies = network_policies | cilium_policies()
pods = st.builds(
    Pod,
    namespace=st.sampled_from(NAMESPACES),
    name=st.sampled_from(("x", "y", "z")),
    labels=label_sets,
    ips=st.tuples(
        st.sampled_from(("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9", "10.1.0.1")),
        st.sampled_from(("fd00::1", "fd00::2", "fd00::3", "fd00:1::1")),
    ),
    ports=st.lists(
        st.builds(ContainerPort, st.sampled_from(PORTS), protocols, port_names), max_size=2
    ).map(tuple),
    node=st.sampled_from(NODES),
    host_network=st.sampled_from((False, False, False, True)),
    phase=st.sampled_from(("Running", "Running", "Running", "Succeeded")),
    service_account=st.sampled_from(("default", "robot")),
    created=st.sampled_from(("", "2026-01-01T00:00:00Z")),
)
services = st.builds(
    Service,
    namespace=st.sampled_from(NAMESPACES),
    name=st.sampled_from(("s1", "s2")),
    cluster_ips=st.sampled_from((("10.96.0.1",), ("10.96.0.2", "fd96::2"), ("fd96::3",))),
    ports=st.lists(
        st.builds(
            ServicePort,
            st.sampled_from(PORTS),
            protocols,
            target=st.sampled_from(PORTS) | port_names,
        ),
        min_size=1,
        max_size=2,
        unique_by=lambda p: (p.port, p.protocol),
    ).map(tuple),
    selector=label_sets,
    labels=label_sets,
)
slices = st.builds(
    EndpointSlice,
    namespace=st.just("default"),
    name=st.just("kubernetes"),
    service=st.just("kubernetes"),
    endpoints=st.sampled_from((("10.9.0.2", "192.0.2.1"), ("10.9.0.1",), ("fd09::2",))).map(
        lambda found: (SliceEndpoint(found),)
    ),
)
wall_ports = st.lists(
    st.one_of(
        st.builds(Port, protocols, st.sampled_from(PORTS)),
        st.builds(Port, protocols),
        st.just(Port("TCP", 80, 8080)),
    ),
    max_size=2,
).map(tuple)


@st.composite
def configs(draw: st.DrawFn) -> TenantConfig:
    """Two tenants with grants, up to two shared components."""
    ports = draw(wall_ports)
    granted = draw(st.booleans())
    t1 = Tenant(
        "t1",
        allow_from=(Grant("t2", ports),) if granted else (),
        allow_masked=draw(st.booleans()),
    )
    tried = draw(st.sampled_from((False, False, True)))
    t2 = Tenant("t2", allow_to=(Grant("t1"),) if granted else (), audited=tried)
    shared = st.builds(
        SharedComponent,
        name=st.sampled_from(("ingress", "monitoring")),
        namespaces=st.sampled_from((("n3",), ("n2", "n3"))),
        ports=wall_ports,
        host_network=st.booleans(),
    )
    return TenantConfig(
        tenants={"t1": t1, "t2": t2},
        label_key=LABEL_KEY,
        mode=draw(st.sampled_from(Mode)),
        protected_namespaces=frozenset(),
        shared=tuple(draw(st.lists(shared, max_size=2, unique_by=lambda c: c.name))),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """A whole cluster; labels may lie, addresses may be claimed twice."""
    config = draw(st.none() | configs())
    namespaces = {}
    for name in NAMESPACES:
        labels = {NAME_LABEL: name, **draw(label_sets)}
        claim = draw(st.sampled_from((None, "t1", "t2")))
        asks = draw(st.sampled_from(({}, {}, {MODE_ANNOTATION: AUDIT_MODE})))
        namespaces[name] = Namespace(
            name, labels | ({LABEL_KEY: claim} if claim else {}), annotations=asks
        )
    tenants = {
        name: tenant
        for name in NAMESPACES
        if (tenant := draw(st.sampled_from((None, None, "t1", "t2", "gone"))))
    }
    found = draw(st.lists(pods, min_size=3, max_size=6, unique_by=lambda p: p.key))
    return Cluster(
        namespaces=namespaces,
        pods=tuple(map(placed, found)),
        policies=tuple(draw(st.lists(policies, min_size=2, max_size=6, unique_by=lambda p: p.key))),
        nodes=tuple(
            Node(name, ips, (), INTERFACE_ADDRESSES[name]) for name, ips in NODE_ADDRESSES.items()
        ),
        services=tuple(
            draw(
                st.lists(services, max_size=2, unique_by=(lambda s: s.key, lambda s: s.cluster_ips))
            )
        ),
        slices=tuple(draw(st.lists(slices, max_size=1))),
        config=config,
        tenants=tenants if config else {},
        pod_cidrs=POD_CIDRS,
    )


def placed(pod: Pod) -> Pod:
    """On its node's network a pod has its node's addresses."""
    if not pod.host_network:
        return pod
    node = pod.node or "here"
    return replace(pod, node=node, ips=NODE_ADDRESSES[node])


def questions(cluster: Cluster, ports: Iterable[int] = PORTS) -> tuple[Question, ...]:
    """Every ordered pair of pods and outside addresses, where both have the family."""
    ends = [pod.key for pod in cluster.pods if not pod.terminal]
    ends += [EXTERNAL_PREFIX + address for address in EXTERNALS]
    ends += [SERVICE_PREFIX + service.key for service in cluster.services]
    asked = [(protocol, port) for protocol in PROTOCOLS for port in ports]
    asked += [(protocol, NO_PORT) for protocol in PORTLESS]
    evaluator = Evaluator(cluster)
    found = (
        Question(source, destination, protocol, port, family)
        for family in Family
        for source in ends
        for destination in ends
        if _has(evaluator, source, family) and _has(evaluator, destination, family)
        for protocol, port in asked
        if not source.startswith(SERVICE_PREFIX)
    )
    return tuple(question for question in found if not _returns(evaluator, question))


def _returns(evaluator: Evaluator, question: Question) -> bool:
    """Whether it is a pod that calls itself by a Service: what comes back is masked.

    A masked source needs a packet without a socket, which test runs of the kernel cannot make.
    """
    return any(is_hairpin(packet) for packet in evaluator.packets(question))


def _has(evaluator: Evaluator, end: str, family: Family) -> bool:
    if end.startswith(EXTERNAL_PREFIX):
        return (":" in end) == (family is Family.IPV6)
    try:
        evaluator.party(end, family)
    except LookupError:
        return False
    return True
