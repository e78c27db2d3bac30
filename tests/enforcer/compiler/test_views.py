"""Readers walk over what the agent's loop changes under them: what goes is left out, no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from enforcer.compiler.views import Computed, InForce, Live, Nested
from enforcer.writes.pending import Layer

Made = tuple[Mapping[str, int], Callable[[], object]]
"""A view of a/1 to a/3, and what takes away its last."""


def live() -> Made:
    kept = {"a/1": 1, "a/2": 2, "a/3": 3}
    return Live(kept), lambda: kept.pop("a/3")


def nested() -> Made:
    kept = {"a": {"a/1": 1, "a/2": 2, "a/3": 3}}
    return Nested(kept), lambda: kept["a"].pop("a/3")


def nested_away() -> Made:
    kept = {"a": {"a/1": 1, "a/2": 2}, "b": {"b/3": 3}}
    return Nested(kept), lambda: kept["b"].clear()


def computed() -> Made:
    made = {f"a/{number}": lambda number=number: number for number in (1, 2, 3)}
    return Computed(made), lambda: made.pop("a/3")


def in_force() -> Made:
    layer: Layer[str, int] = Layer()
    layer.now.update({"a/1": 1, "a/2": 2, "a/3": 3})
    return InForce(layer), lambda: layer.now.pop("a/3")


@pytest.mark.parametrize("make", [live, nested, nested_away, computed, in_force])
def test_what_goes_during_a_walk_is_left_out(make: Callable[[], Made]) -> None:
    view, take_away = make()
    assert list(view.values()) == [1, 2, 3]
    assert [value for _, value in view.items()] == [1, 2, 3]
    pairs, values = iter(view.items()), iter(view.values())
    assert next(pairs) == ("a/1", 1)
    assert next(values) == 1
    take_away()
    assert (list(pairs), list(values)) == ([("a/2", 2)], [2])
