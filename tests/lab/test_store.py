"""The lab's objects: kubectl's three-way apply, and what survives on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.isolation.record import Basis, RecordEntry
from lab import store
from lab.store import Document, Store, Stored, StoreKey, merge

MERGES: dict[str, tuple[Document, Document, Document, Document]] = {
    # name: last applied, now applied, live, result
    "what others set stays": (
        {"labels": {"a": "1"}},
        {"labels": {"a": "1"}},
        {"labels": {"a": "1", "client": "test01"}},
        {"labels": {"a": "1", "client": "test01"}},
    ),
    "what is applied wins over what others set": (
        {"labels": {"a": "1"}},
        {"labels": {"a": "2"}},
        {"labels": {"a": "3"}},
        {"labels": {"a": "2"}},
    ),
    "what is no longer applied goes": (
        {"labels": {"a": "1", "b": "1"}},
        {"labels": {"a": "1"}},
        {"labels": {"a": "1", "b": "1", "client": "test01"}},
        {"labels": {"a": "1", "client": "test01"}},
    ),
    "a whole map that is no longer applied leaves what others set": (
        {"labels": {"a": "1"}},
        {},
        {"labels": {"a": "1", "client": "test01"}},
        {"labels": {"client": "test01"}},
    ),
    "lists are replaced whole": (
        {"ports": [1, 2]},
        {"ports": [2]},
        {"ports": [1, 2, 3]},
        {"ports": [2]},
    ),
    "an address given by the lab stays": (
        {"status": {"phase": "Running"}},
        {"status": {"phase": "Running"}},
        {"status": {"phase": "Running", "podIP": "10.244.1.2"}},
        {"status": {"phase": "Running", "podIP": "10.244.1.2"}},
    ),
}


@pytest.mark.parametrize("case", MERGES)
def test_apply_merges_as_kubectl_does(case: str) -> None:
    before, wanted, live, expected = MERGES[case]
    assert merge(before, wanted, live) == expected


def test_applying_the_same_again_changes_nothing() -> None:
    for before, wanted, live, _ in MERGES.values():
        once = merge(before, wanted, live)
        assert merge(wanted, wanted, once) == once


def test_a_store_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    namespace: Document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}
    saved = Store(
        {
            StoreKey("Namespace", "", "a"): Stored(namespace, namespace),
            StoreKey("Namespace", "", "b"): Stored(namespace),
        },
        {"uid-1": RecordEntry("a", "test01", Basis.ADMISSION)},
    )
    store.save(tmp_path, saved)
    assert store.load(tmp_path) == saved


def test_a_lab_without_a_store_has_no_objects(tmp_path: Path) -> None:
    assert store.load(tmp_path) == Store()
