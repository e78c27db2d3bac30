"""The lab in the API server's place: reviews that the webhook reads, answers that kubectl shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.admission import (
    Change,
    Denied,
    Document,
    Operation,
    Requester,
    Webhook,
    WebhookFailed,
    review,
)
from lab.backing import Report
from lab.files.changes import Gate, apply, delete, named
from lab.store import Store
from tests.lab.builders import TENANTS, example, namespace, objects, tenants
from tests.webhook.processes import Webhook as Server
from tests.webhook.processes import new_certificate
from webhook.review import parse_review

NAMESPACE: Document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app-test01"}}
CREATE = Change(Operation.CREATE, "Namespace", "", "app-test01", NAMESPACE, None, "app.yaml")
TEAM = Requester("eve", ("team-test01",))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`ringfence webhook serve` with the example's tenant file."""
    folder = tmp_path_factory.mktemp("webhook")
    (folder / "tenants.yaml").write_bytes(TENANTS.read_bytes())
    new_certificate(folder)
    server = Server(folder, "--drain-seconds", "0")
    yield server
    server.stop()


@pytest.fixture
def webhook(server: Server) -> Iterator[Webhook]:
    connection = Webhook(f"https://127.0.0.1:{server.port}", server.folder / "ca.crt")
    yield connection
    connection.close()


@pytest.mark.parametrize("operation", [*Operation])
def test_the_webhook_reads_what_the_lab_sends(operation: Operation) -> None:
    live = None if operation is Operation.CREATE else NAMESPACE
    wanted = None if operation is Operation.DELETE else NAMESPACE
    change = Change(operation, "Namespace", "", "app-test01", wanted, live)
    read = parse_review(json.dumps(review(change, wanted, TEAM)).encode())
    assert (read.operation.value, read.name, str(read.resource)) == (
        operation.value,
        "app-test01",
        "namespaces",
    )
    assert read.requester.username == "eve"
    assert read.requester.groups == {"team-test01", "system:authenticated"}
    assert (read.object, read.old_object) == (wanted, live)


def test_a_namespace_comes_back_with_its_tenant(webhook: Webhook) -> None:
    admitted, _ = webhook.admit(CREATE, Requester())
    assert admitted is not None
    assert admitted["metadata"] == {"name": "app-test01", "labels": {"client": "test01"}}


def test_a_refusal_reads_as_with_kubectl(webhook: Webhook) -> None:
    stolen: Document = {**NAMESPACE, "metadata": {"name": "x", "labels": {"client": "test02"}}}
    change = Change(Operation.CREATE, "Namespace", "", "x", stolen, None, "x.yaml")
    with pytest.raises(Denied) as refused:
        webhook.admit(change, TEAM)
    assert str(refused.value).startswith(
        'Error from server (Forbidden): error when creating "x.yaml": '
        'admission webhook "mutate.ringfence.io" denied the request: '
    )
    assert "test02" in str(refused.value)


def test_moving_a_namespace_is_refused_by_the_validating_webhook(webhook: Webhook) -> None:
    live: Document = {
        **NAMESPACE,
        "metadata": {"name": "app-test01", "labels": {"client": "test01"}},
    }
    moved: Document = {
        **NAMESPACE,
        "metadata": {"name": "app-test01", "labels": {"client": "test02"}},
    }
    change = Change(Operation.UPDATE, "Namespace", "", "app-test01", moved, live, "x.yaml")
    with pytest.raises(Denied, match=r'error when patching "x.yaml": .*validate\.ringfence\.io'):
        webhook.admit(change, TEAM)


def test_a_refusal_changes_nothing_of_its_object_and_stops_nobody_else(webhook: Webhook) -> None:
    store = Store()
    apply(store, objects(namespace("app-test01")), Gate(Requester(), tenants(), webhook))
    before = dict(store.objects)
    documents = objects(namespace("app-test01", client="test02") + namespace("more-test01"))
    report = apply(store, documents, Gate(TEAM, tenants(), webhook))
    assert report.lines == ["namespace/more-test01 created"]
    assert len(report.errors) == 1
    assert {key: store.objects[key] for key in before} == before


def test_objects_in_a_namespace_that_was_refused_are_not_found(webhook: Webhook) -> None:
    store = Store()
    report = apply(store, example(), Gate(TEAM, tenants(), webhook))
    assert "app-test02" not in {namespace.name for namespace in store.namespaces}
    assert any('namespaces "app-test02" not found' in error for error in report.errors)


def test_a_generated_policy_is_deleted_by_admins_only(webhook: Webhook) -> None:
    generated = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-ingress-namespace
  namespace: app-test01
  labels: {app.kubernetes.io/managed-by: ringfence}
spec: {podSelector: {}}
"""
    store = Store()
    apply(store, objects(generated), Gate(Requester()))
    key = named("netpol", "app-test01/allow-ingress-namespace")

    def deletes(requester: Requester) -> Report:
        return delete(store, [key], Gate(requester, tenants(), webhook), {})

    assert "denied the request" in deletes(TEAM).errors[0]
    assert key in store.objects
    assert deletes(Requester()).errors == []
    assert key not in store.objects


def test_a_webhook_that_does_not_answer_lets_nothing_pass(server: Server, tmp_path: Path) -> None:
    new_certificate(tmp_path)
    for url, ca in (
        ("https://127.0.0.1:1", server.folder / "ca.crt"),
        (f"https://127.0.0.1:{server.port}", tmp_path / "ca.crt"),
    ):
        connection = Webhook(url, ca)
        with pytest.raises(WebhookFailed, match=r"Error from server \(InternalError\)"):
            connection.admit(CREATE, Requester())
        connection.close()
