"""`apply` and `delete` on the lab's objects, before a webhook has its say."""

from __future__ import annotations

import pytest

from generators.errors import InputError
from generators.isolation.record import RecordEntry
from lab.admission import Requester
from lab.files.changes import Gate, apply, delete, kind_of, named
from lab.store import Store, StoreKey
from tests.lab.builders import example, namespace, objects, pod

ANYBODY = Gate(Requester())


def test_applying_twice_changes_nothing() -> None:
    store = Store()
    first = apply(store, example(), ANYBODY)
    before = dict(store.objects)
    second = apply(store, example(), ANYBODY)
    assert {line.split()[-1] for line in first.lines} == {"created"}
    assert {line.split()[-1] for line in second.lines} == {"unchanged"}
    assert store.objects == before


def test_a_namespace_that_objects_use_and_nobody_declares_is_made() -> None:
    store = Store()
    report = apply(store, objects(pod("lonely/web")), ANYBODY)
    assert report.lines == ["namespace/lonely created", "pod/web created"]


def test_labels_that_are_no_longer_applied_go_and_others_stay() -> None:
    store = Store()
    apply(store, objects(namespace("a", one="1", two="2")), ANYBODY)
    report = apply(store, objects(namespace("a", one="1")), ANYBODY)
    assert report.lines == ["namespace/a configured"]
    (found,) = store.namespaces
    assert found.labels == {"one": "1", "kubernetes.io/metadata.name": "a"}


def test_deleting_a_namespace_deletes_what_is_in_it() -> None:
    store = Store()
    apply(store, objects(namespace("a") + pod("a/web") + pod("b/web")), ANYBODY)
    report = delete(store, [named("ns", "a")], ANYBODY, {})
    assert report.lines == ['namespace "a" deleted']
    assert [p.key for p in store.pods] == ["b/web"]
    assert [n.name for n in store.namespaces] == ["b"]


def test_a_namespace_made_again_is_another_one() -> None:
    store = Store()
    apply(store, objects(namespace("a")), ANYBODY)
    first = store.namespaces[0].uid
    store.record[first] = RecordEntry("a", "test01")
    delete(store, [named("ns", "a")], ANYBODY, {})
    apply(store, objects(namespace("a")), ANYBODY)
    assert store.namespaces[0].uid not in ("", first)
    assert store.record == {}


def test_what_is_not_there_cannot_be_deleted() -> None:
    report = delete(Store(), [named("netpol", "a/x")], ANYBODY, {})
    (error,) = report.errors
    assert error == (
        'Error from server (NotFound): networkpolicies.networking.k8s.io "x" not found'
    )


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("ns", "a"), StoreKey("Namespace", "", "a")),
        (("Pods", "a/web"), StoreKey("Pod", "a", "web")),
        (("po", "web"), StoreKey("Pod", "default", "web")),
        (("netpol", "a/x"), StoreKey("NetworkPolicy", "a", "x")),
    ],
)
def test_objects_are_named_as_with_kubectl(words: tuple[str, str], key: StoreKey) -> None:
    assert named(*words) == key


def test_a_namespace_is_in_no_namespace() -> None:
    with pytest.raises(InputError, match="it is in no namespace"):
        named("ns", "a/b")


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="networkpolicies"):
        kind_of("deployments")


def test_config_maps_are_no_way_to_write_the_record() -> None:
    forged = """
apiVersion: v1
kind: ConfigMap
metadata: {name: ringfence-record-0, namespace: ringfence-system}
data: {uid: '{"namespace":"a","tenant":"test01"}'}
"""
    store = Store()
    report = apply(store, objects(forged), ANYBODY)
    assert store == Store()
    assert "means nothing in a lab" in report.warnings[0]
