"""Every scenario file comes out as it says, by every engine that needs no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.matrix import answer
from generators.verdicts import Verdict
from tests.scenarios import loader

SCENARIOS = loader.paths()
ENGINES = ("evaluate", "maps")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_connections_pass_exactly_where_the_scenario_says(path: Path, engine: str) -> None:
    scenario = loader.load(path)
    expected = scenario.expected()
    cells = answer(engine, scenario.cluster, tuple(expected))
    found = {
        question: cell.verdict is not Verdict.DROPPED
        for question, cell in zip(expected, cells, strict=True)
    }
    assert found == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_verdicts_carry_the_reason_and_rule_that_the_scenario_says(path: Path, engine: str) -> None:
    scenario = loader.load(path)
    for expected in scenario.verdicts:
        (cell,) = answer(engine, scenario.cluster, [scenario.question(expected)])
        deciding = cell.ingress if cell.ingress.verdict is cell.verdict else cell.egress
        found = {"verdict": cell.verdict, "reason": deciding.reason, "rule": deciding.rule}
        wanted = {key: expected[key] for key in ("verdict", "reason", "rule") if key in expected}
        assert {key: found[key] for key in wanted} == wanted, expected


def test_the_tests_found_the_scenarios() -> None:
    assert len(SCENARIOS) >= 15
