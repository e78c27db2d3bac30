"""The pages of what holds have no row without a test, and no scenario or rule is missing.

A row names its tests in backticks: `test_...` is a function below tests/, `scenario NAME` a file of
tests/scenarios/. A row without any says why, beginning with "none" or "no".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "semantics.md"
PAGES = (PAGE, *map(PAGE.with_name, ("consistency.md", "threats.md")))
TOLD = (
    "generators/reachability/test_protocols.py",
    "generators/reachability/test_reference.py",
    "generators/reachability/test_services.py",
)
"""Files whose every test is a rule that users have to know."""
TRIED = (
    *("bpf/test_encapsulation.py", "bpf/test_icmp.py", "bpf/test_link_layer.py"),
    *("bpf/test_spoofing.py", "shapes/test_shapes.py", "shapes/test_model_and_kernel_agree.py"),
)
"""Files whose every test is something that root in a pod can try."""
_NAMED = re.compile(r"`(scenario [a-z0-9-]+|test_\w+)`")
_CELLS = re.compile(r"(?<!\\)\|")


def rows() -> Iterator[tuple[str, str]]:
    """Page and line of each row, and its proof: the last cell of a table's line."""
    for page in PAGES:
        lines = page.read_text().splitlines()
        for number, line in enumerate(lines, start=1):
            ruled = number < len(lines) and lines[number].startswith("|--")
            if line.startswith("|") and not line.startswith("|--") and not ruled:
                yield f"{page.name}:{number}", _CELLS.split(line)[-2].strip()


ROWS = list(rows())


@cache
def functions() -> frozenset[str]:
    """Every test function below tests/."""
    return frozenset(name for path in TESTS.rglob("test_*.py") for name in functions_of(path))


def functions_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [name for name in found if name.startswith("test_")]


def exists(named: str) -> bool:
    kind, _, name = named.partition(" ")
    return (TESTS / "scenarios" / f"{name}.yaml").is_file() if name else kind in functions()


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 100


@pytest.mark.parametrize(("line", "proof"), ROWS, ids=[line for line, _ in ROWS])
def test_every_row_names_tests_that_exist(line: str, proof: str) -> None:
    named = _NAMED.findall(proof)
    assert named or proof.startswith(("none", "no ")), f"{line} has no proof"
    assert [name for name in named if not exists(name)] == []


def test_every_scenario_is_a_row() -> None:
    named = set(_NAMED.findall(PAGE.read_text()))
    files = {p.stem for p in (TESTS / "scenarios").glob("*.yaml") if ".tenants" not in p.name}
    assert {name for name in files if f"scenario {name}" not in named} == set()


@pytest.mark.parametrize("file", TRIED)
def test_every_attempt_by_packet_is_a_row(file: str) -> None:
    named = {test for page in PAGES for test in _NAMED.findall(page.read_text())}
    assert [name for name in functions_of(TESTS / file) if name not in named] == []


@pytest.mark.parametrize("file", TOLD)
def test_every_rule_of_the_evaluator_is_a_row(file: str) -> None:
    named = set(_NAMED.findall(PAGE.read_text()))
    assert [name for name in functions_of(TESTS / file) if name not in named] == []
