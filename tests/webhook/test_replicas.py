"""The controller learns what a replica has read, also where admission answers only API servers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from generators.kube.client import Client
from tests.testbed.processes import free_ports
from tests.testbed.waiting import eventually
from tests.webhook.processes import Webhook, prepare, running
from tests.webhook.reviews import KEY, TENANTS
from webhook.registration.configuration import WebhookTarget
from webhook.registration.replicas import Replica, ReplicaQuestion, ask

NEWER = f"{TENANTS}# newer\n"


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    folder = prepare(tmp_path_factory.mktemp("webhook"))
    with running(folder, "--health-listen", "127.0.0.1:0") as process:
        yield process


@pytest.fixture
def nobody(tmp_path: Path) -> Client:
    """A URL needs no API server."""
    file = tmp_path / "kubeconfig"
    cluster = {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    user = {"name": "x", "user": {"token": "x"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
    return Client.connect(str(file))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def health_of(webhook: Webhook) -> int:
    return int(str(webhook.events("listening")[0]["health"]).rpartition(":")[2])


def said(webhook: Webhook, nobody: Client, health: int, file: str) -> set[Replica]:
    target = WebhookTarget(url=f"https://127.0.0.1:{webhook.port}", health=health)
    bundle = (webhook.folder / "ca.crt").read_bytes()
    return set(ask(nobody, ReplicaQuestion(target, bundle, file, KEY)))


def test_the_page_of_files_says_what_a_refusal_says(webhook: Webhook, nobody: Client) -> None:
    (webhook.folder / "tenants.yaml").write_text(NEWER)
    first, second = digest(TENANTS), digest(NEWER)
    health, here = health_of(webhook), f"127.0.0.1:{webhook.port}"
    expected = {Replica(here, second, second)}
    eventually(lambda: said(webhook, nobody, health, second) == expected, "the newer file is read")
    for file in (first, second, "f" * 64):
        asked = said(webhook, nobody, 0, file)
        assert said(webhook, nobody, health, file) == asked
        assert {each.decided for each in asked} == {"" if file == "f" * 64 else file}


def test_who_has_no_such_page_is_asked_as_the_api_server_asks(
    webhook: Webhook, nobody: Client
) -> None:
    """A webhook of before, or a port that nothing answers."""
    file = digest((webhook.folder / "tenants.yaml").read_text())
    asked = said(webhook, nobody, 0, file)
    assert {each.decided for each in asked} == {file}
    for other in (webhook.metrics_port, free_ports(1)[0]):
        assert said(webhook, nobody, other, file) == asked


def test_allow_from_does_not_hide_a_replica(tmp_path: Path, nobody: Client) -> None:
    closed = ("--allow-from", "192.0.2.1/32", "--health-listen", "127.0.0.1:0")
    folder = prepare(tmp_path)
    webhook = Webhook(folder, *closed, ready=lambda made: bool(health_of(made)))
    try:
        file = digest(TENANTS)
        assert said(webhook, nobody, 0, file) == set()
        here = Replica(f"127.0.0.1:{webhook.port}", file, file)
        assert said(webhook, nobody, health_of(webhook), file) == {here}
    finally:
        webhook.stop()
