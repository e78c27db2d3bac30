"""A trace tells the evaluator's story: who the ends are, what each rule said, and what to add."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from generators.cluster import Cluster
from generators.reachability.explain import Trace, trace
from generators.reachability.matrix import PortProtocol, single_question
from generators.reachability.packets import Question
from generators.reachability.reference import Evaluator
from generators.reachability.verdicts import Reason, Verdict, for_packets
from tests.enforcer import clusters
from tests.generators.builders import TENANTS, cluster, documents, namespace, node, pod, policy

WEB = "containers: [{ports: [{containerPort: 8080, name: web}]}]"


def told(of: Cluster, source: str, destination: str, port: str = "80/TCP") -> Trace:
    question = single_question(of, source, destination, PortProtocol.parse(port))
    return trace(Evaluator(of), question)


@pytest.mark.parametrize(
    ("rule", "port", "why"),
    [
        ("{from: [{podSelector: {matchLabels: {app: b}}}]}", 80, "pod x/a has app=a, wanted app=b"),
        ("{from: [{podSelector: {matchLabels: {z: b}}}]}", 80, "pod x/a has no z, wanted z=b"),
        (
            "{from: [{namespaceSelector: {matchLabels: {team: t}}}]}",
            80,
            "namespace x has team=u, wanted team=t",
        ),
        (
            "{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}",
            80,
            "10.244.1.1 is not in 192.0.2.0/24",
        ),
        (
            "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.0/16]}}]}",
            80,
            "10.244.1.1 is not in 10.0.0.0/8 except 10.244.0.0/16",
        ),
        ("{ports: [{port: 81}]}", 80, "80/TCP is not port 81/TCP"),
        ("{ports: [{port: 81, endPort: 90}]}", 80, "80/TCP is not port 81-90/TCP"),
        ("{ports: [{protocol: UDP}]}", 80, "80/TCP is not any UDP port"),
        ("{ports: [{port: web}]}", 80, 'port "web"/TCP is 8080 on x/s'),
        ("{ports: [{port: nope}]}", 80, 'x/s has no port "nope"/TCP'),
        (
            "{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 81}]}",
            80,
            "pod x/a has app=a, wanted app=b; 80/TCP is not port 81/TCP",
        ),
    ],
)
def test_a_rule_that_does_not_match_says_which_part_does_not(
    rule: str, port: int, why: str
) -> None:
    of = cluster(
        namespace("x", "team: u"),
        pod("x/a", "10.244.1.1"),
        pod("x/s", "10.244.1.2", WEB),
        policy("x/p", f"podSelector: {{}}, ingress: [{rule}]"),
    )
    (note,) = told(of, "x/a", "x/s", f"{port}/TCP").ingress
    assert (note.rule, note.matched, note.why) == ("x/p#ingress[0]", False, why)


def test_a_rule_that_matches_is_read_out() -> None:
    spec = (
        "podSelector: {}, ingress: [{from: [{podSelector: {}, namespaceSelector: {matchLabels: "
        "{kubernetes.io/metadata.name: y}}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]"
    )
    (note,) = told(cluster(pod("y/a"), pod("x/s"), policy("x/p", spec)), "y/a", "x/s").ingress
    assert note.why == (
        "pods <all> in namespaces kubernetes.io/metadata.name=y or 10.0.0.0/8; port 80/TCP"
    )


def test_a_policy_without_rules_says_so() -> None:
    (note,) = told(cluster(pod("x/a"), pod("x/b"), policy("x/p")), "x/a", "x/b").ingress
    assert (note.rule, note.why) == (
        "x/p",
        "it has no ingress rules: it isolates and allows nothing",
    )


def test_what_to_add_is_a_rule_that_allows_it() -> None:
    both = "podSelector: {}, policyTypes: [Ingress, Egress]"
    of = cluster(pod("x/a"), pod("y/b"), policy("x/p", both), policy("y/p", both))
    egress, ingress = told(of, "x/a", "y/b").to_allow
    add = egress.split(":\n", 1)[1].replace("\n", "\n  "), ingress.split(":\n", 1)[1]
    wider = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: w, "
    wider += "namespace: {}}}\nspec:\n  podSelector: {{}}\n  {}"
    more = cluster(
        pod("x/a"),
        pod("y/b"),
        wider.format("x", add[0]),
        wider.format("y", add[1].replace("\n", "\n  ")),
    )
    assert told(of, "x/a", "y/b").cell.verdict is Verdict.DROPPED
    assert told(more, "x/a", "y/b").cell.verdict is Verdict.FORWARDED


@pytest.mark.parametrize(
    ("source", "wall"),
    [
        ("a-blue/b", "let in by tenant/blue#own"),
        ("ingress/n", "let in by tenant/blue#shared[ingress]"),
        ("ip/203.0.113.9", "let in: it comes from outside the cluster"),
        (
            "free/f",
            "kept out by tenant/blue#wall: the source belongs to a namespace without a tenant: "
            "not its own, not shared, no grant for 80/TCP",
        ),
        (
            "ip/192.168.0.2",
            "kept out by tenant/blue#wall: source masked: "
            "a node's address does not say which pod is behind it",
        ),
        (
            "ip/10.244.200.200",
            "kept out by tenant/blue#wall: no pod has this address of the pod ranges",
        ),
        ("ip/192.168.0.1", "not asked: HOST"),
        ("a-blue/a", "not asked: SELF"),
    ],
)
def test_the_walls_word(source: str, wall: str) -> None:
    of = cluster(
        node("n1", "192.168.0.1"),
        node("n2", "192.168.0.2"),
        pod("a-blue/a", spec="nodeName: n1"),
        pod("a-blue/b"),
        pod("ingress/n"),
        pod("free/f"),
        tenants=TENANTS,
    )
    assert told(of, source, "a-blue/a").wall == wall


def test_where_there_is_no_wall_the_trace_says_why() -> None:
    pods = (pod("a-blue/a"), pod("free/f"))
    overridable = TENANTS.replace("labelKey", "mode: overridable\nlabelKey")
    assert told(cluster(*pods), "free/f", "a-blue/a").wall.endswith("no tenant file was given")
    assert (
        "mode overridable" in told(cluster(*pods, tenants=overridable), "free/f", "a-blue/a").wall
    )
    assert told(cluster(*pods, tenants=TENANTS), "a-blue/a", "free/f").wall == (
        "no wall: namespace free belongs to no tenant"
    )


@given(clusters.clusters())
def test_any_cell_can_be_explained_and_the_notes_agree_with_it(of: Cluster) -> None:
    evaluator = Evaluator(of)
    for question in clusters.questions(of, ports=(80,)):
        found = trace(evaluator, question)
        sides = ((found.cell.egress, found.egress), (found.cell.ingress, found.ingress))
        for judgement, notes in sides:
            if judgement.reason is Reason.POLICY_ALLOWED:
                assert judgement.rule in [note.rule for note in notes if note.matched]
            if judgement.reason is Reason.POLICY_DENIED:
                assert not any(note.matched for note in notes)
            assert all(note.why for note in notes)
        passes = for_packets(found.cell.verdict) is Verdict.FORWARDED
        assert bool(found.to_allow) != passes


def followed(of: Cluster, question: Question, found: Trace) -> Cluster:
    """The cluster after somebody has written every rule that the trace asks for."""
    (packet,) = Evaluator(of).packets(question)
    more = []
    for hint in found.to_allow:
        head, _, rule = hint.partition(":\n")
        subject = (
            packet.source.pod if head.startswith("to allow egress") else packet.destination.pod
        )
        if not rule or subject is None:
            continue
        body = rule.replace("\n", "\n  ")
        direction = "Egress" if head.startswith("to allow egress") else "Ingress"
        more.append(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
            f"metadata: {{name: hint-{direction.lower()}, namespace: {subject.namespace}}}\n"
            f"spec:\n  podSelector: {{}}\n  policyTypes: [{direction}]\n  {body}"
        )
    return replace(of, policies=(*of.policies, *documents(*more).policies) if more else of.policies)


@given(clusters.clusters())
def test_whoever_follows_the_hints_of_a_trace_gets_through(of: Cluster) -> None:
    evaluator = Evaluator(of)
    by_policies = (Reason.POLICY_DENIED, Reason.UNKNOWN_L4_PROTOCOL)
    for question in clusters.questions(of, ports=(80,)):
        found = trace(evaluator, question)
        denied = [j for j in (found.cell.egress, found.cell.ingress) if j.reason in by_policies]
        # A Service needs as many rules as it has backends that differ; the trace tells of one.
        if found.service or not denied or len(denied) != len(found.to_allow):
            continue
        after = Evaluator(followed(of, question, found)).cell(question)
        assert after.verdict is not Verdict.DROPPED, found.to_allow
