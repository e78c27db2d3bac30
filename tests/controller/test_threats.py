"""Attacks on tenancy, each through a real API server, each beside what must stay possible.

Members have every right on namespaces and NetworkPolicies by RBAC; only admission is in their way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from generators.documents.json import Document, mapping, strings, text
from generators.kube.client import Client, DryRun, PatchKind
from generators.kube.errors import BadRequest, Forbidden, Invalid, KubeError
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES, SERVICE_ACCOUNTS
from generators.labels import AUDIT_MODE, MANAGED_BY, MANAGER, MODE_ANNOTATION
from generators.objects import NAME_LABEL
from tests.controller import requests
from tests.controller.cluster import POLICY, Cluster
from tests.testbed.waiting import eventually, holds_for

pytestmark = pytest.mark.cluster
Name = Callable[[str], str]
Attempt = Callable[[Client, str], None]


@pytest.fixture
def anna(guarded_cluster: Cluster) -> Client:
    """A member of test01."""
    return guarded_cluster.as_user("anna", "team-test01")


@pytest.fixture
def bob(guarded_cluster: Cluster) -> Client:
    """A member of test02."""
    return guarded_cluster.as_user("bob", "team-test02")


@pytest.fixture
def petra(guarded_cluster: Cluster) -> Client:
    """An admin of the tenant file."""
    return guarded_cluster.as_user("petra", "platform-team")


@pytest.fixture
def robot(guarded_cluster: Cluster) -> Client:
    """Nobody's member, with all rights by RBAC."""
    return guarded_cluster.as_user("robot", "robots")


@pytest.fixture
def annas(guarded_cluster: Cluster, name: Name, anna: Client) -> str:
    """A namespace of test01."""
    namespace = name("test01")
    guarded_cluster.make(namespace, anna)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "isolated")
    return namespace


# --- 1: somebody else's label on a new namespace ------------------------------------------------


def test_a_new_namespace_with_another_tenants_label_is_refused(
    guarded_cluster: Cluster, name: Name, anna: Client
) -> None:
    namespace = name("plain")
    with pytest.raises(Forbidden, match="member of tenant test01"):
        guarded_cluster.make(namespace, anna, labels={"client": "test02"})
    guarded_cluster.make(namespace, anna, labels={"client": "test01"})
    assert guarded_cluster.tenant(namespace) == "test01"


def test_a_new_namespace_with_another_tenants_name_is_refused(
    guarded_cluster: Cluster, name: Name, anna: Client, bob: Client
) -> None:
    namespace = name("test02")
    with pytest.raises(Forbidden, match="tenant test02"):
        guarded_cluster.make(namespace, anna)
    guarded_cluster.make(namespace, bob)
    assert guarded_cluster.tenant(namespace) == "test02"


def test_who_belongs_to_nobody_cannot_choose_a_tenant(
    guarded_cluster: Cluster, name: Name, robot: Client
) -> None:
    namespace = name("plain")
    with pytest.raises(Forbidden, match="proves nothing"):
        guarded_cluster.make(namespace, robot, labels={"client": "test01"})
    guarded_cluster.make(namespace, robot)
    assert guarded_cluster.tenant(namespace) is None


# --- 2, 3, 4, 6: changing or removing the label, by any kind of request -------------------------


@pytest.mark.parametrize(
    "attempt",
    [*requests.RELABEL, *requests.UNLABEL, requests.further_label],
    ids=lambda a: a.__name__,
)
def test_a_member_cannot_change_whose_a_namespace_is(
    guarded_cluster: Cluster, annas: str, anna: Client, attempt: Attempt
) -> None:
    with pytest.raises(Forbidden):
        attempt(anna, annas)
    assert guarded_cluster.isolated(annas, "test01")


