"""What a policy becomes in the maps, and what stays the same when something else changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from enforcer.compiler.compile import Compiler, compile_tables
from enforcer.compiler.placement import KEEP_ANNOTATION
from enforcer.policy.changes import (
    Inputs,
    InterfaceChange,
    NamespaceChange,
    PodChange,
    PolicyChange,
)
from enforcer.policy.identity import Registry, tenant_ids
from enforcer.policy.tables import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    PEER_CIDR,
    PEER_TENANT,
    SERVICE_BACKENDS,
    AddressFlag,
    CidrFlag,
    CidrKey,
    Dir,
    EndpointFlag,
    MapWrite,
    Table,
    Tables,
)
from generators.cluster import Cluster
from generators.labels import MANAGED_BY, MANAGER
from generators.objects import (
    NAME_LABEL,
    ContainerPort,
    Direction,
    EndpointSlice,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Node,
    Peer,
    Pod,
    PolicyPort,
    Rule,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from generators.reachability.services import Backend, ServiceKey
from generators.selectors import labels_selector
from generators.tenants.model import Grant, Mode, Port, SharedComponent, Tenant, TenantConfig

WEB = Pod("app", "web", {"app": "web"}, ips=("10.0.0.1", "fd00::1"), node="here")
API = Pod("app", "api", {"app": "api"}, ips=("10.0.0.2",), node="here")
OTHER = Pod("other", "x", {"app": "web"}, ips=("10.0.0.3",), node="there")
FROM_API = Peer(pod_selector=labels_selector({"app": "api"}))
INTERFACES = {"app/web": 5, "app/api": 6}


def cluster(*policies: NetworkPolicy, pods: tuple[Pod, ...] = (WEB, API, OTHER)) -> Cluster:
    names = {pod.namespace for pod in pods}
    return Cluster(
        namespaces={n: Namespace(n, {NAME_LABEL: n}) for n in sorted(names)},
        pods=pods,
        policies=policies,
        nodes=(Node("here", ("10.9.0.1",)), Node("there", ("10.9.0.2",))),
        pod_cidrs=("10.0.0.0/24", "fd00::/64"),
    )


def in_force(given: Cluster) -> Compiler:
    """A compiler whose tables the kernel holds."""
    compiler = Compiler("here")
    compiler.become(Inputs(given, INTERFACES))
    compiler.plan()
    compiler.commit()
    return compiler


def to_web(*rules: Rule, name: str = "p") -> NetworkPolicy:
    return NetworkPolicy("app", name, labels_selector({"app": "web"}), ingress=rules)


def from_web(*rules: Rule) -> NetworkPolicy:
    selector = labels_selector({"app": "web"})
    return NetworkPolicy("app", "p", selector, frozenset({Direction.EGRESS}), egress=rules)


def readable(tables: Tables, ifindex: int = 5) -> set[str]:
    """The policy entries of an endpoint as `peer port/protocol -> rule`, peers by address."""
    group = tables.endpoints[ifindex].group
    peers: dict[int, str] = {0: "any"}
    for address, entry in sorted(tables.addresses.items(), reverse=True):
        peers[entry.identity] = address
    peers |= {PEER_CIDR | entry.cidr: key.prefix for key, entry in tables.cidrs.items()}
    found = {
        f"{peers[k.peer]} {k.port}/{k.protocol} -> {tables.rules[rule]}"
        for k, rule in tables.policy.items()
        if k.group == group
    }
    return found | {
        f"{peers[k.peer]} {k.port}+{16 - k.length}/{k.protocol} -> {tables.rules[rule]}"
        for k, rule in tables.ranges.items()
        if k.group == group
    }


NAMED = PolicyPort("TCP", "http")

CASES: Mapping[str, tuple[Cluster, set[str]]] = {
    "nothing is let in": (cluster(to_web()), set()),
    "anybody": (cluster(to_web(Rule())), {"any 0/0 -> app/p#ingress[0]"}),
    "a peer on a port": (
        cluster(to_web(Rule((FROM_API,), (PolicyPort("TCP", 80),)))),
        {"10.0.0.2 80/6 -> app/p#ingress[0]"},
    ),
    "a range": (
        cluster(to_web(Rule((FROM_API,), (PolicyPort("UDP", 80, 82),)))),
        {"10.0.0.2 80+1/17 -> app/p#ingress[0]", "10.0.0.2 82+0/17 -> app/p#ingress[0]"},
    ),
    "a range of one port is that port": (
        cluster(to_web(Rule((FROM_API,), (PolicyPort("TCP", 80, 80),)))),
        {"10.0.0.2 80/6 -> app/p#ingress[0]"},
    ),
    "the first rule wins where a later one is narrower": (
        cluster(to_web(Rule(), Rule((FROM_API,), (PolicyPort("TCP", 80),)))),
        {"any 0/0 -> app/p#ingress[0]", "10.0.0.2 0/0 -> app/p#ingress[0]"},
    ),
    "a block and its except": (
        cluster(to_web(Rule((Peer(ip_block=IPBlock("192.0.2.0/24", ("192.0.2.9/32",))),)))),
        {"192.0.2.0/24 0/0 -> app/p#ingress[0]"},
    ),
    "a block that holds a pod": (
        cluster(to_web(Rule((Peer(ip_block=IPBlock("10.0.0.2/32")),)))),
        {"10.0.0.2 0/0 -> app/p#ingress[0]", "10.0.0.2/32 0/0 -> app/p#ingress[0]"},
    ),
    "a named port that the endpoint does not have": (cluster(to_web(Rule((), (NAMED,)))), set()),
    "a named port of the endpoint": (
        cluster(
            to_web(Rule((), (NAMED,))),
            pods=(replace(WEB, ports=(ContainerPort(8080, "TCP", "http"),)), API),
        ),
        {"any 8080/6 -> app/p#ingress[0]"},
    ),
    "a named port of each destination": (
        cluster(
            from_web(Rule((), (NAMED,))),
            pods=(
                WEB,
                replace(API, ports=(ContainerPort(81, "TCP", "http"),)),
                replace(OTHER, ports=(ContainerPort(82, "TCP", "http"),)),
            ),
        ),
        {"10.0.0.2 81/6 -> app/p#egress[0]", "10.0.0.3 82/6 -> app/p#egress[0]"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_policy_becomes_these_entries(case: str) -> None:
    given, expected = CASES[case]
    assert readable(compile_tables(given, "here", INTERFACES)) == expected


def test_two_runs_give_equal_tables() -> None:
    given = cluster(to_web(Rule((FROM_API,))), from_web(Rule()))
    runs = [compile_tables(given, "here", INTERFACES) for _ in range(2)]
    assert list(runs[0].policy.items()) == list(runs[1].policy.items())
    assert runs[0] == runs[1]


def test_nodes_and_pods_have_their_identities() -> None:
    host = Pod("app", "host", ips=("10.9.0.1",), node="here", host_network=True)
    done = replace(OTHER, name="done", ips=("10.0.0.9",), phase="Succeeded")
    tables = compile_tables(cluster(pods=(WEB, API, OTHER, host, done)), "here", INTERFACES)
    assert tables.addresses["10.9.0.1"].identity == IDENTITY_HOST
    assert tables.addresses["10.9.0.2"].identity == IDENTITY_REMOTE_NODE
    assert "10.0.0.9" not in tables.addresses
    assert tables.cidrs[CidrKey(0, "10.0.0.0/24")].flags == CidrFlag.IN_CLUSTER


class TestChanging:
    def test_a_new_pod_of_a_known_kind_changes_one_address(self) -> None:
        given = cluster(to_web(Rule((FROM_API,))))
        compiler = in_force(given)
        before = compiler.tables()
        more = replace(API, name="api-2", ips=("10.0.0.7",))
        compiler.apply([PodChange(more.key, more)])
        entry = before.addresses["10.0.0.2"]
        assert compiler.plan() == (MapWrite(Table.ADDRESSES, "10.0.0.7", entry),)
        assert compiler.tables() == replace(
            before, addresses={**before.addresses, "10.0.0.7": entry}
        )

    def test_a_pod_that_becomes_another_known_kind_is_one_write_and_reopens_nothing(self) -> None:
        compiler = in_force(cluster(to_web(Rule((FROM_API,))), pods=(WEB, API, OTHER)))
        near = replace(WEB, name="near", ips=("10.0.0.7",), node="there")
        compiler.apply([PodChange(near.key, near)])
        compiler.plan()
        compiler.commit()
        near = replace(near, labels=API.labels)
        compiler.apply([PodChange(near.key, near)])
        entry = compiler.tables().addresses["10.0.0.2"]
        assert compiler.plan() == (MapWrite(Table.ADDRESSES, "10.0.0.7", entry),)

    def test_a_changed_policy_is_a_new_group_and_generation_for_its_pods_only(self) -> None:
        compiler = in_force(cluster(to_web()))
        before = compiler.tables()
        compiler.apply([PolicyChange("app/p", to_web(Rule()))])
        compiler.plan()
        after = compiler.tables()
        web, api = after.endpoints[5], after.endpoints[6]
        assert web.group not in {k.group for k in before.policy} | {before.endpoints[5].group}
        assert web.generation > max(e.generation for e in before.endpoints.values())
        assert api == before.endpoints[6]

    def test_only_what_a_policy_says_makes_a_new_group(self) -> None:
        compiler = in_force(cluster(to_web(Rule())))
        compiler.apply([PolicyChange("app/p", replace(to_web(Rule()), labels={"team": "x"}))])
        assert compiler.plan() == ()

    def test_connections_of_who_let_a_lost_address_in_are_judged_again(self) -> None:
        compiler = in_force(cluster(to_web(Rule((FROM_API,)))))
        compiler.apply([PodChange(OTHER.key, None)])
        assert compiler.plan() == (MapWrite(Table.ADDRESSES, "10.0.0.3", None),)
        compiler.commit()
        before = compiler.tables().endpoints[5].generation
        compiler.apply([PodChange(API.key, None), InterfaceChange(API.key, None)])
        compiler.plan()
        assert compiler.tables().endpoints[5].generation > before

    def test_connections_are_judged_again_after_the_address_is_gone_not_before(self) -> None:
        compiler = in_force(cluster(to_web(Rule((FROM_API,)))))
        compiler.apply([PodChange(API.key, replace(API, labels={}))])
        tables = [w.table for w in compiler.plan() if w.table in (Table.ADDRESSES, Table.ENDPOINTS)]
        assert tables == [Table.ADDRESSES, Table.ENDPOINTS]

    def test_equal_policies_share_a_group(self) -> None:
        everyone = NetworkPolicy("app", "p", ingress=(Rule(),))
        tables = compile_tables(cluster(everyone), "here", INTERFACES)
        assert tables.endpoints[5].group == tables.endpoints[6].group

    def test_after_a_restart_no_number_means_something_else_than_in_the_kernel(self) -> None:
        given = cluster(to_web(Rule((FROM_API,))), pods=(WEB, API, OTHER))
        kernel = compile_tables(given, "here", INTERFACES)
        changed = replace(given, pods=(API, OTHER, replace(WEB, labels={"app": "new"})))
        compiler = Compiler("here", Registry.following(kernel))
        compiler.become(Inputs(changed, INTERFACES))
        again = compiler.tables()
        old = {e.identity for e in kernel.addresses.values() if e.identity >= 256}
        assert old.isdisjoint(e.identity for e in again.addresses.values())
        assert again.endpoints[6].endpoint == kernel.endpoints[6].endpoint

    def test_a_policy_outlives_its_deletion_while_its_namespace_terminates(self) -> None:
        compiler = in_force(cluster(to_web()))
        dying = Namespace("app", {NAME_LABEL: "app"}, terminating=True)
        compiler.apply([PolicyChange("app/p", None), NamespaceChange("app", dying)])
        assert compiler.plan() == ()
        compiler.apply([PodChange(WEB.key, None), PodChange(API.key, None)])
        assert compiler.tables().policy == {}
        assert compiler.tables().endpoints == {}


T1 = Tenant("t1", allow_from=(Grant("t2", (Port("TCP", 5432),)),))
T2 = Tenant("t2", allow_to=(Grant("t1"),))
INGRESS = SharedComponent("ingress", ("edge",), host_network=True)


def walled(mode: Mode, labels: Mapping[str, str] | None = None) -> Cluster:
    config = TenantConfig({"t1": T1, "t2": T2}, "client", mode, shared=(INGRESS,))
    namespaces = {n: Namespace(n) for n in ("app", "other", "edge")}
    namespaces["other"] = Namespace("other", labels or {})
    edge = Pod("edge", "nginx", ips=("10.0.0.8",))
    return replace(
        cluster(pods=(WEB, API, replace(OTHER, node="here"), edge)),
        namespaces=namespaces,
        config=config,
        tenants={"app": "t1"},
    )


class TestWall:
    def test_it_lets_in_own_tenant_shared_components_and_grants(self) -> None:
        tables = compile_tables(walled(Mode.STRICT), "here", INTERFACES)
        ids = tenant_ids(["t1", "t2"])
        edge = tables.addresses["10.0.0.8"].identity
        wall = tables.endpoints[5].wall
        entries = {
            (k.peer, k.port, tables.rules[r]) for k, r in tables.policy.items() if k.group == wall
        }
        assert entries == {
            (PEER_TENANT | ids["t1"], 0, "tenant/t1#own"),
            (edge, 0, "tenant/t1#shared[ingress]"),
            (IDENTITY_HOST, 0, "tenant/t1#shared[ingress]"),
            (IDENTITY_REMOTE_NODE, 0, "tenant/t1#shared[ingress]"),
            (PEER_TENANT | ids["t2"], 5432, "tenant/t1#allowFrom[t2]"),
        }
        assert tables.walls == {wall: "tenant/t1#wall"}

    @pytest.mark.parametrize(
        ("mode", "flags"),
        [
            (Mode.STRICT, EndpointFlag.READY | EndpointFlag.WALL | EndpointFlag.REACH),
            (
                Mode.AUDIT,
                EndpointFlag.READY
                | EndpointFlag.WALL
                | EndpointFlag.WALL_AUDIT
                | EndpointFlag.ISOLATED_INGRESS
                | EndpointFlag.AUDIT_INGRESS
                | EndpointFlag.USES_CIDR,
            ),
            (Mode.OVERRIDABLE, EndpointFlag.READY),
        ],
        ids=lambda v: str(v),
    )
    def test_the_mode_says_how_it_acts(self, mode: Mode, flags: EndpointFlag) -> None:
        tables = compile_tables(walled(mode), "here", INTERFACES)
        assert tables.endpoints[5].flags == flags

    @pytest.mark.parametrize("mode", Mode)
    def test_a_label_without_record_is_walled_in_whatever_the_mode(self, mode: Mode) -> None:
        given = walled(mode, labels={"client": "t1"})
        tables = compile_tables(given, "here", {**INTERFACES, "other/x": 7})
        address, endpoint = tables.addresses["10.0.0.3"], tables.endpoints[7]
        assert (address.tenant, address.flags) == (0, AddressFlag.QUARANTINE)
        assert tables.walls[endpoint.wall] == "quarantine/other#wall"


def test_tenant_ids_depend_on_the_name_alone_and_fit_beside_the_tenant_bit() -> None:
    few, many = tenant_ids(["a", "b"]), tenant_ids([f"t{i}" for i in range(1000)] + ["b", "a"])
    assert (few["a"], few["b"]) == (many["a"], many["b"])
    assert len(set(many.values())) == 1002
    assert all(0 < number < PEER_TENANT for number in many.values())


def test_directions_are_isolated_separately() -> None:
    tables = compile_tables(cluster(from_web()), "here", INTERFACES)
    endpoint = tables.endpoints[5]
    assert endpoint.flags == EndpointFlag.READY | EndpointFlag.ISOLATED_EGRESS
    assert tables.isolating == {(endpoint.group, Dir.EGRESS): ("app/p",)}


ASKS = Rule((), (PolicyPort("TCP", 8080),))
"""Anybody at the port of the shop's backends."""


