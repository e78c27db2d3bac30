"""A policy without room gets an Event, once while it is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from enforcer.agent.notices import MOST, PERIOD_SECONDS, REASON, Notices
from enforcer.agent.state import Board, NodeState
from enforcer.policy.tables import Table
from enforcer.writes.budgets import Refusal
from generators.documents.json import Document, mapping
from generators.errors import RingfenceError
from generators.kube.client import Client, DryRun
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_POLICIES,
    EVENTS,
    NETWORK_POLICIES,
    Resource,
)
from generators.objects import Direction

REFUSED = Refusal("t2/huge", Direction.INGRESS, "t2", Table.CIDRS, 9000, 9000, 4000, 8192)


class Server(Client):
    """Knows some policies, and keeps what is created."""

    def __init__(self, known: Mapping[str, Document]) -> None:
        self.created: list[Document] = []
        self.asked: list[tuple[Resource, str]] = []
        self.known = dict(known)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        self.asked.append((resource, namespace))
        if name not in self.known:
            raise RingfenceError("not found")
        return self.known[name]

    def create(
        self, resource: Resource, document: Document, *, manager: str, dry_run: DryRun = DryRun.NO
    ) -> Document:
        assert resource is EVENTS
        self.created.append(document)
        return document


@pytest.fixture
def server() -> Server:
    return Server({"huge": {"metadata": {"name": "huge", "namespace": "t2", "uid": "u1"}}})


def test_a_policy_without_room_is_told_once_while_it_is_so(server: Server) -> None:
    notices = Notices(Board(), server, "node-1")
    for _ in range(2):
        notices.tell(NodeState(refused=(REFUSED,)), 0.0)
    (told,) = server.created
    assert (told["reason"], told["type"]) == (REASON, "Warning")
    assert told["regarding"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "namespace": "t2",
        "name": "huge",
        "uid": "u1",
    }
    for part in ("node node-1", "t2/huge", "tenant t2", "needs 9000", "4000 of 8192", "cidr_map"):
        assert part in str(told["note"])


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("t2/huge", (NETWORK_POLICIES, "t2")),
        ("t2/cnp:huge", (CILIUM_POLICIES, "t2")),
        ("t2/cnp:huge#specs[1]", (CILIUM_POLICIES, "t2")),
        ("ccnp:huge#specs[0]", (CILIUM_CLUSTERWIDE_POLICIES, "")),
    ],
)
def test_a_policy_of_any_kind_is_told_of_by_its_object(
    server: Server, key: str, asked: tuple[Resource, str]
) -> None:
    Notices(Board(), server, "node-1").tell(NodeState(refused=(replace(REFUSED, policy=key),)), 0.0)
    assert server.asked == [asked]
    (told,) = server.created
    assert mapping(told, "regarding")["kind"] == asked[0].kind


def test_a_policy_that_is_gone_is_not_told_of() -> None:
    server = Server({})
    Notices(Board(), server, "node-1").tell(NodeState(refused=(REFUSED,)), 0.0)
    assert server.created == []


def test_a_namespace_with_thousands_of_them_has_a_few_told_in_a_minute() -> None:
    server = Server({"huge": {"metadata": {"uid": "u1"}}})
    notices = Notices(Board(), server, "node-1")
    for now, told in ((0.0, MOST + 1), (1.0, 0), (PERIOD_SECONDS, MOST)):
        server.created.clear()
        names = [f"p{now}-{number}" for number in range(5 * MOST)]
        server.known.update({name: {"metadata": {"uid": name}} for name in names})
        many = tuple(replace(REFUSED, policy=f"t1/{name}") for name in names)
        notices.tell(NodeState(refused=(*many, REFUSED)), now)
        assert len(server.created) == told
