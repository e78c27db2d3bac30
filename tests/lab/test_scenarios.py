"""Scenario files with real packets: verdicts, reasons and rules are those of the evaluator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generators.cluster import from_objects
from generators.manifests import read
from generators.matrix import cell_document, questions
from generators.reachability import evaluate
from generators.tenants.load import load_tenants
from tests.conftest import Run
from tests.lab.conftest import Cell, Key, Lab, fresh

pytestmark = pytest.mark.bpf

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
WALLS = ("tenant-wall-strict", "tenant-wall-audit", "tenant-wall-overridable")
POLICIES = (
    "egress-and-ingress-both-decide",
    "ip-blocks",
    "named-port-differs-by-pod",
    "named-port-egress",
    "recipe-07-from-some-pods-of-another-namespace",
    "recipe-11-deny-egress-but-dns",
)


@pytest.fixture(scope="module")
def lab(ringfence: Run) -> Iterator[Lab]:
    """A lab without tenants; each scenario comes and goes."""
    with fresh(ringfence) as lab:
        lab.ok("up")
        yield lab


def evaluated(name: str) -> dict[Key, dict[str, object]]:
    tenants = SCENARIOS / f"{name}.tenants.yaml"
    config = load_tenants(tenants) if tenants.exists() else None
    cluster = from_objects(read([str(SCENARIOS / f"{name}.yaml")]), config)
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


@pytest.mark.parametrize("name", POLICIES)
def test_policies_mean_to_packets_what_they_mean_to_the_evaluator(lab: Lab, name: str) -> None:
    path = SCENARIOS / f"{name}.yaml"
    lab.ok("apply", "-f", path)
    try:
        agree(lab.probe(), evaluated(name))
    finally:
        for namespace in {key.split("/")[0] for key in ends(lab)}:
            lab.ok("delete", "namespace", namespace)


def ends(lab: Lab) -> list[str]:
    return [f"{pod['namespace']}/{pod['name']}" for pod in lab.status()["pods"]]


@pytest.mark.parametrize("name", WALLS)
def test_the_wall_means_to_packets_what_it_means_to_the_evaluator(
    ringfence: Run, name: str
) -> None:
    with fresh(ringfence) as lab:
        lab.ok("up", "-f", SCENARIOS / f"{name}.yaml")
        lab.ok("apply", "-c", SCENARIOS / f"{name}.tenants.yaml")
        agree(lab.probe(), evaluated(name))
