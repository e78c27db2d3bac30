"""Every scenario file comes out as it says, by every engine, at every moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from enforcer.datapath import engine as engines
from enforcer.datapath import testrun
from generators.cluster import Cluster
from generators.reachability import matrix
from generators.reachability.matrix import answer
from generators.reachability.packets import Question
from generators.reachability.verdicts import Cell, Verdict
from tests.scenarios import loader

SCENARIOS = loader.paths()
ENGINES = ["evaluate", "maps", pytest.param("kernel", marks=pytest.mark.bpf)]

Ask = Callable[[Cluster, Sequence[Question]], Iterable[Cell]]

load = cache(loader.load)


@pytest.fixture(scope="module", params=ENGINES)
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """An engine; the kernel's programs are loaded once for all scenarios."""
    if request.param != "kernel":
        yield partial(answer, request.param)
        return
    with testrun.loaded() as judge:
        yield lambda cluster, asked: engines.answer(cluster, asked, judge)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_connections_pass_exactly_where_the_scenario_says(path: Path, ask: Ask) -> None:
    for moment in load(path).moments:
        expected = moment.expected()
        cells = ask(moment.cluster, tuple(expected))
        found = {
            question: cell.verdict is not Verdict.DROPPED
            for question, cell in zip(expected, cells, strict=True)
        }
        assert found == expected, moment.what
        assert expected, moment.what


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_verdicts_carry_the_reason_and_rule_that_the_scenario_says(path: Path, ask: Ask) -> None:
    for moment in load(path).moments:
        asked = [moment.question(expected) for expected in moment.verdicts]
        for expected, cell in zip(moment.verdicts, ask(moment.cluster, asked), strict=True):
            wanted = {
                key: expected[key] for key in ("verdict", "reason", "rule") if key in expected
            }
            # The cell's verdict is that of the direction, or directions, that decided.
            found = [
                {"verdict": said.verdict, "reason": said.reason, "rule": said.rule}
                for said in (cell.egress, cell.ingress)
                if said.verdict is cell.verdict
            ]
            shown = [{key: said[key] for key in wanted} for said in found]
            assert wanted in shown, (moment.what, expected)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_cell_is_the_evaluator_s_down_to_the_rule(path: Path, ask: Ask) -> None:
    for moment in load(path).moments:
        asked = tuple(moment.expected())
        expected = answer(matrix.EVALUATE, moment.cluster, asked)
        assert tuple(ask(moment.cluster, asked)) == tuple(expected), moment.what


def test_every_engine_is_an_entry_point_or_the_evaluator() -> None:
    installed = {point.name for point in entry_points(group=matrix.ENGINES)}
    assert {"evaluate", *installed} == {"evaluate", "maps", "kernel"}


def test_the_tests_found_the_scenarios() -> None:
    assert len(SCENARIOS) >= 60
    assert sum(path.name.startswith("recipe-") for path in SCENARIOS) == 15


def test_each_scenario_says_first_what_it_claims() -> None:
    for path in SCENARIOS:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), path
        assert first.endswith("."), path
