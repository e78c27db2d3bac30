"""What finds no room is closed for its owner; everything else is written, and nobody is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest

from enforcer.compiler.compile import Compiler, compile_tables
from enforcer.datapath import testrun
from enforcer.policy.changes import (
    Inputs,
    NamespaceChange,
    PodChange,
    PolicyChange,
    RecordChange,
    ServiceChange,
)
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import (
    CAPACITY,
    AddressFlag,
    Dir,
    EndpointFlag,
    MapOverflow,
    MapWrite,
    PolicyKey,
    Table,
    sizes,
)
from enforcer.writes import tight
from enforcer.writes.capacity import peaks, refuse_overflow
from generators.addresses import Family
from generators.cluster import Cluster
from generators.objects import (
    Direction,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Operator,
    Peer,
    Pod,
    PolicyPort,
    Requirement,
    Rule,
    Selector,
    Service,
    ServicePort,
)
from generators.reachability.classes import evaluate
from generators.reachability.packets import Question
from generators.reachability.verdicts import Verdict
from generators.selectors import labels_selector
from generators.tenants.model import Tenant, TenantConfig

SMALL = {**CAPACITY, Table.POLICY: 24, Table.CIDRS: 20, Table.RANGES: 20}
"""Half of each is for policies; the other half is for what replaces them."""
ROOMY = {**SMALL, Table.POLICY: 28}
CONFIG = TenantConfig({name: Tenant(name) for name in ("app", "other")})
NOBODYS = Namespace("free")


def pod(namespace: str, name: str, host: int, node: str = "here") -> Pod:
    return Pod(namespace, name, {"app": name}, ips=(f"10.0.0.{host}",), node=node)


WEB, PEER = pod("app", "web", 1), pod("other", "web", 2)


def ports(count: int, name: str = "big", namespace: str = "app", first: int = 1) -> NetworkPolicy:
    """One rule for each of some ports."""
    numbers = range(first, first + count)
    rules = tuple(Rule((), (PolicyPort("TCP", port),)) for port in numbers)
    return NetworkPolicy(namespace, name, ingress=rules)


def ranges(count: int) -> NetworkPolicy:
    """Ports that are ranges of one each, as it were: 2k to 2k + 1."""
    found = tuple(PolicyPort("TCP", 4 * i, 4 * i + 1) for i in range(1, count + 1))
    return NetworkPolicy("app", "big", ingress=(Rule((), found),))


def blocks(count: int, name: str = "big", namespace: str = "app") -> NetworkPolicy:
    """One block with so many excepts."""
    excepts = tuple(f"100.{i >> 8}.{i & 255}.0/24" for i in range(count))
    peer = Peer(ip_block=IPBlock("100.0.0.0/8", excepts))
    return NetworkPolicy(namespace, name, ingress=(Rule((peer,)),))


def inputs(*policies: NetworkPolicy, pods: Iterable[Pod] = (WEB, PEER)) -> Inputs:
    pods = tuple(pods)
    names = ("app", "other", "free")
    given = Cluster(
        {name: Namespace(name) for name in names},
        pods,
        policies,
        config=CONFIG,
        tenants={"app": "app", "other": "other"},
        pod_cidrs=("10.0.0.0/8",),
    )
    return Inputs(given, {p.key: i for i, p in enumerate(pods, 5) if p.node == "here"})


def started(
    *policies: NetworkPolicy,
    pods: Iterable[Pod] = (WEB, PEER),
    limits: Mapping[Table, int] = SMALL,
) -> Compiler:
    compiler = Compiler("here", limits=limits)
    compiler.become(inputs(*policies, pods=pods))
    compiler.plan()
    compiler.commit()
    return compiler


def written(compiler: Compiler) -> tuple[MapWrite, ...]:
    writes = compiler.plan()
    for table, most in peaks(compiler.ledger, writes).items():
        assert most <= SMALL[table], table
    compiler.commit()
    return writes


def rules_of(compiler: Compiler, pod: Pod) -> set[str]:
    tables = compiler.tables()
    group = next(e.group for e in tables.endpoints.values() if e.ip4 == pod.ips)
    return {tables.rules[rule] for key, rule in tables.policy.items() if key.group == group}


@pytest.mark.parametrize(
    ("policy", "table", "needs"),
    [
        pytest.param(ports(11), Table.POLICY, 11, id="ports"),
        pytest.param(ranges(11), Table.RANGES, 11, id="ranges"),
        pytest.param(blocks(20), Table.CIDRS, 21, id="blocks"),
    ],
)
def test_a_policy_too_large_is_closed_and_named_and_the_rest_is_written(
    policy: NetworkPolicy, table: Table, needs: int
) -> None:
    compiler = started(ports(1, "small"))
    fresh = pod("other", "fresh", 3, "there")
    deny = NetworkPolicy("other", "deny")
    compiler.apply(
        [
            PolicyChange(policy.key, policy),
            PodChange(fresh.key, fresh),
            PolicyChange(deny.key, deny),
        ]
    )
    written(compiler)
    ((unit, refusal),) = compiler.allotment.refused.items()
    assert unit == (policy.key, Direction.INGRESS)
    assert (refusal.table, refusal.needs, refusal.tenant) == (table, needs, "app")
    assert f"{policy.key} (tenant app) is closed for ingress: it needs {needs} " in str(refusal)
    assert f"--map-size {table.value}=" in str(refusal)
    assert fresh.ips[0] in compiler.tables().addresses
    isolated = [e.flags for e in compiler.tables().endpoints.values()]
    assert all(EndpointFlag.ISOLATED_INGRESS in flags for flags in isolated)
    assert rules_of(compiler, WEB) == {"app/small#ingress[0]"}


def test_only_the_direction_that_is_too_large_is_closed() -> None:
    compiler = started()
    both = replace(
        ports(11), directions=frozenset(Direction), egress=(Rule((), (PolicyPort("TCP", 1),)),)
    )
    compiler.apply([PolicyChange(both.key, both)])
    written(compiler)
    assert rules_of(compiler, WEB) == {"app/big#egress[0]"}


def test_a_pod_that_takes_over_an_address_is_known_though_the_plan_overflows() -> None:
    gone, heir = pod("other", "gone", 9, "there"), pod("app", "heir", 9, "there")
    compiler = started(pods=(WEB, PEER, gone))
    compiler.apply([PolicyChange("app/big", blocks(20)), PodChange(gone.key, None)])
    written(compiler)
    compiler.apply([PodChange(heir.key, heir)])
    written(compiler)
    entry = compiler.tables().addresses["10.0.0.9"]
    assert compiler.tables().tenants[entry.tenant] == "app"


def test_what_was_refused_is_in_force_with_the_change_that_makes_room() -> None:
    compiler = started(ports(6, "first"), ports(5, "second", first=20))
    assert [key for key, _ in compiler.allotment.refused] == ["app/first"]
    compiler.apply([PolicyChange("app/second", None)])
    written(compiler)
    assert not compiler.allotment.refused
    assert len(rules_of(compiler, WEB)) == 6


def test_a_tenant_below_its_budget_is_never_the_one_that_is_refused() -> None:
    compiler = started(ports(7), ports(3, "p", "other"), pods=(WEB, PEER), limits=ROOMY)
    assert not compiler.allotment.refused, "what is free may be used"
    compiler.apply([PolicyChange("other/q", ports(3, "q", "other", first=20))])
    written(compiler)
    assert [key for key, _ in compiler.allotment.refused] == ["app/big"]
    compiler.apply([PolicyChange("other/q", None)])
    written(compiler)
    assert not compiler.allotment.refused


def test_a_share_in_the_tenant_file_is_kept_free() -> None:
    config = TenantConfig({"app": Tenant("app", map_share=80), "other": Tenant("other")})
    given = inputs(ports(7), ports(3, "p", "other"), ports(1, "q", "other", first=20))
    compiler = Compiler("here", limits=SMALL)
    compiler.become(replace(given, cluster=replace(given.cluster, config=config)))
    assert [key for key, _ in compiler.allotment.refused] == ["other/p"]


def test_equal_prefixes_of_one_tenant_count_once() -> None:
    compiler = started(blocks(8), blocks(8, "again"))
    assert not compiler.allotment.refused
    assert len(compiler.tables().cidrs) == 9 + 2, "the pod range is in both tries"


def test_blocks_of_a_tenant_cost_nobody_else_an_entry() -> None:
    everywhere = Peer(ip_block=IPBlock("0.0.0.0/0"))
    open_to_all = NetworkPolicy("other", "p", ingress=(Rule((everywhere,)),))
    compiler = started(open_to_all)
    before = rules_of(compiler, PEER)
    entries = len(compiler.tables().policy)
    compiler.apply([PolicyChange("app/big", blocks(8))])
    written(compiler)
    assert rules_of(compiler, PEER) == before
    mine = {k.group for k, r in compiler.tables().policy.items() if r}
    assert len(compiler.tables().policy) == entries + 1, mine


def test_a_policy_whose_peers_became_too_many_is_closed_then() -> None:
    many = NetworkPolicy(
        "app",
        "p",
        ingress=tuple(
            Rule((Peer(pod_selector=labels_selector({"app": f"p{i}"})),)) for i in range(12)
        ),
    )
    compiler = started(many)
    assert not compiler.allotment.refused
    pods = [pod("app", f"p{i}", 20 + i, "there") for i in range(12)]
    compiler.apply([PodChange(p.key, p) for p in pods])
    written(compiler)
    assert compiler.allotment.refused
    compiler.apply([PodChange(p.key, None) for p in pods])
    compiler.reconsider()
    written(compiler)
    assert not compiler.allotment.refused


def test_addresses_of_who_has_too_many_pods_find_no_room_and_others_do() -> None:
    small = {**SMALL, Table.ADDRESSES: 6}
    pods = [pod("other", f"p{i}", 20 + i, "there") for i in range(9)]
    compiler = Compiler("here", limits=small)
    compiler.become(inputs(pods=pods))
    late = [pod("app", "late", 90), pod("free", "late", 91)]
    compiler.apply([PodChange(p.key, p) for p in late])
    found = compiler.tables().addresses
    assert len(found) == 6
    assert all(p.ips[0] in found for p in late)
    assert compiler.rooms.addresses.waiting() == {"other": 5}
    compiler.apply([PodChange(pods[0].key, None)])
    assert len(compiler.tables().addresses) == 6, "who waits comes in"


def test_a_pod_that_finds_no_place_as_an_endpoint_is_not_there_for_the_programs() -> None:
    small = {**SMALL, Table.ENDPOINTS: 3}
    pods = [pod("other", f"p{i}", 20 + i) for i in range(4)]
    compiler = Compiler("here", limits=small)
    compiler.become(inputs(pods=(*pods, pod("app", "late", 90))))
    own = {ip for e in compiler.tables().endpoints.values() for ip in e.ip4}
    assert len(own) == 3
    assert "10.0.0.90" in own


def test_a_switch_that_finds_no_room_beside_the_old_is_made_behind_closed_endpoints() -> None:
    compiler = started(ports(6))
    compiler.apply([PolicyChange("app/big", ports(5))])
    usual = compiler.plan()
    writes = tight.squeezed(compiler.ledger)
    most = peaks(compiler.ledger, writes)[Table.POLICY]
    assert most == peaks(compiler.ledger, usual)[Table.POLICY] - 5
    flags = [w.value.flags for w in writes if w.table is Table.ENDPOINTS and w.value]  # type: ignore[union-attr]
    assert [EndpointFlag.READY in f for f in flags] == [False, True]


def test_what_no_policy_is_to_blame_for_is_an_error_that_names_the_flag() -> None:
    with pytest.raises(MapOverflow, match=r"addr_map .* --map-size addr_map="):
        refuse_overflow(
            sizes(compile_tables(inputs().cluster, "here", {})), {**SMALL, Table.ADDRESSES: 1}
        )


def test_urgent_writes_add_nothing_that_a_group_would_need() -> None:
    compiler = started(ports(1))
    heir = replace(pod("app", "heir", 2, "there"), created="2026-01-01T00:00:00Z")
    compiler.apply(
        [
            PodChange(PEER.key, None),
            PodChange(heir.key, heir),
            PolicyChange("app/big", ports(2)),
        ]
    )
    compiler.plan()
    urgent = compiler.urgent()
    assert not any(isinstance(write.key, PolicyKey) for write in urgent)
    assert [w.key for w in urgent if w.table is Table.ADDRESSES] == ["10.0.0.2"]
    assert [w.key for w in urgent if w.table is Table.ENDPOINTS and w.value is None] == [6]


def test_a_namespace_that_changes_its_tenant_counts_for_the_other() -> None:
    compiler = started(ports(12), pods=(WEB,))
    compiler.apply([RecordChange("app", "other"), NamespaceChange("app", Namespace("app"))])
    ((_, refusal),) = compiler.allotment.refused.items()
    assert refusal.tenant == "other"


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        pytest.param(ports(10_000), 10_000, id="ten thousand rules"),
        pytest.param(blocks(1_000), 1, id="a thousand excepts"),
    ],
)
def test_a_policy_of_great_size_becomes_its_entries(policy: NetworkPolicy, size: int) -> None:
    given = inputs(policy, pods=(WEB,))
    tables = compile_tables(given.cluster, "here", given.interfaces)
    assert len([k for k in tables.policy if k.group == tables.endpoints[5].group]) == size


def test_a_selector_of_a_thousand_expressions_selects() -> None:
    wanted = tuple(Requirement(f"key-{i}", Operator.NOT_IN, ("a", "b")) for i in range(1000))
    peer = Peer(pod_selector=Selector(wanted))
    policy = NetworkPolicy("app", "p", ingress=(Rule((peer,)),))
    given = inputs(policy, pods=(WEB,))
    tables = compile_tables(given.cluster, "here", given.interfaces)
    assert len([k for k in tables.policy if k.group == tables.endpoints[5].group]) == 1


VIP, BESIDE = "10.96.0.7", "10.96.0.8"
IN_FRONT = Service(
    "other", "web", selector={"app": "web"}, cluster_ips=(VIP,), ports=(ServicePort(80),)
)
AROUND = NetworkPolicy(
    "app",
    "out",
    directions=frozenset({Direction.EGRESS}),
    egress=(Rule((Peer(ip_block=IPBlock("10.96.0.0/12")),)),),
)
"""A block with a Service's address in it, and none of its backends."""
RUNNING = (replace(WEB, phase="Running"), replace(PEER, phase="Running"))
FULL = {**CAPACITY, Table.SERVICES: 0}