def shop(*backends: str, address: str = "10.96.0.1") -> Cluster:
    """A cluster with a Service whose EndpointSlice lists these addresses."""
    found = tuple(SliceEndpoint((a,)) for a in backends)
    return replace(
        cluster(from_web(Rule((FROM_API,)), ASKS)),
        services=(Service("app", "shop", cluster_ips=(address,), ports=(ServicePort(80),)),),
        slices=(EndpointSlice("app", "shop-1", "shop", found, (SlicePort(8080),)),),
    )


def backends_of(cluster: Cluster) -> Mapping[ServiceKey, tuple[Backend, ...]]:
    return compile_tables(cluster, "here", INTERFACES).services


KEY = ServiceKey("10.96.0.1", 80, "TCP")


def test_backends_that_policies_cannot_tell_apart_are_one() -> None:
    more = Pod("app", "api-2", {"app": "api"}, ips=("10.0.0.4",), node="there")
    asked = shop("10.0.0.2", "10.0.0.4", "10.0.0.3")
    asked = replace(asked, pods=(*asked.pods, more))
    assert backends_of(asked) == {KEY: (Backend("10.0.0.2", 8080), Backend("10.0.0.3", 8080))}


@pytest.mark.parametrize(
    ("rules", "stored"),
    [
        pytest.param((ASKS,), True, id="anybody at the port of a backend"),
        pytest.param((Rule((), (PolicyPort("TCP", 80),)),), True, id="anybody at its own port"),
        pytest.param((Rule((), (PolicyPort("UDP", 80),)),), False, id="another protocol"),
        pytest.param((Rule((), (PolicyPort("TCP", 81, 8079),)),), False, id="other ports"),
        pytest.param((Rule((FROM_API,)),), True, id="a backend's labels"),
        pytest.param((Rule((Peer(ip_block=IPBlock("10.96.0.0/16")),)),), True, id="its block"),
        pytest.param((Rule((Peer(ip_block=IPBlock("10.0.0.0/24")),)),), True, id="a backend's"),
        pytest.param((Rule((Peer(ip_block=IPBlock("192.0.2.0/24")),)),), False, id="elsewhere"),
        pytest.param((), False, id="nobody"),
    ],
)
def test_services_are_stored_where_an_isolated_pod_may_ask_for_them(
    rules: tuple[Rule, ...], *, stored: bool
) -> None:
    given = shop("10.0.0.2")
    policy = from_web(*rules)
    assert (KEY in backends_of(replace(given, policies=(policy,)))) is stored
    compiler = in_force(replace(given, policies=()))
    assert compiler.tables().services == {}
    compiler.apply([PolicyChange(policy.key, policy)])
    assert (KEY in compiler.tables().services) is stored
    compiler.apply([PolicyChange(policy.key, None)])
    assert compiler.tables().services == {}


