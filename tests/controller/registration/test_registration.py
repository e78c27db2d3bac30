"""What the API server is told about our admission, and that it stays so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from generators.documents.json import Document
from generators.kube.client import Client, PatchKind
from generators.kube.errors import Conflict, Forbidden, NotFound
from generators.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORK_POLICIES,
    VALIDATING_WEBHOOKS,
    Resource,
)
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from tests.controller.cluster import POLICY, Cluster, ControllerProcess, guarded
from tests.controller.requests import relabel_finalize, relabel_status
from tests.testbed.planes import Planes
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster
LABEL_POLICY = "ringfence-tenant-label"


@pytest.fixture(scope="module")
def running(
    planes: Planes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, ControllerProcess]]:
    """Not the shared one: here admission is taken apart."""
    with guarded(tmp_path_factory.mktemp("registered"), plane=planes.one()) as made:
        yield made


def edit(resource: Resource, name: str, patch: Document) -> Callable[[Client], None]:
    def apply(client: Client) -> None:
        client.patch(resource, name, "", patch, kind=PatchKind.MERGE, manager="test")

    return apply


def strategic(resource: Resource, webhook: Document) -> Callable[[Client], None]:
    def apply(client: Client) -> None:
        patch: Document = {"webhooks": [{"name": "namespaces.ringfence.io"} | webhook]}
        client.patch(resource, "ringfence", "", patch, kind=PatchKind.STRATEGIC, manager="test")

    return apply


def remove(resource: Resource, name: str = "ringfence") -> Callable[[Client], None]:
    return lambda client: client.delete(resource, name)


NOT_MINE = {"matchExpressions": [{"key": "mine", "operator": "DoesNotExist"}]}
DISOWNED: Document = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
TAMPERING = [
    pytest.param(
        VALIDATING_WEBHOOKS, "ringfence", remove(VALIDATING_WEBHOOKS), id="validating gone"
    ),
    pytest.param(MUTATING_WEBHOOKS, "ringfence", remove(MUTATING_WEBHOOKS), id="mutating gone"),
    pytest.param(
        ADMISSION_POLICIES, LABEL_POLICY, remove(ADMISSION_POLICIES, LABEL_POLICY), id="policy gone"
    ),
    pytest.param(
        ADMISSION_POLICY_BINDINGS,
        LABEL_POLICY,
        remove(ADMISSION_POLICY_BINDINGS, LABEL_POLICY),
        id="binding gone",
    ),
    pytest.param(
        VALIDATING_WEBHOOKS,
        "ringfence",
        strategic(VALIDATING_WEBHOOKS, {"failurePolicy": "Ignore"}),
        id="fails open",
    ),
    pytest.param(
        VALIDATING_WEBHOOKS,
        "ringfence",
        strategic(VALIDATING_WEBHOOKS, {"namespaceSelector": NOT_MINE}),
        id="exemption by label",
    ),
    pytest.param(
        VALIDATING_WEBHOOKS,
        "ringfence",
        strategic(VALIDATING_WEBHOOKS, {"rules": []}),
        id="no rules",
    ),
    pytest.param(
        MUTATING_WEBHOOKS,
        "ringfence",
        strategic(MUTATING_WEBHOOKS, {"clientConfig": {"url": "https://127.0.0.1:1/mutate"}}),
        id="another server",
    ),
    pytest.param(
        ADMISSION_POLICY_BINDINGS,
        LABEL_POLICY,
        edit(ADMISSION_POLICY_BINDINGS, LABEL_POLICY, {"spec": {"validationActions": ["Audit"]}}),
        id="only audited",
    ),
    pytest.param(
        ADMISSION_POLICIES,
        LABEL_POLICY,
        edit(ADMISSION_POLICIES, LABEL_POLICY, {"spec": {"failurePolicy": "Ignore"}}),
        id="policy fails open",
    ),
    pytest.param(
        VALIDATING_WEBHOOKS,
        "ringfence",
        edit(VALIDATING_WEBHOOKS, "ringfence", DISOWNED),
        id="managed-by label removed",
    ),
]


def part(client: Client, resource: Resource, name: str) -> object:
    try:
        document = client.get(resource, name)
    except NotFound:
        return None
    meta = document["metadata"]
    assert isinstance(meta, dict)
    return meta.get("labels"), document.get("webhooks"), document.get("spec")


@pytest.mark.parametrize(("resource", "object_name", "tamper"), TAMPERING)
def test_what_is_edited_or_deleted_is_put_back_and_counted(
    running: tuple[Cluster, ControllerProcess],
    resource: Resource,
    object_name: str,
    tamper: Callable[[Client], None],
) -> None:
    cluster, controller = running
    eventually(controller.in_force, "in force")
    before = part(cluster.admin, resource, object_name)
    counted = reasserted(controller, resource)
    assert counted is not None, "no series: Prometheus would not see the first edit as an increase"
    tamper(cluster.admin)
    eventually(lambda: part(cluster.admin, resource, object_name) == before, "put back")
    eventually(lambda: (reasserted(controller, resource) or 0) > counted, "counted")


def reasserted(controller: ControllerProcess, resource: Resource) -> float | None:
    """How often somebody else's edit or deletion was undone; None where there is no series."""
    name = f'ringfence_controller_admission_reasserted_total{{kind="{resource.kind}",what='
    found = controller.metrics()
    values = [found.get(f'{name}"{what}"}}') for what in ("edited", "missing")]
    return None if None in values else sum(filter(None, values))


