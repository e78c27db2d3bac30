"""Whoever knocks thousands of times hides nobody from the audit report, and no restart does."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from enforcer.answers import control
from enforcer.observe.feed import REMEMBERED
from lab import netns
from tests.enforcer.node import PORT, Document, Node, owned_namespaces, stop
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
mode: audit
tenants:
  - {name: t1, namespaces: {names: [t1]}}
  - {name: t2, namespaces: {names: [t2]}}
  - {name: t3, namespaces: {names: [t3]}}
"""
KNOCKS = REMEMBERED + 1000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build(("t1/a", "t2/quiet", "t3/busy"))
        (tmp_path / "tenants.yaml").write_text(TENANTS)
        yield made
    finally:
        made.remove()


def documents(node: Node) -> list[Document]:
    return [*owned_namespaces("t1", "t2", "t3"), *node.pods()]


def knock(node: Node, source: str, times: int) -> None:
    """Real connections to t1/a, each accepted and closed."""
    wire, listener = node.wires["t1/a"], node.listeners[0]
    for _ in range(times):
        with netns.inside(node.wires[source].netns):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with client:
            client.settimeout(patience(10))
            client.connect((wire.addresses[0], PORT))
            listener.accept()[0].close()


def report(node: Node) -> dict[str, Any]:
    """Flows by peer, and what is missing in them."""
    found = cast(dict[str, Any], control.ask(node.run_dir, {"command": "audit"}))
    return {flow["peer"]: flow for flow in found["flows"]} | {"lost": found["lost"]}


def test_a_flood_hides_no_peer_and_a_restart_forgets_none(node: Node) -> None:
    arguments = ("-c", str(node.directory / "tenants.yaml"))
    agent = node.start(*arguments)
    digest = node.write(*documents(node))
    assert node.wait(digest, agent).get("error") is None
    node.wait_until_enforced()
    knock(node, "t2/quiet", 1)
    knock(node, "t3/busy", KNOCKS)

    def told() -> dict[str, Any] | None:
        found = report(node)
        # What a sender has too much of is not made an event of, but counted.
        all_read = "t3/busy" in found and found["t3/busy"]["flows"] + found["lost"] >= KNOCKS
        return found if all_read else None

    found = eventually(told, "each connection is read or counted as lost")
    assert found is not None
    assert found["t2/quiet"]["flows"] == 1
    assert found["t2/quiet"]["by"] == ["tenant/t1#wall"]
    assert {(f["subject"], f["port"]) for p, f in found.items() if p != "lost"} == {("t1/a", PORT)}

    assert stop(agent, signal.SIGTERM) == 0
    again = node.start(*arguments)
    assert node.wait(digest, again).get("error") is None
    after = report(node)
    assert after["t2/quiet"] == found["t2/quiet"]
    assert after["t3/busy"]["flows"] >= found["t3/busy"]["flows"]
