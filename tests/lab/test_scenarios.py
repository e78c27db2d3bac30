"""Scenario files with real packets: verdicts, reasons and rules are those of the evaluator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from generators.matrix import cell_document, questions
from generators.reachability import evaluate
from tests.conftest import Run
from tests.lab.conftest import Cell, Key, Lab, fresh
from tests.scenarios import loader

pytestmark = pytest.mark.bpf

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
    cluster = loader.load(loader.HERE / f"{name}.yaml").cluster
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
    path = loader.HERE / f"{name}.yaml"
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
        lab.ok("up", "-f", loader.HERE / f"{name}.yaml")
        lab.ok("apply", "-c", loader.HERE / f"{name}.tenants.yaml")
        agree(lab.probe(), evaluated(name))
