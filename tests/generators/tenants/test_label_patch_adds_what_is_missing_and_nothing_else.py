"""The hand-written JSON Patch against jsonpatch: right result, no second patch, nothing lost."""

from __future__ import annotations

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.labels import AddLabels, label_patch

Labels = dict[str, str]
WHOLE = "/metadata/labels"

CASES: dict[str, tuple[Labels | None, Labels, list[AddLabels]]] = {
    "no labels map": (
        None,
        {"b": "1", "a": "2"},
        [{"op": "add", "path": WHOLE, "value": {"a": "2", "b": "1"}}],
    ),
    "empty labels map": ({}, {"a": "1"}, [{"op": "add", "path": WHOLE, "value": {"a": "1"}}]),
    "one more": ({"x": "y"}, {"a": "1"}, [{"op": "add", "path": f"{WHOLE}/a", "value": "1"}]),
    "another value": ({"a": "2"}, {"a": "1"}, [{"op": "add", "path": f"{WHOLE}/a", "value": "1"}]),
    "slash": (
        {"x": "y"},
        {"ringfence.io/tenant": "a"},
        [{"op": "add", "path": f"{WHOLE}/ringfence.io~1tenant", "value": "a"}],
    ),
    "tilde before slash": (
        {"x": "y"},
        {"a~1/b": "c"},
        [{"op": "add", "path": f"{WHOLE}/a~01~1b", "value": "c"}],
    ),
    "all there": ({"a": "1", "x": "y"}, {"a": "1"}, []),
    "nothing wanted": ({"a": "1"}, {}, []),
    "nothing wanted, no map": (None, {}, []),
}


@pytest.mark.parametrize(("labels", "wanted", "patch"), CASES.values(), ids=CASES)
def test_patch(labels: Labels | None, wanted: Labels, patch: list[AddLabels]) -> None:
    assert label_patch(labels, wanted) == patch


REMOVALS: dict[str, tuple[Labels | None, Labels, set[str], list[object]]] = {
    "one of two": (
        {"a/b": "1", "x": "y"},
        {},
        {"a/b"},
        [{"op": "remove", "path": f"{WHOLE}/a~1b"}],
    ),
    "not there": ({"x": "y"}, {}, {"a"}, []),
    "no labels map": (None, {}, {"a"}, []),
    "wanted after all": ({"a": "1"}, {"a": "1"}, {"a"}, []),
    "one goes, one comes": (
        {"a": "1"},
        {"b": "2"},
        {"a"},
        [
            {"op": "remove", "path": f"{WHOLE}/a"},
            {"op": "add", "path": f"{WHOLE}/b", "value": "2"},
        ],
    ),
}


@pytest.mark.parametrize(("labels", "wanted", "unwanted", "patch"), REMOVALS.values(), ids=REMOVALS)
def test_unwanted_labels_go(
    labels: Labels | None, wanted: Labels, unwanted: set[str], patch: list[object]
) -> None:
    assert label_patch(labels, wanted, unwanted) == patch


LABELS = st.dictionaries(st.text("ab/~.-", min_size=1, max_size=5), st.text("xy", max_size=2))


@given(st.none() | LABELS, LABELS)
def test_applying_it_gives_both_and_applying_it_twice_yields_no_patch(
    labels: Labels | None, wanted: Labels
) -> None:
    metadata = {} if labels is None else {"labels": labels}
    patch = label_patch(labels, wanted)
    patched = jsonpatch.apply_patch({"metadata": metadata}, patch)["metadata"].get("labels")
    assert (patched or {}) == {**(labels or {}), **wanted}
    assert label_patch(patched, wanted) == []
