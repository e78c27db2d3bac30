"""The guard alone, with nobody who puts anything back: what proves a label and what does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from generators.documents.json import Document, mapping
from generators.kube.client import PatchKind
from generators.kube.resources import CONFIG_MAPS, VALIDATING_WEBHOOKS
from generators.objects import Namespace
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig
from generators.tenants.packed import GUARD_NAME
from tests.controller.cluster import CONTROLLER, SYSTEM, TENANTS, Cluster
from tests.testbed.waiting import eventually
from webhook.registration.configuration import (
    Registrar,
    WantedRegistration,
    WebhookTarget,
    webhooks,
)
from webhook.registration.epoch import Unproven
from webhook.registration.guard import (
    AdmissionGuard,
    AnotherFile,
    GuardState,
    GuardTiming,
    TenantFileWish,
)
from webhook.registration.replicas import Replica

pytestmark = pytest.mark.cluster
OLD = Namespace("old", {"client": "test01"}, uid="uid-of-old")
NEW = Namespace("new", {"client": "test01"}, uid="uid-of-new")
FILE = TENANTS.encode()
NEXT = TENANTS.replace("labelKey: client", "labelKey: proof").encode()
CONFIG = parse_tenants(FILE, "tenants.yaml")


def wanted(cluster: Cluster, file: str = CONFIG.digest, closed: bool = False) -> WantedRegistration:
    """A webhook that nobody answers: it fails closed, and that is what counts."""
    target = WebhookTarget(url="https://127.0.0.1:1")
    ca = cluster.plane.ca
    return webhooks(target, ca, CONTROLLER, SYSTEM, file=file, closed=closed)[0]


def wish(
    cluster: Cluster, data: bytes = FILE, replicas: tuple[Replica, ...] = ()
) -> TenantFileWish:
    @contextlib.contextmanager
    def hand_over() -> Iterator[Unproven]:
        yield Unproven(frozenset({OLD.uid}))

    config: TenantConfig = parse_tenants(data, "tenants.yaml")
    return TenantFileWish(
        config,
        data,
        lambda file, closed: wanted(cluster, file, closed),
        lambda _: list(replicas),
        hand_over,
    )


def guard_of(cluster: Cluster, replica_seconds: float = 120.0) -> AdmissionGuard:
    registrar = Registrar(cluster.admin, lambda _, __: None)
    return AdmissionGuard(cluster.admin, SYSTEM, registrar, GuardTiming(0.0, replica_seconds))


def in_force(cluster: Cluster, replica_seconds: float = 120.0) -> AdmissionGuard:
    guard = guard_of(cluster, replica_seconds)
    guard.resume(wanted(cluster))
    eventually(lambda: stepped(guard, wish(cluster)), "in force")
    return guard


def stepped(guard: AdmissionGuard, wanted: TenantFileWish) -> bool:
    guard.step(wanted)
    epoch = guard.epoch
    settled = guard.state is GuardState.IN_FORCE and epoch is not None
    return settled and epoch is not None and epoch.file == wanted.config.digest


def path_of_namespaces(cluster: Cluster) -> str:
    live = cluster.admin.get(VALIDATING_WEBHOOKS, "ringfence")
    webhooks = live["webhooks"]
    assert isinstance(webhooks, list)
    return str(webhooks[0]["clientConfig"]["url"]).removeprefix("https://127.0.0.1:1")


def test_an_epoch_ends_the_moment_the_configuration_is_touched(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    assert guard.proven(want, NEW, CONFIG.digest)
    assert not guard.proven(want, OLD, CONFIG.digest)
    assert not guard.proven(want, Namespace("kube-system", NEW.labels, uid="u"), CONFIG.digest)
    again = guard_of(fresh)
    again.resume(want)
    assert again.proven(want, NEW, CONFIG.digest)
    assert not again.proven(want, OLD, CONFIG.digest)

    live = fresh.admin.get(VALIDATING_WEBHOOKS, "ringfence")
    fresh.admin.delete(VALIDATING_WEBHOOKS, "ringfence")
    assert not guard.proven(want, NEW, CONFIG.digest)
    meta: Document = {"name": "ringfence", "labels": mapping(live, "metadata")["labels"]}
    fresh.admin.create(VALIDATING_WEBHOOKS, live | {"metadata": meta}, manager="test")
    assert not guard.proven(want, NEW, CONFIG.digest)


def test_an_epoch_answers_for_its_own_file_only(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    with pytest.raises(AnotherFile):
        guard.proven(want, NEW, "of another file")
    epoch = guard.epoch
    assert epoch is not None
    assert epoch.config("tenants.yaml") == CONFIG


def test_another_file_waits_for_every_replica_and_keeps_the_epoch(fresh: Cluster) -> None:
    guard, before = in_force(fresh), CONFIG.digest
    behind = (Replica("10.0.0.1:8443", before, before),)
    late = wish(fresh, NEXT, behind)
    for _ in range(3):
        assert not stepped(guard, late)
        assert guard.state is GuardState.CHANGING
        assert guard.behind == ("10.0.0.1:8443",)
        assert guard.proven(wanted(fresh), NEW, before)
        assert path_of_namespaces(fresh) == f"/validate/{before}"


def test_another_key_is_closed_until_a_refusal_by_the_new_file_was_seen(fresh: Cluster) -> None:
    """Nobody answers here, so no refusal says by which file: the old epoch stays."""
    guard, before, ready = in_force(fresh), CONFIG.digest, wish(fresh, NEXT)
    for _ in range(3):
        assert not stepped(guard, ready)
        assert guard.state is GuardState.SETTLING
        assert path_of_namespaces(fresh) == f"/validate/{ready.config.digest}/closed"
        assert guard.proven(wanted(fresh), NEW, before)
    again = guard_of(fresh)
    assert again.resume(wanted(fresh)) is not None


def test_after_its_time_another_file_is_in_force_closed_for_who_has_not_read_it(
    fresh: Cluster,
) -> None:
    guard = in_force(fresh, replica_seconds=0.0)
    late = wish(fresh, NEXT, (Replica("10.0.0.1:8443", "", CONFIG.digest),))
    eventually(lambda: stepped(guard, late), "in force")
    assert path_of_namespaces(fresh) == f"/validate/{late.config.digest}"
    assert guard.proven(wanted(fresh), NEW, late.config.digest)


def test_an_edit_that_is_undone_ends_an_epoch_too(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    for value in ("Ignore", "Fail"):
        patch: Document = {
            "webhooks": [{"name": "namespaces.ringfence.io", "failurePolicy": value}]
        }
        kind = PatchKind.STRATEGIC
        fresh.admin.patch(VALIDATING_WEBHOOKS, "ringfence", "", patch, kind=kind, manager="test")
        assert not guard.proven(want, NEW, CONFIG.digest)


def test_a_label_that_was_set_right_is_proven_from_then_on(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    guard.corrected(OLD.uid)
    assert guard.proven(want, OLD, CONFIG.digest)


def test_what_is_written_down_is_put_back(fresh: Cluster) -> None:
    """Deleted, and forged by somebody who may write there."""
    guard = in_force(fresh)
    written = fresh.admin.get(CONFIG_MAPS, GUARD_NAME, SYSTEM)["data"]
    fresh.admin.delete(CONFIG_MAPS, GUARD_NAME, SYSTEM)
    assert stepped(guard, wish(fresh))
    assert fresh.admin.get(CONFIG_MAPS, GUARD_NAME, SYSTEM)["data"] == written
    forged: Document = {"data": {"unproven": "[]", "generation": "7"}}
    kind = PatchKind.MERGE
    fresh.admin.patch(CONFIG_MAPS, GUARD_NAME, SYSTEM, forged, kind=kind, manager="test")
    assert stepped(guard, wish(fresh))
    assert fresh.admin.get(CONFIG_MAPS, GUARD_NAME, SYSTEM)["data"] == written