@pytest.mark.parametrize("attempt", requests.LEAVE_OUT, ids=lambda a: a.__name__)
def test_what_a_members_request_leaves_out_is_kept(
    guarded_cluster: Cluster, annas: str, anna: Client, attempt: Attempt
) -> None:
    before = guarded_cluster.labels(annas)
    attempt(anna, annas)
    attempt(anna, annas)
    assert guarded_cluster.labels(annas) == before
    assert guarded_cluster.isolated(annas, "test01")


@pytest.mark.parametrize("attempt", requests.RELABEL, ids=lambda a: a.__name__)
def test_an_admin_moves_a_namespace_by_the_same_request(
    guarded_cluster: Cluster, annas: str, petra: Client, attempt: Attempt
) -> None:
    retried(attempt, petra, annas)
    eventually(lambda: guarded_cluster.isolated(annas, "test02"), "moved")


@pytest.mark.parametrize(
    "attempt",
    [requests.unlabel_merge, requests.unlabel_status, requests.unlabel_finalize],
    ids=lambda a: a.__name__,
)
def test_an_admin_removes_a_tenant_by_the_same_request(
    guarded_cluster: Cluster, name: Name, anna: Client, petra: Client, attempt: Attempt
) -> None:
    namespace = name("plain")
    guarded_cluster.make(namespace, anna)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "isolated")
    retried(attempt, petra, namespace)
    eventually(lambda: guarded_cluster.nobodys(namespace), "nobody's")


def retried(attempt: Attempt, client: Client, namespace: str) -> None:
    """Until no other writer is in between."""

    def done() -> bool:
        try:
            attempt(client, namespace)
        except KubeError as error:
            if error.status.code != 409:
                raise
            return False
        return True

    eventually(done, "no conflict")


@pytest.mark.parametrize("subresource", ["", "status"])
def test_only_an_admin_puts_a_namespace_under_audit(
    guarded_cluster: Cluster, annas: str, anna: Client, petra: Client, subresource: str
) -> None:
    def attempt(client: Client, _: str) -> None:
        patch: Document = {"metadata": {"annotations": {MODE_ANNOTATION: AUDIT_MODE}}}
        client.patch(
            NAMESPACES,
            annas,
            "",
            patch,
            kind=PatchKind.MERGE,
            manager="test",
            subresource=subresource,
        )

    with pytest.raises(Forbidden, match=MODE_ANNOTATION):
        attempt(anna, annas)
    retried(attempt, petra, annas)


def test_other_labels_of_a_namespace_stay_the_members(
    guarded_cluster: Cluster, annas: str, anna: Client
) -> None:
    guarded_cluster.label(annas, "yes", anna, key="team")
    assert guarded_cluster.labels(annas)["team"] == "yes"
    guarded_cluster.label(annas, None, anna, key="team")
    assert guarded_cluster.isolated(annas, "test01")


def test_label_removed_now_and_set_otherwise_later_is_refused(
    guarded_cluster: Cluster, annas: str, anna: Client, bob: Client
) -> None:
    requests.unlabel_merge(anna, annas)
    assert guarded_cluster.tenant(annas) == "test01"
    with pytest.raises(Forbidden):
        requests.relabel_merge(bob, annas)
    assert guarded_cluster.isolated(annas, "test01")


# --- 5: namespaces that belong to nobody, or to the system --------------------------------------


@pytest.mark.parametrize("attempt", requests.RELABEL, ids=lambda a: a.__name__)
@pytest.mark.parametrize(
    "kind", ["plain", "default", "kube-system", "kube-public", "ringfence-system"]
)
def test_nobodys_and_the_systems_namespaces_cannot_be_adopted(
    guarded_cluster: Cluster, name: Name, bob: Client, kind: str, attempt: Attempt
) -> None:
    namespace = kind
    if kind == "plain":
        namespace = name("plain")
        guarded_cluster.make(namespace)
    with pytest.raises((Forbidden, Invalid)):
        retried(attempt, bob, namespace)
    assert guarded_cluster.nobodys(namespace)


