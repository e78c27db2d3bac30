"""The compiled entries say what the reference evaluator says, down to the rule that decides."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from enforcer.engine import maps
from generators.cluster import Cluster
from generators.reachability import evaluate
from tests.enforcer.clusters import clusters, questions


@pytest.mark.timeout(300)  # shrinking a failure takes a while
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters())
def test_compiled_entries_answer_every_question_as_the_evaluator_does(cluster: Cluster) -> None:
    asked = questions(cluster)
    expected = evaluate(cluster, asked)
    answers = maps(cluster, asked)
    for wanted, answer in zip(expected, answers, strict=True):
        assert answer == wanted
