"""Scenario files with real packets: verdicts, reasons and rules are those of the evaluator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from generators.cluster import Cluster
from generators.reachability.classes import evaluate
from generators.reachability.matrix import cell_document, questions
from tests.conftest import Run
from tests.lab.conftest import Cell, Key, Lab, fresh
from tests.scenarios import loader

pytestmark = pytest.mark.bpf

MARKED = [path for path in loader.paths() if loader.said_in(path).get("realPackets")]
WALLS = [path for path in MARKED if loader.tenants_beside(path).exists()]
POLICIES = [path for path in MARKED if path not in WALLS]


@pytest.fixture(scope="module")
def lab(ringfence: Run) -> Iterator[Lab]:
    """A lab without tenants; each scenario comes and goes."""
    with fresh(ringfence) as lab:
        lab.ok("up")
        yield lab


def evaluated(cluster: Cluster) -> dict[Key, dict[str, object]]:
    asked = [question for question in questions(cluster) if question.protocol != "SCTP"]
    return {
        (q.source, q.destination, q.protocol, q.port, q.family.value): cell_document(cell)
        for q, cell in zip(asked, evaluate(cluster, asked), strict=True)
    }


def agree(probed: dict[Key, Cell], expected: dict[Key, dict[str, object]]) -> None:
    """The same, but that nothing is known of the ingress of what was dropped before."""
    assert probed.keys() == expected.keys()
    assert probed
    for key, cell in probed.items():
        wanted = dict(expected[key])
        if cell["egress"] is not None and cell["egress"]["verdict"] == "DROPPED":
            wanted["ingress"] = None
        assert cell == wanted


def change(lab: Lab, step: loader.Step) -> None:
    """Do what happens next as a user would."""
    if objects := step.get("apply"):
        lab.ok("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    for item in step.get("delete", []):
        lab.ok("delete", *item.split(" "))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_policies_mean_to_packets_what_they_mean_to_the_evaluator(lab: Lab, path: Path) -> None:
    scenario = loader.load(path)
    lab.ok("apply", "-f", path)
    try:
        agree(lab.probe(), evaluated(scenario.cluster))
        steps = scenario.said.get("then", [])
        for step, moment in zip(steps, scenario.moments[1:], strict=True):
            change(lab, step)
            agree(lab.probe(), evaluated(moment.cluster))
    finally:
        there = {pod.namespace for pod in scenario.moments[-1].cluster.pods}
        lab.ok("delete", "namespace", *sorted(there))


@pytest.mark.parametrize("path", WALLS, ids=lambda path: path.stem)
def test_the_wall_means_to_packets_what_it_means_to_the_evaluator(
    ringfence: Run, path: Path
) -> None:
    with fresh(ringfence) as lab:
        lab.ok("up", "-f", path)
        lab.ok("apply", "-c", loader.tenants_beside(path))
        agree(lab.probe(), evaluated(loader.load(path).cluster))