@pytest.mark.parametrize("namespace", ["kube-system", "ringfence-system"])
def test_not_even_an_admins_label_makes_a_system_namespace_a_tenants(
    guarded_cluster: Cluster, petra: Client, namespace: str
) -> None:
    guarded_cluster.label(namespace, "test01", petra)
    eventually(lambda: guarded_cluster.nobodys(namespace), "set back")


# --- 7: owner references are nothing to us ------------------------------------------------------


@pytest.mark.parametrize("references", [1, 2], ids=["one reference", "two references"])
@pytest.mark.parametrize("flag", [True, False], ids=["controller", "plain"])
def test_owner_references_decide_nothing(
    guarded_cluster: Cluster, name: Name, anna: Client, bob: Client, references: int, flag: bool
) -> None:
    theirs = name("test02")
    guarded_cluster.make(theirs, bob)
    eventually(lambda: guarded_cluster.isolated(theirs, "test02"), "isolated")
    owners: list[Document] = [
        {
            "apiVersion": "ringfence.io/v1alpha1",
            "kind": "Tenant",
            "name": f"test0{number + 1}",
            "uid": f"00000000-0000-0000-0000-00000000000{number}",
            "controller": flag and number == 0,
        }
        for number in range(references)
    ]
    patch: Document = {"metadata": {"ownerReferences": owners}}
    both: Document = {"metadata": {"ownerReferences": owners, "labels": {"client": "test01"}}}
    with pytest.raises(Forbidden):
        anna.patch(NAMESPACES, theirs, "", both, kind=PatchKind.MERGE, manager="test")
    # kube-controller-manager collects what has no owner, so only a dry run.
    anna.patch(
        *(NAMESPACES, theirs, "", patch), kind=PatchKind.MERGE, manager="test", dry_run=DryRun.ALL
    )
    assert guarded_cluster.isolated(theirs, "test02")


# --- 8: generateName ----------------------------------------------------------------------------


def generate(client: Client, prefix: str, labels: Mapping[str, str] | None = None) -> str:
    document: Document = {"metadata": {"generateName": prefix, "labels": dict(labels or {})}}
    return text(mapping(client.create(NAMESPACES, document, manager="test"), "metadata"), "name")


def test_a_generated_name_is_judged_when_it_is_known(
    guarded_cluster: Cluster, anna: Client, bob: Client, robot: Client
) -> None:
    with pytest.raises(Forbidden, match="tenant test01"):
        generate(bob, "test01-")
    mine = generate(anna, "test01-")
    eventually(lambda: guarded_cluster.isolated(mine, "test01"), "a member's")
    robots = generate(robot, "test01-")
    eventually(lambda: guarded_cluster.isolated(robots, "test01"), "labelled afterwards")


def test_a_forged_name_label_exempts_from_nothing(
    guarded_cluster: Cluster, bob: Client, robot: Client
) -> None:
    with pytest.raises(Forbidden):
        generate(bob, "test01-", {NAME_LABEL: "kube-system"})
    with pytest.raises(Forbidden):
        generate(robot, "plain-", {NAME_LABEL: "kube-system", "client": "test01"})
    made = generate(robot, "plain-", {NAME_LABEL: "kube-system"})
    assert guarded_cluster.labels(made)[NAME_LABEL] == made


# --- 9: look-alikes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["Test02", "test02.", "test02-", "TEST02", "test0", "test022", "t\u0435st02"]
)
def test_values_that_look_like_a_tenant_are_not_it(
    guarded_cluster: Cluster, name: Name, petra: Client, value: str
) -> None:
    namespace = name("plain")
    guarded_cluster.make(namespace)
    with pytest.raises((Forbidden, Invalid)):
        guarded_cluster.label(namespace, value, petra)
    guarded_cluster.label(namespace, "test02", petra)
    eventually(lambda: guarded_cluster.isolated(namespace, "test02"), "the true one")


