"""The store says what changed, and only that."""

from __future__ import annotations

from generators.documents.json import Key
from generators.kube.store import Store


def key(text: str) -> Key:
    namespace, name = text.split("/")
    return Key(namespace, name)


def filled() -> Store[int]:
    store: Store[int] = Store()
    for text, value in (("a/x", 1), ("a/y", 2), ("b/x", 3)):
        store.put(key(text), value)
    return store


def test_an_equal_value_is_no_change() -> None:
    store = filled()
    assert not store.put(key("a/x"), 1)
    assert store.put(key("a/x"), 7)
    assert len(store) == 3


def test_removing_what_is_not_there_is_no_change() -> None:
    store = filled()
    assert store.remove(key("b/x"))
    assert not store.remove(key("b/x"))
    assert not store.remove(key("nowhere/x"))
    assert len(store) == 2
    assert store.in_namespace("b") == {}


def test_a_new_list_reports_new_different_and_gone_keys_only() -> None:
    store = filled()
    changed = store.replace({key("a/x"): 1, key("a/y"): 9, key("c/z"): 4})
    assert sorted(map(str, changed)) == ["a/y", "b/x", "c/z"]
    assert store.get(key("b/x")) is None
    assert len(store) == 3


def test_a_namespace_is_a_view_of_its_own() -> None:
    store = filled()
    view = store.in_namespace("a")
    store.remove(key("a/x"))
    assert view == {"x": 1, "y": 2}
    assert store.snapshot() == {key("a/y"): 2, key("b/x"): 3}