def behind_a_block() -> Inputs:
    told = inputs(AROUND, pods=RUNNING)
    return replace(told, cluster=replace(told.cluster, services=(IN_FRONT,)))


@pytest.mark.parametrize("limits", [CAPACITY, FULL], ids=["room", "no room"])
@pytest.mark.parametrize(
    "engine", [pytest.param("maps"), pytest.param("kernel", marks=pytest.mark.bpf)]
)
def test_a_block_around_a_service_lets_no_call_out_to_who_stands_behind_it(
    engine: str, limits: Mapping[Table, int]
) -> None:
    told = behind_a_block()
    tables = compile_tables(told.cluster, "here", told.interfaces, limits=limits)
    assert bool(tables.services) is (limits is CAPACITY)
    (ifindex,) = (i for i, e in tables.endpoints.items() if e.ip4 == WEB.ips)
    with testrun.loaded() if engine == "kernel" else nullcontext(judge) as asked:
        for address, verdict in ((VIP, Verdict.DROPPED), (BESIDE, Verdict.FORWARDED)):
            call = EndpointPacket(Dir.EGRESS, WEB.ips[0], address, 6, 80)
            assert asked(tables, ifindex, call).verdict is verdict


def test_the_evaluator_lets_no_such_call_out_either() -> None:
    asked = Question("app/web", "svc/other/web", "TCP", 80, Family.IPV4)
    (cell,) = evaluate(behind_a_block().cluster, [asked])
    assert cell.verdict is Verdict.DROPPED


def test_the_address_of_a_service_is_closed_while_one_of_its_ports_waits_and_no_longer() -> None:
    compiler = started(AROUND, pods=RUNNING, limits={**CAPACITY, Table.SERVICES: 1})
    two = replace(IN_FRONT, ports=(ServicePort(80), ServicePort(81, target=80)))
    for service, marked, known in ((two, True, 1), (IN_FRONT, False, 1), (None, False, 0)):
        compiler.apply([ServiceChange("other/web", service)])
        compiler.plan()
        compiler.commit()
        tables = compiler.tables()
        found = tables.addresses.get(VIP)
        assert (found is not None and AddressFlag.SERVICE in found.flags) is marked
        assert len(tables.services) == known
