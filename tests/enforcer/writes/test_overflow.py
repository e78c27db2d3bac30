"""Whatever overflows, nobody is opened, and nobody below its budget is met by it.

Random histories run through a compiler with tiny maps. After every single write each packet that
passes would pass with maps of any size too, before the change or after it. Then a flood comes to a
cluster that fits: every judgement about everybody else stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from enforcer.compiler.compile import Compiler, compile_tables
from enforcer.datapath import testrun
from enforcer.datapath.engine import Judge
from enforcer.datapath.maps import UNLIMITED
from enforcer.policy.changes import Inputs
from enforcer.policy.interpret import judge
from enforcer.policy.rulebook import NOWHERE, closed
from enforcer.policy.tables import CAPACITY, EndpointFlag, MapOverflow, Table, Tables
from generators.cluster import Cluster
from generators.objects import (
    Direction,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Peer,
    Pod,
    PolicyPort,
    Rule,
)
from generators.selectors import labels_selector
from generators.tenants.model import Tenant, TenantConfig
from tests.enforcer.clusters import EXTERNALS, POD_CIDRS, clusters
from tests.enforcer.compiler.test_sequences import (
    NODE,
    Enforcement,
    Event,
    World,
    _agrees_with_the_evaluator,
    is_open,
    named,
    packets,
    steps,
    written,
)

TINY = {**UNLIMITED, Table.POLICY: 40, Table.RANGES: 200, Table.CIDRS: 14}
"""With room for the walls, which nobody is refused."""
CRAMPED = {**TINY, Table.ADDRESSES: 7, Table.ENDPOINTS: 3}
UNCALLED = {**UNLIMITED, Table.SERVICES: 1}


def passes(tables: Tables, ifindex: int, packet: object) -> bool:
    """What the programs let through; nothing where there is no endpoint, or none that is ready."""
    endpoint = tables.endpoints.get(ifindex)
    if endpoint is None or EndpointFlag.READY not in endpoint.flags:
        return False
    return is_open(tables, ifindex, packet)  # type: ignore[arg-type]


def check_that_nobody_is_opened(
    node: Enforcement, before: Tables, after: Tables, *, fresh: bool
) -> Tables:
    """Write, and after each write look at every packet; what the maps hold then."""
    if fresh:
        node.compiler.resync(node.maps)
    desired = node.compiler.tables()
    called = {key.address for key in (*before.services, *after.services)}
    peers = sorted({*before.addresses, *after.addresses, *called, *EXTERNALS})
    asked = {
        ifindex: [
            packet
            for packet in packets(endpoint, peers)
            if not passes(before, ifindex, packet) and not passes(after, ifindex, packet)
        ]
        for ifindex, endpoint in {**before.endpoints, **after.endpoints}.items()
    }
    moment = named(node.maps, desired)
    try:
        writes = node.compiler.plan()
    except MapOverflow:
        assume(False)  # not even the walls fit
    for change in writes:
        moment = named(written(moment, change), node.compiler.tables())
        if change.table in (Table.POLICY, Table.RANGES):
            continue
        for ifindex, closed_ones in asked.items():
            for packet in closed_ones:
                assert not passes(moment, ifindex, packet), (change, packet)
    node.compiler.commit()
    return moment


@pytest.mark.timeout(600)
@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(clusters(), steps, st.sampled_from((TINY, CRAMPED, UNCALLED)))
def test_no_map_that_overflows_opens_anybody_at_any_moment(
    cluster: Cluster, history: list[list[Event]], limits: Mapping[Table, int]
) -> None:
    world, node = World(cluster), Enforcement()
    node.compiler = Compiler(NODE, node.registry, limits=limits)
    counts, before = world.inputs(), Tables()
    asked = as_they_are if limits is UNCALLED else without_services
    for happened in ([], *history):
        for event in happened:
            world.happen(event)
        counts = world.keeping_policies_of_the_dying(counts)
        node.compiler.become(asked(world.inputs()))
        counted = asked(counts)
        after = compile_tables(counted.cluster, NODE, counted.interfaces, limits=UNLIMITED)
        node.maps = check_that_nobody_is_opened(node, before, after, fresh=False)
        before = after
    if limits is TINY:
        counted = asked(counts)
        _agrees_with_the_evaluator(as_enforced(counted, node.compiler), node.maps)


@pytest.fixture(scope="module")
def kernel_judge() -> Iterator[Judge]:
    with testrun.loaded() as judge:
        yield judge


@pytest.mark.bpf
@pytest.mark.timeout(300)
@settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(cluster=clusters(), limits=st.sampled_from((TINY, CRAMPED, UNCALLED)))
def test_the_kernel_judges_by_maps_without_room_as_they_are_read(
    kernel_judge: Judge, cluster: Cluster, limits: Mapping[Table, int]
) -> None:
    inputs = World(cluster).inputs()
    tables = compile_tables(inputs.cluster, NODE, inputs.interfaces, limits=limits)
    called = {address for service in inputs.cluster.services for address in service.cluster_ips}
    peers = sorted({*tables.addresses, *called, *EXTERNALS})
    for ifindex, endpoint in tables.endpoints.items():
        for packet in packets(endpoint, peers):
            wanted = judge(tables, ifindex, packet)
            assert kernel_judge(tables, ifindex, packet) == wanted, (ifindex, packet)


def as_they_are(inputs: Inputs) -> Inputs:
    return inputs


def without_services(inputs: Inputs) -> Inputs:
    return replace(inputs, cluster=replace(inputs.cluster, services=()))


def as_enforced(inputs: Inputs, compiler: Compiler) -> Inputs:
    """The inputs with policies as they are while they find no room."""
    refused: dict[str, frozenset[Direction]] = {}
    for key, direction in compiler.allotment.refused:
        refused[key] = refused.get(key, NOWHERE) | {direction}
    policies = tuple(closed(p, refused.get(p.key, NOWHERE)) for p in inputs.cluster.policies)
    return replace(inputs, cluster=replace(inputs.cluster, policies=policies))


def flood(blocks: int, ports: int, pods: int) -> tuple[list[NetworkPolicy], list[Pod]]:
    """What a tenant does that is after others."""
    names = [f"p{i}" for i in range(pods)]
    made = [
        Pod(
            "flood",
            name,
            {"app": name},
            ips=(f"10.0.0.{100 + i}",),
            node=NODE if i % 2 == 0 else "there",
            phase="Running",
        )
        for i, name in enumerate(names)
    ]
    cidrs = tuple(Peer(ip_block=IPBlock(f"100.{i >> 8}.{i & 255}.0/24")) for i in range(blocks))
    apps = tuple(Peer(pod_selector=labels_selector({"app": name})) for name in names)
    numbers = tuple(PolicyPort("TCP", 1000 + i) for i in range(ports))
    both = frozenset(Direction)
    policies = [
        NetworkPolicy("flood", "blocks", ingress=(Rule(cidrs),)),
        NetworkPolicy("flood", "ports", ingress=(Rule(apps, numbers),)),
        NetworkPolicy(
            "flood",
            "ways",
            directions=both,
            egress=(Rule((), numbers),),
            ingress=(Rule(cidrs[:3]),),
        ),
    ]
    return policies, made


def with_flood(inputs: Inputs, policies: Iterable[NetworkPolicy], pods: Iterable[Pod]) -> Inputs:
    cluster, pods = inputs.cluster, tuple(pods)
    local = {p.key: 100 + i for i, p in enumerate(pods) if p.node == NODE}
    return Inputs(
        replace(
            cluster,
            namespaces={**cluster.namespaces, "flood": Namespace("flood")},
            pods=(*cluster.pods, *pods),
            policies=(*cluster.policies, *policies),
        ),
        {**inputs.interfaces, **local},
    )


@pytest.mark.timeout(600)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    clusters(),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 20),
    st.booleans(),
)
def test_a_flood_opens_nobody_and_reaches_nobody_below_its_budget(
    cluster: Cluster, blocks: int, ports: int, pods: int, first: bool
) -> None:
    world = World(cluster)
    tenants = dict(world.config.tenants) if world.config is not None else {}
    config = world.config or TenantConfig({})
    world.config = replace(config, tenants={**tenants, "flood": Tenant("flood")})
    calm = world.inputs()
    calm = replace(
        calm,
        cluster=replace(
            calm.cluster, services=(), tenants={**calm.cluster.tenants, "flood": "flood"}
        ),
    )
    wanted = compile_tables(calm.cluster, NODE, calm.interfaces, limits=UNLIMITED)
    limits = room_for(wanted, owners=len(config.tenants) + 2)
    compiler = Compiler(NODE, limits=limits)
    policies, made = flood(blocks, ports, pods)
    moments = [with_flood(calm, policies, made), with_flood(calm, policies[:1], made[1:])]
    for moment in (*moments, calm, *moments) if first else (calm, *moments):
        compiler.become(moment)
        compiler.plan()
        compiler.commit()
    found = compiler.tables()
    peers = sorted({*wanted.addresses, *EXTERNALS})
    for ifindex, endpoint in wanted.endpoints.items():
        for packet in packets(endpoint, peers):
            assert judge(found, ifindex, packet) == judge(wanted, ifindex, packet), packet
    assert not [unit for unit in compiler.allotment.refused if not unit[0].startswith("flood/")]


def room_for(tables: Tables, owners: int) -> Mapping[Table, int]:
    """Maps in which what these tables hold is within each owner's budget, beside the walls."""
    groups = (*(key.group for key in tables.policy), *(key.group for key in tables.ranges))
    walls = sum(1 for group in groups if group in tables.walls)
    beside = 2 * walls + 400  # and the wall around the flood
    held = {
        Table.POLICY: 2 * len(tables.policy),
        Table.RANGES: 2 * len(tables.ranges),
        Table.CIDRS: 2 * (len(tables.cidrs) + len(POD_CIDRS)),
        Table.ADDRESSES: len(tables.addresses),
        Table.ENDPOINTS: len(tables.endpoints),
    }
    by_policy = (Table.POLICY, Table.RANGES)
    return {
        **CAPACITY,
        **{t: (owners + 1) * (n + 4) + beside * (t in by_policy) for t, n in held.items()},
    }