def test_a_start_is_no_edit(running: tuple[Cluster, ControllerProcess]) -> None:
    """Otherwise each install would be told as somebody's attack."""
    _, controller = running
    eventually(controller.in_force, "in force")
    name = "ringfence_controller_admission_reasserted_total"
    found = controller.metrics()
    for kind in ("ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy"):
        assert found[f'{name}{{kind="{kind}",what="start"}}'] > 0


def test_every_resource_of_the_rules_exists(running: tuple[Cluster, ControllerProcess]) -> None:
    cluster, _ = running
    served = set()
    for path in ("/api/v1", "/apis/networking.k8s.io/v1"):
        found = json.loads(cluster.plane.kubectl("get", "--raw", path))
        served |= {(found["groupVersion"], item["name"]) for item in found["resources"]}
    named = set()
    for resource in (VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS):
        for webhook in json.loads(
            cluster.plane.kubectl("get", resource.plural, "ringfence", "-o", "json")
        )["webhooks"]:
            for rule in webhook["rules"]:
                group = f"{rule['apiGroups'][0]}/v1".removeprefix("/")
                named |= {(group, name) for name in rule["resources"]}
    assert named == {
        ("v1", "namespaces"),
        ("v1", "namespaces/status"),
        ("v1", "namespaces/finalize"),
        ("networking.k8s.io/v1", "networkpolicies"),
    }
    assert named <= served


def relabel(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {"client": "test02"}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


def unlabel(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {"client": None}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


def edit_policy(client: Client, namespace: str) -> None:
    patch: Document = {"spec": {"ingress": [{}]}}
    client.patch(NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="test")


def delete_policy(client: Client, namespace: str) -> None:
    client.delete(NETWORK_POLICIES, POLICY, namespace)


def fake_policy(client: Client, namespace: str) -> None:
    meta: Document = {
        "name": "fake",
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "ringfence"},
    }
    client.create(NETWORK_POLICIES, {"metadata": meta, "spec": {"podSelector": {}}}, manager="test")


def put_under_audit(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"annotations": {MODE_ANNOTATION: AUDIT_MODE}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


ATTEMPTS = [relabel, unlabel, relabel_status, relabel_finalize, put_under_audit]
ON_POLICIES = [edit_policy, delete_policy, fake_policy]


@pytest.fixture(scope="module")
def policies_alone(planes: Planes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """No controller, no webhook, no webhook configuration: only the policies in CEL are left."""
    with guarded(tmp_path_factory.mktemp("policies"), plane=planes.one()) as (cluster, controller):
        cluster.make("a-test01")
        eventually(lambda: cluster.isolated("a-test01", "test01"), "isolated")
        assert controller.terminate() == 0
        cluster.stop_webhooks()
        for resource in (VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS):
            cluster.admin.delete(resource, "ringfence")
        anna = cluster.as_user("anna", "team-test01")
        eventually(lambda: annotates(anna, "a-test01"), "webhooks are forgotten")
        yield cluster


def annotates(client: Client, namespace: str) -> bool:
    patch: Document = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "mine"}}}
    try:
        client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")
    except Exception:
        return False
    return True


@pytest.mark.parametrize("attempt", [*ATTEMPTS, *ON_POLICIES], ids=lambda a: a.__name__)
def test_with_nothing_of_ours_running_a_member_still_cannot(
    policies_alone: Cluster, attempt: Callable[[Client, str], None]
) -> None:
    with pytest.raises(Forbidden, match="ringfence-"):
        attempt(policies_alone.as_user("anna", "team-test01"), "a-test01")
    assert policies_alone.isolated("a-test01", "test01")


@pytest.mark.parametrize("attempt", [*ATTEMPTS, *ON_POLICIES], ids=lambda a: a.__name__)
def test_with_nothing_of_ours_running_an_admin_still_can(
    policies_alone: Cluster, attempt: Callable[[Client, str], None], name: Callable[[str], str]
) -> None:
    namespace = name("plain")
    policies_alone.make(namespace)
    meta: Document = {
        "name": POLICY,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "ringfence"},
    }
    policies_alone.admin.create(
        NETWORK_POLICIES, {"metadata": meta, "spec": {"podSelector": {}}}, manager="test"
    )
    policies_alone.label(namespace, "test01")
    petra = policies_alone.as_user("petra", "platform-team")
    eventually(lambda: done(attempt, petra, namespace), "allowed")


def done(attempt: Callable[[Client, str], None], client: Client, namespace: str) -> bool:
    """Kubernetes' own controllers write namespaces, too: a conflict is tried again."""
    try:
        attempt(client, namespace)
    except Conflict:
        return False
    return True
