"""What policies may write beside the usual kinds is said once, by the leading controller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from bench.parts.replay import Replayed
from generators.documents.json import Document
from generators.kube.resources import CONFIG_MAPS
from generators.labels import MANAGED_BY, MANAGER
from tests.testbed.waiting import eventually
from webhook.background.access import rights
from webhook.controller.status import ClusterStatus
from webhook.kept import STATUS_NAME
from webhook.policies import desk
from webhook.policies.kinds import AllowedKinds
from webhook.rbac import RbacRule
from webhook.reload import TenantFile
from webhook.settings import DEFAULT_CONTROLLER

HOME = "ringfence-system"


def status(*kinds: str, by: str = MANAGER) -> Document:
    said = ClusterStatus("0" * 64, synchronized=True, tenants={}, namespaces=0, allowed_kinds=kinds)
    labels = {MANAGED_BY: by}
    metadata = {"name": STATUS_NAME, "namespace": HOME, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": said.data(1)}


@contextmanager
def following(*first: Document) -> Iterator[tuple[AllowedKinds, Replayed]]:
    client = Replayed({CONFIG_MAPS: map(orjson.dumps, first)})
    kinds = AllowedKinds(client, HOME, lambda: None)
    kinds.start()
    try:
        eventually(lambda: kinds.synced, "the status is known")
        yield kinds, client
    finally:
        kinds.stop()


def test_the_list_is_the_controller_s_and_follows_it() -> None:
    with following(status("Secret", "apps/v1/Deployment")) as (kinds, client):
        assert kinds.current == ("Secret", "apps/v1/Deployment")
        assert not kinds.checks()
        client.send(CONFIG_MAPS, "MODIFIED", status())
        eventually(lambda: kinds.current == (), "the list is empty")


@pytest.mark.parametrize(
    "first",
    [
        pytest.param((), id="no controller yet"),
        pytest.param((status("Secret", by="somebody"),), id="of somebody else"),
    ],
)
def test_nothing_is_allowed_that_no_controller_says(first: tuple[Document, ...]) -> None:
    with following(*first) as (kinds, _):
        assert kinds.current == ()


def test_a_webhook_that_no_controller_told_says_so() -> None:
    with following() as (kinds, _):
        (check,) = kinds.checks()
        assert f"{HOME}/{STATUS_NAME}" in str(check)
        assert str(check).startswith("[!]")


def test_the_webhook_judges_policies_by_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Replayed({CONFIG_MAPS: map(orjson.dumps, [status("Secret")])})
    monkeypatch.setattr(desk, "_connected", lambda _: client)
    file = tmp_path / "tenants.yaml"
    file.write_text("apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\ntenants: []\n")
    settings = desk.PolicySettings(("cluster",))
    webhook = desk.PolicyDesk(settings, TenantFile(file), DEFAULT_CONTROLLER)
    assert ("", "Secret") not in (webhook.book.limits.kinds or ())
    webhook.start()
    try:
        eventually(lambda: ("", "Secret") in (webhook.book.limits.kinds or ()), "it is allowed")
        client.send(CONFIG_MAPS, "MODIFIED", status())
        eventually(lambda: ("", "Secret") not in (webhook.book.limits.kinds or ()), "no longer")
    finally:
        webhook.stop()


def test_a_webhook_may_read_the_list_and_where_it_reads_no_others_no_other_configmap(
    tmp_path: Path,
) -> None:
    (rule,) = rights([str(tmp_path)]).system
    assert rule == RbacRule(CONFIG_MAPS, ("get", "list", "watch"), rule.why, (STATUS_NAME,))
    assert not rights(["cluster"]).system
    assert not rights([]).system
