"""What the lab does in the controller's place."""

from __future__ import annotations

import pytest

from generators.isolation.record import Basis, RecordEntry
from generators.manifests import Documents
from generators.objects import Namespace
from generators.tenants.load import parse_tenants
from lab.admission import Requester
from lab.files.changes import Gate, apply, delete, named
from lab.files.controller import note_admission, synchronize
from lab.store import Store
from tests.lab.builders import TENANTS, example, namespace, objects, tenants

ADMIN = Gate(Requester())
POLICY = "allow-ingress-namespace"


def stored(documents: Documents) -> Store:
    store = Store()
    apply(store, documents, ADMIN)
    return store


def recorded_tenants(store: Store) -> list[str]:
    return sorted(entry.tenant for entry in store.record.values())


def tenant_labels(store: Store) -> dict[str, str | None]:
    return {n.name: n.labels.get("client") for n in store.namespaces}


def test_namespaces_that_existed_before_are_labelled_and_isolated_by_name() -> None:
    store = stored(example())
    lines = synchronize(tenants(), store)
    assert {name: label for name, label in tenant_labels(store).items() if label} == {
        "app-test01": "test01",
        "app-test02": "test02",
        "monitoring-test01": "test01",
    }
    assert [policy.key for policy in store.policies] == [
        f"app-test01/{POLICY}",
        f"app-test02/{POLICY}",
        f"monitoring-test01/{POLICY}",
    ]
    assert len(lines) == 6
    assert recorded_tenants(store) == ["test01", "test01", "test02"]


def test_a_second_look_finds_nothing_to_do() -> None:
    store = stored(example())
    synchronize(tenants(), store)
    assert synchronize(tenants(), store) == ()


def test_a_label_that_the_name_does_not_confirm_is_taken_away() -> None:
    store = stored(objects(namespace("sandbox", client="test01")))
    synchronize(tenants(), store)
    assert tenant_labels(store) == {"sandbox": None}
    assert store.record == {}


@pytest.mark.parametrize(
    ("basis", "tenant"),
    [(Basis.ADMISSION, "test01"), (Basis.NAME, "test02")],
    ids=["by admission", "by a name that another tenant has now"],
)
def test_the_record_wins_over_the_label_and_over_the_name_if_admission_wrote_it(
    basis: Basis, tenant: str
) -> None:
    store = stored(objects(namespace("app-test02", client="test02")))
    store.record[store.namespaces[0].uid] = RecordEntry("app-test02", "test01", basis)
    synchronize(tenants(), store)
    assert tenant_labels(store) == {"app-test02": tenant}


def test_a_generated_policy_that_was_deleted_comes_back() -> None:
    store = stored(example())
    synchronize(tenants(), store)
    delete(store, [named("netpol", f"app-test01/{POLICY}")], ADMIN, {})
    (line,) = synchronize(tenants(), store)
    assert line.endswith("created in namespace app-test01 by ringfence")


def test_a_tenant_that_leaves_the_file_leaves_its_namespaces_in_quarantine() -> None:
    store = stored(example())
    synchronize(tenants(), store)
    text = TENANTS.read_text()
    without = text[: text.index("  - name: test02")]
    synchronize(parse_tenants(without.encode(), "tenants.yaml"), store)
    assert tenant_labels(store)["app-test02"] == "test02"
    assert "app-test02" in {policy.namespace for policy in store.policies}
    assert "test02" in recorded_tenants(store)


BEFORE = Namespace("a", {"client": "test01"}, uid="u")


@pytest.mark.parametrize(
    ("before", "after", "recorded"),
    [
        pytest.param(None, {"client": "test02"}, "test02", id="new with a label"),
        pytest.param(None, {}, None, id="new without a label"),
        pytest.param(None, {"client": "stranger"}, None, id="new with a label of no tenant"),
        pytest.param(BEFORE, {"client": "test02"}, "test02", id="moved"),
        pytest.param(BEFORE, {}, None, id="taken out"),
        pytest.param(BEFORE, {"client": "test01", "x": "y"}, "kept", id="something else changed"),
    ],
)
def test_the_record_follows_what_the_webhook_let_through(
    before: Namespace | None, after: dict[str, str], recorded: str | None
) -> None:
    store = Store(record={"u": RecordEntry("a", "kept", Basis.ADMISSION)})
    note_admission(tenants(), store, before, Namespace("a", after, uid="u"))
    assert [entry.tenant for entry in store.record.values()] == ([recorded] if recorded else [])


def test_a_label_that_the_name_gave_is_recorded_as_the_name_s() -> None:
    store = Store()
    label = {"client": "test01"}
    note_admission(tenants(), store, None, Namespace("app-test01", label, uid="name"))
    note_admission(tenants(), store, None, Namespace("anything", label, uid="admission"))
    assert {uid: entry.basis.value for uid, entry in store.record.items()} == {
        "name": "name",
        "admission": "admission",
    }
