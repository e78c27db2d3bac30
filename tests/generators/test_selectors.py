"""Selectors match as an API server's do, and read as kubectl writes them."""

from __future__ import annotations

import pytest

from generators.objects import Labels, Operator, Requirement, Selector
from generators.selectors import first_unmet, labels_selector, matches, text

LISTED, OTHER, ABSENT = {"k": "a"}, {"k": "z"}, {"other": "a"}


@pytest.mark.parametrize(
    ("operator", "values", "listed", "other", "absent"),
    [
        (Operator.IN, ("a", "b"), True, False, False),
        (Operator.NOT_IN, ("a", "b"), False, True, True),
        (Operator.EXISTS, (), True, True, False),
        (Operator.DOES_NOT_EXIST, (), False, False, True),
    ],
)
def test_each_operator_on_a_key_that_is_there_or_not(
    operator: Operator, values: tuple[str, ...], listed: bool, other: bool, absent: bool
) -> None:
    selector = Selector((Requirement("k", operator, values),))
    found = [matches(selector, labels) for labels in (LISTED, OTHER, ABSENT)]
    assert found == [listed, other, absent]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({"a": "1", "b": "2"}, True), ({"a": "1"}, False), ({"a": "1", "b": ""}, False), ({}, False)],
)
def test_requirements_are_anded(labels: Labels, expected: bool) -> None:
    assert matches(labels_selector({"a": "1", "b": "2"}), labels) == expected


def test_an_empty_value_is_a_value() -> None:
    assert matches(labels_selector({"a": ""}), {"a": ""})
    assert not matches(labels_selector({"a": ""}), {})


def test_the_empty_selector_matches_everything() -> None:
    assert matches(Selector(), {})


def test_selectors_read_as_kubectl_takes_them() -> None:
    selector = Selector(
        (
            Requirement("app", Operator.IN, ("web",)),
            Requirement("tier", Operator.IN, ("a", "b")),
            Requirement("env", Operator.NOT_IN, ("dev", "test")),
            Requirement("zone", Operator.NOT_IN, ("x",)),
            Requirement("up", Operator.EXISTS),
            Requirement("down", Operator.DOES_NOT_EXIST),
        )
    )
    assert text(selector) == "app=web,tier in (a,b),env notin (dev,test),zone!=x,up,!down"
    assert text(Selector()) == "<all>"


def test_the_first_requirement_that_fails_is_told() -> None:
    selector = labels_selector({"a": "1", "b": "2"})
    assert first_unmet(selector, {"a": "1"}) == Requirement("b", Operator.IN, ("2",))
    assert first_unmet(selector, {"a": "1", "b": "2"}) is None