@pytest.mark.parametrize("key", ["Client", "client.", "x/client", "cl1ent"])
def test_keys_that_look_like_the_label_are_not_it(
    guarded_cluster: Cluster, annas: str, anna: Client, key: str
) -> None:
    if key == "client.":
        with pytest.raises(Invalid):
            guarded_cluster.label(annas, "test02", anna, key=key)
    else:
        guarded_cluster.label(annas, "test02", anna, key=key)
    assert guarded_cluster.isolated(annas, "test01")


# --- 11: while a namespace is being deleted -----------------------------------------------------


@pytest.mark.parametrize(
    "attempt", [*requests.RELABEL, *requests.UNLABEL[:3]], ids=lambda a: a.__name__
)
def test_a_terminating_namespace_is_judged_as_before(
    guarded_cluster: Cluster, annas: str, anna: Client, attempt: Attempt
) -> None:
    blocker: Document = {
        "metadata": {"name": "blocker", "namespace": annas, "finalizers": ["test/blocks"]}
    }
    anna.create(CONFIG_MAPS, blocker, manager="test")
    guarded_cluster.admin.delete(NAMESPACES, annas)
    with pytest.raises(Forbidden):
        retried(attempt, anna, annas)
    assert guarded_cluster.tenant(annas) == "test01"
    released: Document = {"metadata": {"finalizers": None}}
    anna.patch(CONFIG_MAPS, "blocker", annas, released, kind=PatchKind.MERGE, manager="test")


# --- 14: exemptions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label",
    ["control-plane", "admission.ringfence.io/ignore", "ringfence.io/ignore", NAME_LABEL],
)
def test_no_label_exempts_a_namespace(
    guarded_cluster: Cluster, name: Name, anna: Client, label: str
) -> None:
    labels = {label: "kube-system", "client": "test02"}
    with pytest.raises(Forbidden):
        guarded_cluster.make(name("plain"), anna, labels=labels)
    namespace = name("plain")
    guarded_cluster.make(namespace, anna, labels={label: "kube-system"})
    assert guarded_cluster.tenant(namespace) == "test01"


# --- 15: dry run --------------------------------------------------------------------------------


def test_a_dry_run_is_judged_like_the_real_request_and_leaves_nothing(
    guarded_cluster: Cluster, name: Name, anna: Client
) -> None:
    namespace = name("test01")
    document: Document = {"metadata": {"name": namespace}}
    shown = anna.create(NAMESPACES, document, manager="test", dry_run=DryRun.ALL)
    assert strings(mapping(shown, "metadata"), "labels")["client"] == "test01"
    theirs: Document = {"metadata": {"name": name("test02")}}
    with pytest.raises(Forbidden):
        anna.create(NAMESPACES, theirs, manager="test", dry_run=DryRun.ALL)
    holds_for(
        0.5,
        lambda: all(e.namespace != namespace for e in guarded_cluster.record().values()),
        "nothing is recorded",
    )


# --- 16: who asks -------------------------------------------------------------------------------


def test_impersonation_counts_as_who_is_impersonated(guarded_cluster: Cluster, name: Name) -> None:
    plane = guarded_cluster.plane
    as_anna = ("--as", "anna", "--as-group", "team-test01", "--as-group", "team-test01")
    refused = plane.try_kubectl("create", "namespace", name("test02"), *as_anna)
    assert "tenant test02" in refused.stderr
    namespace = name("plain")
    plane.kubectl("create", "namespace", namespace, *as_anna)
    assert guarded_cluster.tenant(namespace) == "test01"


def test_a_member_may_not_impersonate_by_herself(guarded_cluster: Cluster, name: Name) -> None:
    refused = guarded_cluster.plane.try_kubectl(
        *("create", "namespace", name("test02"), "--as-group", "system:masters", "--as", "root"),
        user="anna",
        groups=["team-test01"],
    )
    assert "cannot impersonate" in refused.stderr


