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
from tests.generators.builders import cluster, namespace, pod, policy

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
