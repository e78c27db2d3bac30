"""Whoever refuses first says the same: the policies in the API server, and the webhook's words."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from generators.documents.json import Document, mapping, strings
from generators.kube.client import Client, PatchKind
from generators.kube.errors import Forbidden
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES
from generators.kyverno.model import Operation
from generators.labels import MANAGED_BY, MANAGER, MODE_ANNOTATION
from generators.tenants.assignment import Requester
from generators.tenants.load import load_tenants
from tests.controller.cluster import POLICY, Cluster
from tests.testbed.waiting import eventually
from webhook.review import RequestedResource, Review
from webhook.serving import validate

pytestmark = pytest.mark.cluster
Name = Callable[[str], str]
ANNA = Requester("anna", frozenset({"team-test01"}))


def labelled(**labels: str | None) -> Document:
    return {"metadata": {"labels": {k.replace("_", "-"): v for k, v in labels.items()}}}


ROWS: dict[str, tuple[str, Document]] = {
    "another tenant": ("annas", labelled(client="test02")),
    "a tenant that is not there": ("annas", labelled(client="nix")),
    "nobody's": ("plain", labelled(client="test01")),
    "a shared namespace": ("ingress", labelled(client="test01")),
    "under audit": ("annas", {"metadata": {"annotations": {MODE_ANNOTATION: "audit"}}}),
}


def review(
    operation: Operation,
    resource: RequestedResource,
    name: str,
    new: Document | None,
    old: Document | None,
    home: str = "",
) -> Review:
    kind = resource.name
    return Review("u", operation, kind, resource, name, home, False, ANNA, new, old)


def refusal(attempt: Callable[[], object]) -> str:
    with pytest.raises(Forbidden) as refused:
        attempt()
    message = refused.value.status.message
    assert "ValidatingAdmissionPolicy" in message
    return message.split("denied request: ", 1)[1]


@pytest.fixture
def anna(guarded_cluster: Cluster) -> Client:
    return guarded_cluster.as_user("anna", "team-test01")


@pytest.fixture
def namespaces(guarded_cluster: Cluster, name: Name, anna: Client) -> dict[str, str]:
    found = {"annas": name("plain"), "plain": name("nobodys"), "ingress": "ingress"}
    guarded_cluster.make(found["annas"], anna)
    guarded_cluster.make(found["plain"])
    if "ingress" not in {n["metadata"]["name"] for n in guarded_cluster.admin.list_all(NAMESPACES)}:  # type: ignore[index]
        guarded_cluster.make("ingress")
    eventually(lambda: guarded_cluster.isolated(found["annas"], "test01"), "isolated")
    return found


@pytest.mark.parametrize(("whose", "patch"), ROWS.values(), ids=ROWS)
def test_a_refused_label_is_told_in_the_webhooks_words(
    guarded_cluster: Cluster, namespaces: dict[str, str], anna: Client, whose: str, patch: Document
) -> None:
    name = namespaces[whose]
    config = load_tenants(guarded_cluster.tenants)
    before = guarded_cluster.admin.get(NAMESPACES, name)
    meta = before["metadata"]
    assert isinstance(meta, dict)
    change = patch["metadata"]
    assert isinstance(change, dict)
    merged = {k: {**(meta.get(k) or {}), **v} for k, v in change.items()}
    after = before | {"metadata": meta | merged}
    asked = review(Operation.UPDATE, RequestedResource("", "v1", "namespaces"), name, after, before)

    def attempt() -> Document:
        return anna.patch(NAMESPACES, name, "", patch, kind=PatchKind.MERGE, manager="test")

    expected = validate.decide(config, asked)
    assert not expected.allowed
    assert refusal(attempt) == expected.message


def test_a_refused_network_policy_is_told_in_the_webhooks_words(
    guarded_cluster: Cluster, namespaces: dict[str, str], anna: Client
) -> None:
    home, config = namespaces["annas"], load_tenants(guarded_cluster.tenants)
    kind = RequestedResource("networking.k8s.io", "v1", "networkpolicies")
    live = guarded_cluster.policy(home)
    deleted = review(Operation.DELETE, kind, POLICY, None, live, home)
    said = refusal(lambda: anna.delete(NETWORK_POLICIES, POLICY, home))
    assert said == validate.decide(config, deleted).message
    mine: Document = {
        "metadata": {"name": "mine", "namespace": home, "labels": {MANAGED_BY: MANAGER}},
        "spec": {"podSelector": {}},
    }
    made = review(Operation.CREATE, kind, "mine", mine, None, home)
    said = refusal(lambda: anna.create(NETWORK_POLICIES, mine, manager="test"))
    assert said == validate.decide(config, made).message


def test_a_retired_key_is_left_out_by_the_webhook_and_refused_by_the_policy(
    guarded_cluster: Cluster, namespaces: dict[str, str], anna: Client
) -> None:
    name, config = namespaces["annas"], load_tenants(guarded_cluster.tenants)
    patch = labelled(owner="test02", team=uuid.uuid4().hex)
    done = anna.patch(NAMESPACES, name, "", patch, kind=PatchKind.MERGE, manager="test")
    assert strings(mapping(done, "metadata"), "labels").get("owner") is None
    before = guarded_cluster.admin.get(NAMESPACES, name)
    meta = before["metadata"]
    assert isinstance(meta, dict)
    after = before | {"metadata": meta | {"labels": meta["labels"] | {"owner": "test02"}}}
    status = RequestedResource("", "v1", "namespaces", "status")
    expected = validate.decide(config, review(Operation.UPDATE, status, name, after, before))
    said = refusal(lambda: anna.update(NAMESPACES, after, manager="test", subresource="status"))
    assert said == expected.message
