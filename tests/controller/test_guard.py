"""The guard alone, with nobody who puts anything back: what proves a label and what does not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from generators.kube.client import PatchKind
from generators.kube.documents import Document, mapping
from generators.kube.resources import CONFIG_MAPS, VALIDATING_WEBHOOKS
from generators.objects import Namespace
from tests.controller.cluster import CONTROLLER, SYSTEM, Cluster
from tests.testbed.waiting import eventually
from webhook.guard import GUARD_NAME, Guard, GuardState
from webhook.registration import Target, Wanted, webhooks

pytestmark = pytest.mark.cluster
OLD = Namespace("old", {"client": "test01"}, uid="uid-of-old")
NEW = Namespace("new", {"client": "test01"}, uid="uid-of-new")


def doubtful(_: Iterable[Document]) -> frozenset[str]:
    return frozenset({OLD.uid})


def wanted(cluster: Cluster) -> Wanted:
    """A webhook that nobody answers: it fails closed, and that is what counts."""
    return webhooks(Target(url="https://127.0.0.1:1"), cluster.plane.ca, CONTROLLER, SYSTEM)[0]


def in_force(cluster: Cluster) -> Guard:
    guard = Guard(cluster.admin, SYSTEM, settle_seconds=0.0)
    guard.resume(wanted(cluster), "client")
    eventually(lambda: stepped(guard, cluster), "in force")
    return guard


def stepped(guard: Guard, cluster: Cluster) -> bool:
    guard.step(wanted(cluster), "client", doubtful, lambda _, __: None)
    return guard.state is GuardState.IN_FORCE


def test_an_epoch_ends_the_moment_the_configuration_is_touched(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    assert guard.proven(want, NEW)
    assert not guard.proven(want, OLD)
    assert not guard.proven(want, Namespace("kube-system", NEW.labels, uid="u"))
    again = Guard(fresh.admin, SYSTEM, settle_seconds=0.0)
    again.resume(want, "client")
    assert again.proven(want, NEW)
    assert not again.proven(want, OLD)
    other_key = Guard(fresh.admin, SYSTEM, settle_seconds=0.0)
    other_key.resume(want, "tenant")
    assert not other_key.proven(want, NEW)

    live = fresh.admin.get(VALIDATING_WEBHOOKS, "ringfence")
    fresh.admin.delete(VALIDATING_WEBHOOKS, "ringfence")
    assert not guard.proven(want, NEW)
    meta: Document = {"name": "ringfence", "labels": mapping(live, "metadata")["labels"]}
    fresh.admin.create(VALIDATING_WEBHOOKS, live | {"metadata": meta}, manager="test")
    assert not guard.proven(want, NEW)


def test_an_edit_that_is_undone_ends_an_epoch_too(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    for value in ("Ignore", "Fail"):
        patch: Document = {
            "webhooks": [{"name": "namespaces.ringfence.io", "failurePolicy": value}]
        }
        kind = PatchKind.STRATEGIC
        fresh.admin.patch(VALIDATING_WEBHOOKS, "ringfence", "", patch, kind=kind, manager="test")
        assert not guard.proven(want, NEW)


def test_a_label_that_was_set_right_is_proven_from_then_on(fresh: Cluster) -> None:
    guard, want = in_force(fresh), wanted(fresh)
    guard.corrected(OLD.uid)
    assert guard.proven(want, OLD)


def test_what_is_written_down_is_put_back(fresh: Cluster) -> None:
    """Deleted, and forged by somebody who may write there."""
    guard = in_force(fresh)
    written = fresh.admin.get(CONFIG_MAPS, GUARD_NAME, SYSTEM)["data"]
    fresh.admin.delete(CONFIG_MAPS, GUARD_NAME, SYSTEM)
    assert stepped(guard, fresh)
    assert fresh.admin.get(CONFIG_MAPS, GUARD_NAME, SYSTEM)["data"] == written
    forged: Document = {"data": {"unproven": "[]", "generation": "7"}}
    kind = PatchKind.MERGE
    fresh.admin.patch(CONFIG_MAPS, GUARD_NAME, SYSTEM, forged, kind=kind, manager="test")
    assert stepped(guard, fresh)
    assert fresh.admin.get(CONFIG_MAPS, GUARD_NAME, SYSTEM)["data"] == written
