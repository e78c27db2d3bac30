"""Pods that are alike are asked about once; every answer is the evaluator's all the same."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generators.addresses import Family
from generators.cluster import Cluster
from generators.reachability.classes import Answers, evaluate, table
from generators.reachability.grid import grid_text, table_of
from generators.reachability.matrix import PortProtocol, questions
from generators.reachability.reference import Evaluator
from tests.enforcer import clusters
from tests.generators.builders import TENANTS, cluster, namespace, pod, policy

PORTS = [PortProtocol(80, "TCP"), PortProtocol(8080, "TCP"), PortProtocol(0, "ICMP")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_every_answer_is_what_the_evaluator_says_of_that_very_pair(of: Cluster) -> None:
    asked = clusters.questions(of, ports=(80, 8080))
    evaluator = Evaluator(of)
    assert list(evaluate(of, asked)) == [evaluator.cell(question) for question in asked]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters(), st.booleans())
def test_the_table_draws_the_cells(of: Cluster, outside: bool) -> None:
    asked = questions(of, PORTS, clusters.EXTERNALS if outside else ())
    drawn = "".join(grid_text(table(of, asked)))
    assert drawn == "".join(grid_text(table_of(evaluate(of, asked))))
    assert len(asked) == len(tuple(asked))


def test_replicas_are_one_class_and_what_a_policy_tells_apart_is_two() -> None:
    selects = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.2/32}}]}]"
    of = cluster(
        namespace("x"),
        *(pod(f"x/{name}", f"10.0.0.{last}") for name, last in (("a", 1), ("b", 2), ("c", 3))),
        policy("x/p", selects),
    )
    classes = Answers(of).classes
    members = {key: classes.of(f"x/{key}", Family.IPV4) for key in "abc"}
    assert members["a"] == members["c"] != members["b"]


def test_ports_and_families_that_a_rule_tells_apart_are_asked_about_by_themselves() -> None:
    """Both blocks are everything: by length and first address they are one, by version two."""
    rules = (
        "{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}, {port: 90, endPort: 92}]}, "
        "{from: [{ipBlock: {cidr: '::/0'}}], ports: [{port: 81}, {port: web}]}"
    )
    named = "containers: [{ports: [{name: web, containerPort: 95}]}]"
    of = cluster(
        pod("x/a", "10.0.0.1 fd00::1", named),
        pod("x/b", "10.0.0.2 fd00::2", named),
        policy("x/p", f"podSelector: {{}}, ingress: [{rules}]"),
    )
    asked = questions(of, [PortProtocol(port, "TCP") for port in (79, 80, 81, 82, *range(89, 97))])
    evaluator = Evaluator(of)
    assert list(evaluate(of, asked)) == [evaluator.cell(question) for question in asked]


def test_ports_that_only_the_tenant_file_tells_apart_are_asked_about_by_themselves() -> None:
    """Under audit there is no policy that names them, too."""
    ported = TENANTS.replace(
        "namespaces: {names: [ingress]}", "namespaces: {names: [ingress]}\n    ports: [{port: 80}]"
    ).replace("labelKey: client", "labelKey: client\nmode: audit")
    of = cluster(pod("ingress/i"), pod("a-blue/a"), pod("b-red/b"), tenants=ported)
    asked = questions(of, [PortProtocol(port, "TCP") for port in (79, 80, 81)])
    evaluator = Evaluator(of)
    found = list(evaluate(of, asked))
    assert found == [evaluator.cell(question) for question in asked]
    assert len({cell.verdict for cell in found if cell.source == "ingress/i"}) == 2
