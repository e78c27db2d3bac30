"""The record survives its ConfigMaps, and only it makes a namespace a tenant's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.documents.writing import to_yaml
from generators.errors import InputError
from generators.isolation.record import (
    RecordEntry,
    read_record,
    record_documents,
    shard,
    tenants_of,
)
from generators.labels import RECORD_NAMESPACE
from generators.manifests import read_bytes
from generators.objects import ConfigMap, Namespace
from tests.generators.builders import config

names = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
records = st.dictionaries(names, st.builds(RecordEntry, names, names), max_size=40)


@given(records)
def test_what_is_recorded_is_read_back(record: dict[str, RecordEntry]) -> None:
    found = read_bytes(to_yaml(record_documents(record)).encode(), "f").config_maps
    assert len(found) == 16
    assert read_record(found) == record


def test_a_uid_has_one_shard() -> None:
    (holding,) = [d for d in record_documents({"u1": RecordEntry("x", "t")}) if d["data"]]
    assert holding["metadata"] == {
        "name": f"ringfence-record-{shard('u1')}",
        "namespace": "ringfence-system",
        "labels": {"app.kubernetes.io/managed-by": "ringfence"},
    }
    assert holding["data"] == {"u1": '{"namespace":"x","tenant":"t"}'}


GOOD = json.dumps({"namespace": "x", "tenant": "t"})


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("x", "ringfence-record-0"),
        (RECORD_NAMESPACE, "ringfence-record-"),
        (RECORD_NAMESPACE, "ringfence-record-g"),
        (RECORD_NAMESPACE, "ringfence-record-01"),
        (RECORD_NAMESPACE, "0"),
    ],
)
def test_only_shards_of_the_system_namespace_are_believed(namespace: str, name: str) -> None:
    assert read_record([ConfigMap(namespace, name, {"u": GOOD})]) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"namespace": 1, "tenant": "t"}'])
def test_a_broken_entry_is_an_error_that_names_it(text: str) -> None:
    broken = ConfigMap(RECORD_NAMESPACE, "ringfence-record-0", {"u1": text})
    with pytest.raises(InputError, match=r"ringfence-record-0\.data\.u1"):
        read_record([broken])


@pytest.mark.parametrize(
    ("namespace", "tenant", "quarantine"),
    [
        (Namespace("x", {"client": "blue"}, uid="u1"), "blue", False),
        (Namespace("x", {"client": "red"}, uid="u1"), "blue", False),
        (Namespace("x", {}, uid="u1"), "blue", False),
        (Namespace("x", {"client": "blue"}, uid="u2"), None, True),
        (Namespace("x", {"client": "blue"}), None, True),
        (Namespace("other", {"client": "blue"}, uid="u1"), None, True),
        (Namespace("other", {}, uid="u1"), None, False),
        (Namespace("ingress", {"client": "blue"}), None, False),
        (Namespace("kube-system", {"client": "blue"}), None, False),
    ],
)
def test_the_record_wins_over_the_label_and_a_label_alone_is_quarantined(
    namespace: Namespace, tenant: str | None, quarantine: bool
) -> None:
    record = {"u1": RecordEntry("x", "blue")}
    tenants, quarantined = tenants_of([namespace], record, config())
    assert tenants.get(namespace.name) == tenant
    assert (namespace.name in quarantined) == quarantine
