"""docs/kyverno.md names every field that the parser knows, and a test that exists for each row."""

from __future__ import annotations

import re
from pathlib import Path

from generators.kyverno import matchparsing, parsing
from generators.kyverno.language import functions
from generators.kyverno.model import ConditionOperator
from generators.kyverno.offline import testing
from tests.generators.kyverno.reference.deviations import DEVIATIONS

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "kyverno.md").read_text()
FOLDERS = ("tests/generators/kyverno", "tests/webhook", "tests/controller")
TESTS = "\n".join(
    path.read_text()
    for folder in FOLDERS
    for path in sorted((CHECKOUT / folder).rglob("test_*.py"))
)


def rows() -> list[tuple[str, str]]:
    """(first cell, last cell) of each row of the tables of fields."""
    found = []
    for line in PAGE.replace(section("Where it differs on purpose"), "").splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("| ") and cells[1].strip() not in ("field", "what"):
            found.append((cells[1], cells[-2]))
    return found


def section(title: str) -> str:
    return PAGE.split(f"### {title}\n")[1].split("\n#")[0]


def words(text: str) -> set[str]:
    return set(re.findall(r"`([A-Za-z0-9_.]+)`", text))


def test_every_row_names_a_test_that_exists() -> None:
    assert len(rows()) > 50
    for field, named in rows():
        tests = re.findall(r"`(test_\w+)`", named)
        assert tests, field
        assert [test for test in tests if f"def {test}(" not in TESTS] == []


def test_every_field_that_is_read_has_a_row() -> None:
    assert {f"spec.{name}" for name in parsing.SPEC} <= words(section("Policy"))
    assert set(parsing.RULE) <= words(section("Rule"))
    resources = {f"resources.{name}" for name in matchparsing.RESOURCES}
    assert resources | set(matchparsing.USERS) <= words(section("Match and exclude"))
    assert set(parsing.MUTATE) <= words(section("Mutate"))
    assert set(parsing.GENERATE) <= words(section("Generate"))
    assert set(testing.IGNORED) <= words(section("Test files"))


def test_the_deviations_from_the_reference_are_shown_with_their_reasons() -> None:
    shown = [line for line in section("Where it differs on purpose").splitlines() if "|" in line]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in shown[2:]]
    listed = [[one.what, one.upstream, one.reason] for one in DEVIATIONS]
    assert [[cell.replace("\\|", "|") for cell in row] for row in cells] == listed


def test_every_function_and_operator_is_named() -> None:
    named = words(section("Variables"))
    assert set(functions.FUNCTIONS) | set(functions.LEFT_OUT) <= named
    assert {operator.value for operator in ConditionOperator} <= named