def test_nodes_and_outside_addresses_are_each_their_own_kind() -> None:
    outside = ("10.9.0.2", "192.0.2.1", "192.0.2.2")
    assert [b.address for b in backends_of(shop(*outside))[KEY]] == list(outside)


def test_service_with_more_kinds_of_backends_than_fit_is_closed() -> None:
    addresses = [f"192.0.2.{i}" for i in range(1, SERVICE_BACKENDS + 2)]
    assert len(backends_of(shop(*addresses[:-1]))[KEY]) == SERVICE_BACKENDS
    assert backends_of(shop(*addresses)) == {KEY: ()}


def test_address_of_a_pod_is_no_service() -> None:
    assert backends_of(shop("10.0.0.2", address="10.0.0.3")) == {}


KEEP = {KEEP_ANNOTATION: "true"}


@pytest.mark.parametrize(
    ("namespace", "annotated", "kept"),
    [
        pytest.param({}, (), False, id="nobody says so"),
        pytest.param(KEEP, (), True, id="the namespace"),
        pytest.param({KEEP_ANNOTATION: "yes"}, (), False, id="another value"),
        pytest.param({}, ("p", "q"), True, id="every policy"),
        pytest.param({}, ("p",), False, id="one of two policies"),
    ],
)
def test_open_connections_are_kept_where_the_namespace_or_all_policies_say_so(
    namespace: Mapping[str, str], annotated: tuple[str, ...], kept: bool
) -> None:
    policies = [to_web(name=n) for n in ("p", "q")]
    wished = [replace(p, annotations=KEEP if p.name in annotated else {}) for p in policies]
    asked = cluster(*wished)
    app = replace(asked.namespaces["app"], annotations=namespace)
    asked = replace(asked, namespaces={**asked.namespaces, "app": app})
    flags = compile_tables(asked, "here", INTERFACES).endpoints[5].flags
    assert (EndpointFlag.KEEP_INGRESS in flags) is kept


def test_generated_policies_are_not_asked_for_the_wish() -> None:
    generated = replace(to_web(name="tenant-isolation"), labels={MANAGED_BY: MANAGER})
    wished = replace(to_web(), annotations=KEEP)
    for policies, kept in (((generated, wished), True), ((generated,), False)):
        tables = compile_tables(cluster(*policies), "here", INTERFACES)
        assert (EndpointFlag.KEEP_INGRESS in tables.endpoints[5].flags) is kept
