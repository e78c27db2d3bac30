"""How a patch is merged into an object; test_reference.py compares the lists of every kind."""

from __future__ import annotations

import pytest

from generators.documents.json import Value
from generators.kyverno.failures import BadPatch
from generators.kyverno.model import Document
from generators.kyverno.patches import merging


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}),
        ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
        ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "delete"}}, {}),
        (
            {"ingress": [{"ports": [{"port": 80}]}]},
            {"ingress": [{"ports": [{"port": 81}]}]},
            {"ingress": [{"ports": [{"port": 81}]}]},
        ),
        ({"rules": [{"name": "a"}]}, {"rules": [{"name": "b"}]}, {"rules": [{"name": "b"}]}),
    ],
)
def test_merging(base: Document, patch: Document, expected: Document) -> None:
    assert merging.merge(base, patch) == expected


def test_what_a_patch_lists_comes_first_and_finalizers_are_never_lost() -> None:
    head: Document = {"apiVersion": "v1", "kind": "Service"}
    ports: list[Value] = [{"port": 80, "name": "a"}, {"port": 81}]
    base: Document = {**head, "metadata": {"finalizers": ["a/b"]}, "spec": {"ports": ports}}
    patch: Document = {
        "metadata": {"finalizers": ["c/d"]},
        "spec": {"ports": [{"port": 81, "name": "b"}]},
    }
    merged = merging.merge(base, patch)
    assert merged["metadata"] == {"finalizers": ["c/d", "a/b"]}
    assert merged["spec"] == {"ports": [{"port": 81, "name": "b"}, {"port": 80, "name": "a"}]}


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"spec": {"ports": [{"name": "a"}]}}, "needs port"),
        ({"spec": {"ports": ["a"]}}, "must be maps"),
        ({"metadata": {"finalizers": [{"a": "b"}]}}, "must be texts"),
        ({"metadata": "x"}, "the patch has a plain value where a map is"),
        ({"metadata": {"$patch": "odd"}}, "none of replace, delete, merge"),
    ],
)
def test_what_would_destroy_data_is_an_error(patch: Document, why: str) -> None:
    document: Document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    with pytest.raises(BadPatch, match=why):
        merging.merge({**document, "spec": {"ports": [{"port": 80}]}}, patch)


def test_long_lists_merge_in_the_time_that_reading_them_takes() -> None:
    names = [f"n{number}" for number in range(20_000)]
    secrets: list[Value] = [{"name": name} for name in names]
    texts: list[Value] = [*names]
    base: Document = {"apiVersion": "v1", "kind": "ServiceAccount", "secrets": secrets}
    patch: Document = {"secrets": [*reversed(secrets)], "metadata": {"finalizers": texts}}
    merged = merging.merge({**base, "metadata": {"finalizers": texts}}, patch)
    assert merged["secrets"] == [*reversed(secrets)]
    assert merged["metadata"] == {"finalizers": texts}
    ports: list[Value] = [{"port": number, "protocol": "TCP"} for number in range(2_000)]
    service: Document = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": ports}}
    with pytest.raises(BadPatch, match="too long"):
        merging.merge(service, {"spec": {"ports": ports}})
