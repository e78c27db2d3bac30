"""Events on policies that find no room on this node, for their authors.

A thread of its own in the agent's process: an API server that is away delays nothing, and a policy
is reported once while it is without room; a few per namespace and minute, so that no tenant makes
every node send thousands. An agent that may not create Events logs that and enforces anyway.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from enforcer.agent.state import Board, NodeState
from enforcer.sources.cilium import KINDS
from enforcer.writes.budgets import Refusal
from generators.documents.json import Key
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.events import EventSubject, Recorder, Severity
from generators.kube.resources import NETWORK_POLICIES
from generators.objects import namespace_of, object_of

REASON = "PolicyWithoutRoom"
LOOK_SECONDS = 1.0
MOST = 10
"""Policies of one namespace that are reported in PERIOD_SECONDS; status lists all."""
PERIOD_SECONDS = 60.0


class Notices:
    """Reports the refused policies of a board."""

    def __init__(self, board: Board, client: Client, node: str) -> None:
        self._board = board
        self._client = client
        self._node = node
        self._recorder = Recorder(client, "enforcer", node)
        self._told: frozenset[tuple[str, str]] = frozenset()
        self._period = -PERIOD_SECONDS
        self._sent: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Run until stopped."""
        while not stop.is_set():
            self.tell(self._board.state, time.monotonic())
            stop.wait(LOOK_SECONDS)

    def tell(self, state: NodeState, now: float) -> None:
        """Report what is newly refused; `now` in seconds of a monotonic clock."""
        if now >= self._period + PERIOD_SECONDS:
            self._period = now
            self._sent.clear()
        for refusal in state.refused:
            namespace = namespace_of(refusal.policy)
            if _unit(refusal) not in self._told and self._sent[namespace] < MOST:
                self._sent[namespace] += 1
                self._send(refusal)
        self._told = frozenset(map(_unit, state.refused))

    def _send(self, refusal: Refusal) -> None:
        kind, namespace, name = object_of(refusal.policy)
        resource = KINDS.get(kind, NETWORK_POLICIES)
        try:
            found = self._client.get(resource, name, namespace)
        except RingfenceError:
            return  # gone by now, or nobody answers: status, metric and log have it
        metadata = found.get("metadata")
        uid = metadata.get("uid") if isinstance(metadata, dict) else None
        key = Key(namespace, name)
        subject = EventSubject(resource.api_version, resource.kind, key, str(uid or ""))
        note = f"node {self._node}: {refusal}"
        self._recorder.tell_about(subject, REASON, Severity.WARNING, note)


def _unit(refusal: Refusal) -> tuple[str, str]:
    return refusal.policy, refusal.direction.value
