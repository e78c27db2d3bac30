"""Corners of the evaluator that scenarios do not show: nodes, addresses, quarantine, reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from generators.addresses import Family
from generators.cluster import Cluster
from generators.objects import Direction, NetworkPolicy
from generators.reachability.classes import evaluate
from generators.reachability.verdicts import Judgement, Reason, Verdict
from tests.enforcer import clusters
from tests.generators.builders import (
    TENANTS,
    ask,
    cluster,
    namespace,
    node,
    pod,
    policy,
    recorded,
    said,
)

DENY_ALL = "podSelector: {}, policyTypes: [Ingress, Egress]"
NODES = (node("n1", "192.168.0.1 fd99::1"), node("n2", "192.168.0.2 fd99::2"))
ON_N1, ON_N2 = "nodeName: n1", "nodeName: n2"
HOST_N1, HOST_N2 = "nodeName: n1, hostNetwork: true", "nodeName: n2, hostNetwork: true"
MASKED = TENANTS.replace("  - name: blue", "  - name: blue\n    allowMasked: true")
SHARED_HOST = TENANTS.replace("{names: [ingress]}", "{names: [ingress]}\n    hostNetwork: true")


@pytest.mark.parametrize("port", ["80/TCP", "53/UDP", "9/SCTP"])
@pytest.mark.parametrize("family", Family)
def test_a_pod_always_reaches_itself(port: str, family: Family) -> None:
    of = cluster(pod("x/a"), policy("x/deny", DENY_ALL))
    cell = ask(of, "x/a", "x/a", port, family)
    assert (cell.egress, cell.ingress) == (Judgement(Verdict.FORWARDED, Reason.SELF),) * 2


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("x/host1", "x/a", "FORWARDED egress=NOT_ISOLATED ingress=HOST"),
        ("x/a", "x/host1", "FORWARDED egress=HOST ingress=NOT_ISOLATED"),
        ("ip/192.168.0.1", "x/a", "FORWARDED egress=NOT_ISOLATED ingress=HOST"),
        ("x/a", "ip/192.168.0.1", "FORWARDED egress=HOST ingress=NOT_ISOLATED"),
        ("x/host2", "x/a", "DROPPED egress=NOT_ISOLATED ingress=POLICY_DENIED"),
        ("x/a", "x/host2", "DROPPED egress=POLICY_DENIED ingress=NOT_ISOLATED"),
        ("x/host1", "x/host2", "FORWARDED egress=NOT_ISOLATED ingress=NOT_ISOLATED"),
        ("x/host1", "x/host1", "FORWARDED egress=NOT_ISOLATED ingress=NOT_ISOLATED"),
        ("x/nowhere", "x/a", "DROPPED egress=POLICY_DENIED ingress=POLICY_DENIED"),
        ("x/host0", "x/nowhere", "DROPPED egress=NOT_ISOLATED ingress=POLICY_DENIED"),
    ],
)
def test_a_pod_and_its_own_node_are_beyond_policy_and_other_nodes_are_not(
    source: str, destination: str, expected: str
) -> None:
    of = cluster(
        *NODES,
        pod("x/a", spec=ON_N1),
        pod("x/nowhere"),
        pod("x/host0", spec="hostNetwork: true"),
        pod("x/host1", spec=HOST_N1),
        pod("x/host2", spec=HOST_N2),
        policy("x/deny", DENY_ALL),
    )
    assert said(ask(of, source, destination)) == expected


@pytest.mark.parametrize(
    ("tenants", "source", "expected"),
    [
        (TENANTS, "a-blue/host1", "FORWARDED egress=NOT_ISOLATED ingress=HOST"),
        (TENANTS, "a-blue/host2", "DROPPED egress=NOT_ISOLATED ingress=UNKNOWN_SENDER"),
        (TENANTS, "ip/192.168.0.2", "DROPPED egress=NOT_ISOLATED ingress=UNKNOWN_SENDER"),
        (TENANTS, "ip/10.244.9.9", "DROPPED egress=NOT_ISOLATED ingress=UNKNOWN_SENDER"),
        (TENANTS, "ip/203.0.113.9", "FORWARDED egress=NOT_ISOLATED ingress=POLICY_ALLOWED"),
        (MASKED, "a-blue/host2", "FORWARDED egress=NOT_ISOLATED ingress=POLICY_ALLOWED"),
        (MASKED, "ip/10.244.9.9", "DROPPED egress=NOT_ISOLATED ingress=UNKNOWN_SENDER"),
        (SHARED_HOST, "a-blue/host2", "FORWARDED egress=NOT_ISOLATED ingress=POLICY_ALLOWED"),
        (SHARED_HOST, "ip/10.244.9.9", "DROPPED egress=NOT_ISOLATED ingress=UNKNOWN_SENDER"),
    ],
)
def test_the_wall_keeps_out_who_cannot_be_named(tenants: str, source: str, expected: str) -> None:
    of = cluster(
        *NODES,
        pod("a-blue/web", "10.244.1.9", ON_N1),
        pod("a-blue/host1", "192.168.0.1", HOST_N1),
        pod("a-blue/host2", "192.168.0.2", HOST_N2),
        policy("a-blue/open", "podSelector: {}, ingress: [{}]"),
        tenants=tenants,
    )
    assert said(ask(of, source, "a-blue/web")) == expected


def test_a_dropped_cell_names_the_wall_and_the_policies_that_isolate() -> None:
    of = cluster(pod("a-blue/web"), pod("a-red/web"), tenants=TENANTS)
    isolating = ("a-blue/allow-ingress-namespace",)
    assert ask(of, "a-red/web", "a-blue/web").ingress == Judgement(
        Verdict.DROPPED, Reason.TENANT_WALL, "tenant/blue#wall", isolating
    )


def test_a_namespace_of_nobody_has_no_wall() -> None:
    of = cluster(pod("a-blue/web"), pod("free/web"), tenants=TENANTS)
    assert said(ask(of, "a-blue/web", "free/web")) == (
        "FORWARDED egress=NOT_ISOLATED ingress=NOT_ISOLATED"
    )


QUARANTINE = (
    namespace("a-blue", "client: blue", uid="u1"),
    namespace("b-blue", "client: blue"),
    namespace("free"),
    namespace("ingress", "client: blue"),
    pod("a-blue/web", "10.244.1.1"),
    pod("b-blue/web", "10.244.1.2"),
    pod("b-blue/db", "10.244.1.3"),
    pod("free/web", "10.244.1.4"),
    pod("ingress/web", "10.244.1.5"),
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ringfence-record-0, namespace: "
    'ringfence-system}\ndata: {u1: \'{"namespace":"a-blue","tenant":"blue"}\'}',
)


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("b-blue/web", "a-blue/web", "DROPPED"),
        ("a-blue/web", "b-blue/web", "DROPPED"),
        ("b-blue/db", "b-blue/web", "FORWARDED"),
        ("free/web", "b-blue/web", "DROPPED"),
        ("ingress/web", "b-blue/web", "FORWARDED"),
        ("ingress/web", "a-blue/web", "FORWARDED"),
        ("b-blue/web", "free/web", "FORWARDED"),
        ("ip/203.0.113.9", "b-blue/web", "FORWARDED"),
        ("ip/10.244.9.9", "b-blue/web", "DROPPED"),
    ],
)
def test_a_tenant_label_without_a_record_puts_the_namespace_in_quarantine(
    source: str, destination: str, expected: str
) -> None:
    cell = ask(recorded(*QUARANTINE), source, destination)
    assert cell.verdict == expected
    if expected == "DROPPED" and destination == "b-blue/web":
        assert cell.ingress.rule == "quarantine/b-blue#wall"


def test_a_forged_label_selects_nothing() -> None:
    of = recorded(
        *QUARANTINE,
        policy(
            "free/from-blue",
            "podSelector: {}, ingress: "
            "[{from: [{namespaceSelector: {matchLabels: {client: blue}}}]}]",
        ),
    )
    assert ask(of, "a-blue/web", "free/web").verdict is Verdict.FORWARDED
    assert ask(of, "b-blue/web", "free/web").verdict is Verdict.DROPPED
    assert ask(of, "ingress/web", "free/web").verdict is Verdict.DROPPED


def test_a_completed_pod_is_nobody_and_its_address_belongs_to_the_next() -> None:
    allow_old = "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: old}}}]}]"
    of = cluster(
        pod("x/old", "10.244.1.1", phase="Succeeded"),
        pod("x/new", "10.244.1.1"),
        pod("x/server", "10.244.1.2"),
        policy("x/allow-old", allow_old),
    )
    assert ask(of, "x/new", "x/server").verdict is Verdict.DROPPED
    assert ask(of, "ip/10.244.1.1", "x/server").source == "ip/10.244.1.1"
    assert ask(of, "ip/10.244.1.1", "x/server").verdict is Verdict.DROPPED


def test_an_address_of_a_pod_is_judged_as_the_pod() -> None:
    allow = "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]"
    of = cluster(pod("x/a", "10.244.1.1"), pod("x/b", "10.244.1.2"), policy("x/p", allow))
    assert ask(of, "ip/10.244.1.1", "x/b").verdict is Verdict.FORWARDED


@pytest.mark.parametrize(
    ("ingress", "port", "passes"),
    [
        ("[{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: web}]}]", "8080/TCP", True),
        ("[{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: web}]}]", "80/TCP", False),
        ("[{ports: [{port: web}]}]", "8080/TCP", True),
        ("[{ports: [{port: web, protocol: UDP}]}]", "8080/UDP", False),
        ("[{ports: [{port: twice}]}]", "1001/TCP", True),
        ("[{ports: [{port: twice}]}]", "1002/TCP", False),
    ],
)
def test_named_ports_of_ingress_rules_are_the_selected_pods(
    ingress: str, port: str, passes: bool
) -> None:
    ports = "{containerPort: 8080, name: web}, {containerPort: 1001, name: twice}"
    spec = f"containers: [{{ports: [{ports}]}}, {{ports: [{{containerPort: 1002, name: twice}}]}}]"
    of = cluster(pod("x/a", spec=spec), policy("x/p", f"podSelector: {{}}, ingress: {ingress}"))
    assert (ask(of, "ip/203.0.113.9", "x/a", port).verdict is Verdict.FORWARDED) == passes


def test_the_first_matching_rule_by_policy_name_and_index_is_named() -> None:
    closed = "podSelector: {}, ingress: [{ports: [{port: 1}]}, {}, {}]"
    of = cluster(
        pod("x/a"), pod("x/b"), policy("x/b-open", closed), policy("x/a-closed", "podSelector: {}")
    )
    assert ask(of, "x/a", "x/b").ingress == Judgement(
        Verdict.FORWARDED, Reason.POLICY_ALLOWED, "x/b-open#ingress[1]", ("x/a-closed", "x/b-open")
    )


def test_a_policy_speaks_only_for_its_own_namespace() -> None:
    of = cluster(pod("x/a"), pod("y/a"), policy("x/deny", DENY_ALL))
    assert said(ask(of, "y/a", "x/a")).endswith("ingress=POLICY_DENIED")
    assert said(ask(of, "y/a", "y/a")) == "FORWARDED egress=SELF ingress=SELF"
    assert said(ask(of, "x/a", "y/a")) == "DROPPED egress=POLICY_DENIED ingress=NOT_ISOLATED"


@given(clusters.clusters())
def test_a_cell_is_the_worse_of_its_directions_and_names_a_rule_where_one_decided(
    of: Cluster,
) -> None:
    for cell in evaluate(of, clusters.questions(of, ports=(80,))):
        dropped = Verdict.DROPPED in (cell.egress.verdict, cell.ingress.verdict)
        assert (cell.verdict is Verdict.DROPPED) == dropped
        for judgement in (cell.egress, cell.ingress):
            decided = judgement.reason in (Reason.POLICY_ALLOWED, Reason.POLICY_DENY)
            assert (judgement.rule is not None and "#wall" not in judgement.rule) == decided
            # Where nothing isolates, what no rule denies passes by the policy that says so.
            spared = "enableDefaultDeny" in (judgement.rule or "")
            allowed = judgement.reason is Reason.POLICY_ALLOWED
            assert not allowed or bool(judgement.policies) != spared


@given(clusters.clusters(), clusters.network_policies)
def test_one_more_policy_never_closes_a_pod_that_is_isolated(
    of: Cluster, more: NetworkPolicy
) -> None:
    openness = (Verdict.DROPPED, Verdict.AUDIT, Verdict.REDIRECTED, Verdict.FORWARDED)
    both = frozenset(Direction)
    closed = tuple(NetworkPolicy(name, "zz", directions=both) for name in of.namespaces)
    before = replace(of, policies=(*of.policies, *closed))
    after = replace(before, policies=(*before.policies, replace(more, name="zzz")))
    asked = clusters.questions(of, ports=(80, 8080))
    for old, new in zip(evaluate(before, asked), evaluate(after, asked), strict=True):
        assert openness.index(new.verdict) >= openness.index(old.verdict)
