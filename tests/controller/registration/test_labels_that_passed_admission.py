"""How the controller learns the webhook's decision: labels made in force count, others do not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import pytest

from generators.documents.json import Document
from generators.isolation.record import Basis
from generators.kube.client import Client, PatchKind
from generators.kube.errors import KubeError, ServerFailed
from generators.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CONFIG_MAPS,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
)
from tests.controller.cluster import SYSTEM, TENANTS, Cluster, ControllerProcess
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster
Name = Callable[[str], str]
POLICIES = ("ringfence-tenant-label", "ringfence-generated-policies")


def switch_admission_off(cluster: Cluster) -> None:
    """What only an administrator of the cluster can do."""
    for resource in (VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS):
        cluster.admin.delete(resource, "ringfence")
    for policy in POLICIES:
        cluster.admin.delete(ADMISSION_POLICY_BINDINGS, policy)
        cluster.admin.delete(ADMISSION_POLICIES, policy)
    # Nothing else refuses a label that no tenant has.
    eventually(lambda: labels_freely(cluster), "admission is off")


def labels_freely(cluster: Cluster) -> bool:
    done = cluster.plane.try_kubectl(
        *("label", "namespace", "default", "client=Nobody", "--dry-run=server", "--overwrite")
    )
    return done.returncode == 0


def started(cluster: Cluster) -> ControllerProcess:
    controller = cluster.controller()
    cluster.webhook()
    eventually(controller.in_force, "in force")
    return controller


def test_a_members_namespace_is_the_tenants_whatever_its_name(
    guarded_cluster: Cluster, name: Name
) -> None:
    namespace = name("plain")
    guarded_cluster.make(namespace, guarded_cluster.as_user("anna", "team-test01"))
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "isolated")
    entry = guarded_cluster.record()[guarded_cluster.uid(namespace)]
    assert entry.basis is Basis.ADMISSION


def test_an_admin_gives_a_namespace_away_moves_it_and_takes_it_back(
    guarded_cluster: Cluster, name: Name
) -> None:
    namespace = name("plain")
    petra = guarded_cluster.as_user("petra", "platform-team")
    guarded_cluster.make(namespace, petra)
    guarded_cluster.label(namespace, "test01", petra)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "given away")
    guarded_cluster.label(namespace, "test02", petra)
    eventually(lambda: guarded_cluster.isolated(namespace, "test02"), "moved")
    eventually(lambda: "TenantChanged" in guarded_cluster.reasons(namespace), "told")
    guarded_cluster.label(namespace, None, petra)
    eventually(lambda: guarded_cluster.nobodys(namespace), "taken back")


def test_a_moved_namespace_loses_what_its_former_tenant_set(
    guarded_cluster: Cluster, name: Name
) -> None:
    namespace = name("plain")
    petra = guarded_cluster.as_user("petra", "platform-team")
    guarded_cluster.make(namespace, petra, labels={"app": "shop"})
    guarded_cluster.label(namespace, "test01", petra)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "given away")
    assert guarded_cluster.labels(namespace)["cost-centre"] == "4711"
    guarded_cluster.label(namespace, "test02", petra)
    # The webhook has done it already.
    assert "cost-centre" not in guarded_cluster.labels(namespace)
    assert guarded_cluster.labels(namespace)["app"] == "shop"
    eventually(lambda: guarded_cluster.isolated(namespace, "test02"), "moved")
    guarded_cluster.label(namespace, "test01", petra)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "moved back")
    guarded_cluster.label(namespace, None, petra)
    eventually(lambda: guarded_cluster.nobodys(namespace), "taken back")
    eventually(lambda: "cost-centre" not in guarded_cluster.labels(namespace), "by the controller")
    assert guarded_cluster.labels(namespace)["app"] == "shop"


def test_a_namespace_that_another_file_moves_loses_what_its_former_tenant_set(
    fresh: Cluster,
) -> None:
    controller = fresh.controller(webhook=False)
    names = ("legacy-shop", "unlabelled")
    claim = "names: [legacy-shop, unlabelled]"
    first = TENANTS.replace("names: [legacy-shop]", claim)
    fresh.tenants.write_text(first)
    for namespace in names:
        fresh.make(namespace)
        eventually(partial(fresh.isolated, namespace, "test01"), "test01's")
        assert fresh.labels(namespace)["cost-centre"] == "4711"
    assert controller.terminate() == 0
    fresh.label("unlabelled", None)
    moved = first.replace(claim + ", ", "")
    moved = moved.replace('{suffixes: ["-test02"]}', f'{{{claim}, suffixes: ["-test02"]}}')
    fresh.tenants.write_text(moved)
    fresh.controller(webhook=False)
    for namespace in names:
        eventually(partial(fresh.isolated, namespace, "test02"), "test02's")
        assert "cost-centre" not in fresh.labels(namespace)


def test_an_admin_may_contradict_the_name_and_it_lasts(
    guarded_cluster: Cluster, name: Name
) -> None:
    namespace = name("test01")
    petra = guarded_cluster.as_user("petra", "platform-team")
    guarded_cluster.make(namespace, petra, labels={"client": "test02"})
    eventually(lambda: guarded_cluster.isolated(namespace, "test02"), "the label counts")
    guarded_cluster.label(namespace, None, petra)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "the name counts again")


def test_a_label_that_was_there_before_admission_proves_nothing(fresh: Cluster) -> None:
    fresh.make("forged", labels={"client": "test01"})
    fresh.make("forged-test02", labels={"client": "test01"})
    fresh.make("true-test02", labels={"client": "test02"})
    fresh.make("unknown", labels={"client": "nobody-knows"})
    started(fresh)
    eventually(lambda: fresh.nobodys("forged"), "removed")
    eventually(lambda: fresh.isolated("forged-test02", "test02"), "the name decides")
    eventually(lambda: fresh.isolated("true-test02", "test02"), "confirmed")
    eventually(lambda: fresh.nobodys("unknown"), "unknown tenant removed")
    eventually(lambda: "TenantLabelSetBack" in fresh.reasons("forged"), "told")


def test_without_a_webhook_the_name_decides(fresh: Cluster) -> None:
    fresh.controller(webhook=False)
    eventually(fresh.synchronized, "synchronized")
    fresh.make("forged", labels={"client": "test01"})
    fresh.make("forged-test02", labels={"client": "test01"})
    eventually(lambda: fresh.nobodys("forged"), "removed")
    eventually(lambda: fresh.isolated("forged-test02", "test02"), "the name decides")


def test_decisions_of_the_webhook_are_believed_though_the_controller_was_down(
    fresh: Cluster,
) -> None:
    first = started(fresh)
    assert first.terminate() == 0
    fresh.make("annas", fresh.as_user("anna", "team-test01"))
    fresh.make("bobs", fresh.as_user("bob", "team-test02"))
    second = fresh.controller()
    eventually(lambda: fresh.isolated("annas", "test01"), "believed")
    eventually(lambda: fresh.isolated("bobs", "test02"), "believed")
    # It has not begun anew: the epoch that was written down goes on.
    assert not second.events("admission_in_force")


def test_labels_forged_while_admission_and_controller_were_off_are_set_back(
    fresh: Cluster,
) -> None:
    first = started(fresh)
    fresh.make("annas", fresh.as_user("anna", "team-test01"))
    fresh.make("plain")
    eventually(lambda: fresh.isolated("annas", "test01"), "isolated")
    assert first.terminate() == 0
    registered = {
        resource: fresh.admin.get(resource, "ringfence")
        for resource in (VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS)
    }
    switch_admission_off(fresh)
    fresh.label("annas", "test02")
    fresh.label("plain", "test01")
    for resource, document in registered.items():
        meta: Document = {
            "name": "ringfence",
            "labels": {"app.kubernetes.io/managed-by": "ringfence"},
        }
        fresh.admin.create(resource, document | {"metadata": meta}, manager="test")
    fresh.controller()
    eventually(lambda: fresh.isolated("annas", "test01"), "the record wins")
    eventually(lambda: fresh.nobodys("plain"), "set back")
    assert "TenantLabelSetBack" in fresh.reasons("annas")


def test_an_edit_that_was_undone_breaks_the_proof_too(fresh: Cluster) -> None:
    first = started(fresh)
    fresh.make("plain")
    assert first.terminate() == 0
    set_failure_policy(fresh, "Ignore")
    fresh.label("plain", "test01", fresh.admin)
    set_failure_policy(fresh, "Fail")
    second = fresh.controller()
    eventually(second.in_force, "in force anew")
    eventually(lambda: fresh.nobodys("plain"), "set back")
    assert second.events("admission_in_force")


def set_failure_policy(cluster: Cluster, value: str) -> None:
    patch: Document = {"webhooks": [{"name": "namespaces.ringfence.io", "failurePolicy": value}]}
    kind = PatchKind.STRATEGIC
    cluster.admin.patch(VALIDATING_WEBHOOKS, "ringfence", "", patch, kind=kind, manager="test")


def test_a_label_forged_under_a_running_controller_is_set_back(fresh: Cluster) -> None:
    started(fresh)
    fresh.make("plain")
    for number in range(5):
        eventually(lambda: forged(fresh), "admission lets the label pass")
        eventually(lambda: fresh.nobodys("plain"), f"attempt {number} is set back")


def forged(cluster: Cluster) -> bool:
    """Switch off and forge as fast as a script can, in a race with the controller."""
    for resource, name in (
        (ADMISSION_POLICY_BINDINGS, POLICIES[0]),
        (VALIDATING_WEBHOOKS, "ringfence"),
    ):
        with contextlib.suppress(KubeError):
            cluster.admin.delete(resource, name)
    with contextlib.suppress(KubeError):
        cluster.label("plain", "test01", cluster.as_user("robot", "robots"))
        return True
    return False


def test_a_webhook_that_has_another_file_than_the_controller_refuses(fresh: Cluster) -> None:
    controller = started(fresh)
    newer = TENANTS + "  - name: test03\n    members: {groups: [team-test02]}\n"
    newer = newer.replace(
        "members: {groups: [team-test02, everywhere]}", "members: {groups: [everywhere]}"
    )
    # The controller's file stays as it was: only this webhook has heard of test03.
    (fresh.folder / "newer.yaml").write_text(newer)
    fresh.stop_webhooks()
    fresh.webhook(tenants=fresh.folder / "newer.yaml")
    bob = fresh.as_user("bob", "team-test02")
    with pytest.raises(ServerFailed, match="this webhook has only read"):
        fresh.make("bobs", bob)
    eventually(lambda: "have not read the tenant file" in controller.get("/readyz")[1], "told")
    fresh.tenants.write_text(newer)
    eventually(controller.in_force, "in force")
    eventually(lambda: made(fresh, "bobs", bob), "accepted")
    eventually(lambda: fresh.isolated("bobs", "test03"), "confirmed with the newer file")
    assert controller.ended() is None


def made(cluster: Cluster, name: str, by: Client) -> bool:
    with contextlib.suppress(ServerFailed):
        cluster.make(name, by)
        return True
    return False


def test_a_lost_record_is_made_again_from_labels_that_passed(fresh: Cluster) -> None:
    started(fresh)
    fresh.make("annas", fresh.as_user("anna", "team-test01"))
    eventually(lambda: fresh.isolated("annas", "test01"), "isolated")
    for document in fresh.admin.list_all(CONFIG_MAPS):
        meta = document["metadata"]
        assert isinstance(meta, dict)
        if str(meta["name"]).startswith("ringfence-record-"):
            fresh.admin.delete(CONFIG_MAPS, str(meta["name"]), SYSTEM)
    eventually(lambda: fresh.isolated("annas", "test01"), "recorded again")
