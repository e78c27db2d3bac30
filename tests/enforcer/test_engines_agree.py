"""The compiled entries say what the reference evaluator says, down to the rule that decides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from enforcer import testrun
from enforcer.engine import Judge, answer, maps
from generators.cluster import Cluster
from generators.reachability import evaluate
from tests.enforcer.clusters import PORTS, clusters, questions


@pytest.mark.timeout(300)  # shrinking a failure takes a while
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters())
def test_compiled_entries_answer_every_question_as_the_evaluator_does(cluster: Cluster) -> None:
    asked = questions(cluster)
    expected = evaluate(cluster, asked)
    answers = maps(cluster, asked)
    for wanted, found in zip(expected, answers, strict=True):
        assert found == wanted


@pytest.fixture(scope="module")
def kernel_judge() -> Iterator[Judge]:
    with testrun.loaded() as judge:
        yield judge


@pytest.mark.bpf
@pytest.mark.timeout(300)
@settings(
    max_examples=50,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking on the kernel takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
@given(cluster=clusters())
def test_the_kernel_answers_every_question_as_the_evaluator_does(
    kernel_judge: Judge, cluster: Cluster
) -> None:
    asked = questions(cluster, PORTS[:4])
    expected = evaluate(cluster, asked)
    answers = answer(cluster, asked, kernel_judge)
    for wanted, found in zip(expected, answers, strict=True):
        assert found == wanted