def test_a_service_account_is_known_by_its_whole_name(guarded_cluster: Cluster, name: Name) -> None:
    for namespace in ("ci", "ops"):
        if namespace not in guarded_cluster.plane.kubectl("get", "namespaces", "-o", "name"):
            guarded_cluster.make(namespace)
        account: Document = {"metadata": {"name": "deployer", "namespace": namespace}}
        guarded_cluster.admin.create(SERVICE_ACCOUNTS, account, manager="test")
    plane = guarded_cluster.plane
    true, clash = (
        Client.connect(str(plane.service_account_kubeconfig(n, "deployer"))) for n in ("ci", "ops")
    )
    with true, clash:
        first, second = name("plain"), name("plain")
        guarded_cluster.make(first, true)
        guarded_cluster.make(second, clash)
    assert guarded_cluster.tenant(first) == "test01"
    assert guarded_cluster.tenant(second) is None


# --- 18: huge and deep --------------------------------------------------------------------------


def test_a_huge_object_is_judged_or_refused_and_the_webhook_lives(
    guarded_cluster: Cluster, name: Name, anna: Client
) -> None:
    huge = {"metadata": {"annotations": {"a": "x" * (250 * 1024)}, "name": name("test02")}}
    with pytest.raises(Forbidden):
        anna.create(NAMESPACES, dict(huge), manager="test")
    larger: Document = {"metadata": {"name": name("test01"), "annotations": {"a": "x" * 4_000_000}}}
    with pytest.raises((Invalid, BadRequest, KubeError)):
        anna.create(NAMESPACES, larger, manager="test")
    namespace = name("test01")
    guarded_cluster.make(namespace, anna)
    assert guarded_cluster.tenant(namespace) == "test01"


# --- 19, 20, 21: generated policies -------------------------------------------------------------


def widen(client: Client, namespace: str) -> None:
    patch: Document = {"spec": {"ingress": [{}]}}
    client.patch(NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="test")


def remove(client: Client, namespace: str) -> None:
    client.delete(NETWORK_POLICIES, POLICY, namespace)


def remove_all(client: Client, namespace: str) -> None:
    client._send(  # the client has no word for deletecollection, and needs none
        requests.collection_delete(namespace)
    )


def unmark(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {MANAGED_BY: None}}}
    client.patch(NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="test")


def fake(client: Client, namespace: str) -> None:
    client.create(NETWORK_POLICIES, own(namespace, "fake", {MANAGED_BY: MANAGER}), manager="test")


def mark_own(client: Client, namespace: str) -> None:
    client.create(NETWORK_POLICIES, own(namespace, "mine", {}), manager="test")
    patch: Document = {"metadata": {"labels": {MANAGED_BY: MANAGER}}}
    client.patch(NETWORK_POLICIES, "mine", namespace, patch, kind=PatchKind.MERGE, manager="test")


def own(namespace: str, name: str, labels: dict[str, str]) -> Document:
    meta: Document = {"name": name, "namespace": namespace, "labels": labels}
    return {"metadata": meta, "spec": {"podSelector": {}, "ingress": [{}]}}


@pytest.mark.parametrize(
    "attempt", [widen, remove, remove_all, unmark, fake, mark_own], ids=lambda a: a.__name__
)
def test_a_member_cannot_touch_generated_policies(
    guarded_cluster: Cluster, annas: str, anna: Client, attempt: Attempt
) -> None:
    before = guarded_cluster.policy(annas)
    with pytest.raises(Forbidden):
        attempt(anna, annas)
    assert guarded_cluster.policy(annas) == before


def test_policies_of_their_own_are_the_members(
    guarded_cluster: Cluster, annas: str, anna: Client
) -> None:
    anna.create(NETWORK_POLICIES, own(annas, "mine", {"a": "b"}), manager="test")
    patch: Document = {"spec": {"ingress": []}}
    anna.patch(NETWORK_POLICIES, "mine", annas, patch, kind=PatchKind.MERGE, manager="test")
    anna.delete(NETWORK_POLICIES, "mine", annas)
    assert guarded_cluster.isolated(annas, "test01")
