"""Our engine answers as Kyverno 1.19.1's does, but where the list of deviations says otherwise."""

from __future__ import annotations

import json

import pytest

from generators.kyverno.language import functions
from generators.kyverno.model import ConditionOperator
from tests.generators.kyverno.reference import tables
from tests.generators.kyverno.reference.answers import answer, same
from tests.generators.kyverno.reference.deviations import DEVIATIONS, reason_for
from tests.generators.kyverno.reference.questions import OPERATORS, TABLES
from tests.generators.kyverno.reference.shapes import Answer, Question

# One question holds a literal that is no JSON: see the list of deviations.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
_MOST_TOLD = 5
Found = list[tuple[Question, Answer, Answer]]


def differences(name: str) -> Found:
    """(question, the reference's answer, ours) of a table, where the two differ."""
    digest, answers = tables.read(name)
    questions = list(TABLES[name]())
    assert digest == tables.digest(questions), f"`make oracle ONLY={name}`: its questions changed"
    pairs = zip(questions, answers, strict=True)
    return [(q, theirs, ours) for q, theirs in pairs if not same(theirs, ours := answer(q))]


@pytest.fixture(scope="module")
def differing() -> dict[str, Found]:
    return {name: differences(name) for name in TABLES}


@pytest.mark.parametrize("name", TABLES)
def test_answers_are_those_of_the_reference(name: str, differing: dict[str, Found]) -> None:
    unexplained = [
        (question, theirs, ours)
        for question, theirs, ours in differing[name]
        if reason_for(question, theirs, ours) is None
    ]
    shown = [
        f"{json.dumps(_short(question))[:400]}\n  theirs {theirs}\n  ours   {ours}"
        for question, theirs, ours in unexplained[:_MOST_TOLD]
    ]
    assert not unexplained, f"{len(unexplained)} answers of {name} differ:\n" + "\n".join(shown)


def _short(question: Question) -> Question:
    return {key: value for key, value in question.items() if key not in ("data", "op")}


def test_every_deviation_explains_a_difference(
    differing: dict[str, Found],
) -> None:
    used = {reason_for(*one) for found in differing.values() for one in found}
    assert [one.what for one in DEVIATIONS if one not in used] == []


def test_what_could_be_asked_is_asked() -> None:
    asked = " ".join(question["expression"] for question in TABLES["functions"]())
    # The present is another one each time.
    left = {"time_now", "time_now_utc"}
    assert [name for name in functions.FUNCTIONS if f"{name}(" not in asked] == sorted(left)
    assert set(OPERATORS) == {operator.value for operator in ConditionOperator}
    assert sum(len(list(make())) for make in TABLES.values()) > 100_000
