"""Flows for readers: the kernel's events with names put to their numbers, and the last few kept.

The agent runs `Feed.run` in a thread, the control socket reads from it. What may surprise: names
are put to a flow when it is read, not when it is asked for, because pods and policies go; and a
flood of events is cut (counted as lost), because the exact counts are in the kernel anyway.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from enforcer.flows import DropReason, FlowReader, FlowRecord, Party, to_flow
from enforcer.state import Board, State
from enforcer.tables import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    AddressEntry,
    Dir,
    EndpointEntry,
    Tables,
)
from generators.verdicts import Verdict

REMEMBERED = 4096
"""Flows kept for `observe --last`."""
BATCH = 512
PAUSE_SECONDS = 0.1
"""At most a batch every pause: five thousand flows a second."""
PAST_TABLES = 8
"""An event may be older than the tables in force: the groups of this many are remembered."""


class Directory:
    """Names behind numbers and addresses, as of one state and the tables shortly before it."""

    def __init__(self, state: State, node: str, past: tuple[Tables, ...] = ()) -> None:
        self._state = state
        self._node = node
        self._tables = (state.tables, *past)
        self._endpoints: Mapping[str, EndpointEntry] = {
            address: entry
            for entry in state.tables.endpoints.values()
            for address in (*entry.ip4, *entry.ip6)
        }

    def party(self, address: str) -> Party | None:
        """The pod or node that has an address now."""
        state = self._state
        entry = state.tables.addresses.get(address, AddressEntry(0))
        pod = state.owners.get(address)
        if pod is None:
            node = state.nodes.get(address)
            if node is None:
                return None
            own = node == self._node
            return Party(identity=IDENTITY_HOST if own else IDENTITY_REMOTE_NODE)
        endpoint = self._endpoints.get(address)
        return Party(
            endpoint=endpoint.endpoint if endpoint is not None else 0,
            identity=entry.identity,
            namespace=pod.namespace,
            pod=pod.name,
            tenant=state.tenants.get(pod.namespace, ""),
            labels=tuple(f"k8s:{key}={value}" for key, value in sorted(pod.labels.items())),
        )

    def rule(self, rule: int) -> str | None:
        """Name of a rule."""
        return self._state.tables.rules.get(rule)

    def isolating(self, group: int, direction: Dir) -> tuple[str, ...]:
        """The policies behind a policy group, or the wall behind the wall's group."""
        for tables in self._tables:
            if group in tables.walls:
                return (tables.walls[group],)
            if (group, direction) in tables.isolating:
                return tables.isolating[group, direction]
        return ()

    def _wall(self, group: int, endpoint: EndpointEntry | None) -> str | None:
        """The wall that spoke; in audit mode the event carries the group that let through."""
        for tables in self._tables:
            if group in tables.walls:
                return tables.walls[group]
            if endpoint is not None and endpoint.wall in tables.walls:
                return tables.walls[endpoint.wall]
        return None

    def judgement(self, record: FlowRecord) -> dict[str, object]:
        """The event in the words of a matrix cell: verdict, reason, rule, policies."""
        forwarded = record.verdict is Verdict.FORWARDED
        rule = self.rule(record.rule) if forwarded and record.rule else None
        endpoint = self._state.tables.endpoints.get(record.ifindex)
        if record.reason in (DropReason.TENANT_WALL, DropReason.UNKNOWN_SENDER):
            rule = self._wall(record.group, endpoint)
        policies = self.isolating(endpoint.group, record.direction) if endpoint is not None else ()
        return {
            "verdict": record.verdict.value,
            "reason": record.reason.name,
            "rule": rule,
            "policies": list(policies),
        }


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    data: bytes


class Feed:
    """The last flows, and a wait for the next ones."""

    def __init__(self, board: Board, node: str) -> None:
        self._board = board
        self._node = node
        self._more = threading.Condition()
        self._lines: deque[_Line] = deque(maxlen=REMEMBERED)
        self._count = 0
        self._directory = Directory(board.state, node)
        self._past: deque[Tables] = deque(maxlen=PAST_TABLES)
        self._known = board.state

    @property
    def count(self) -> int:
        """Flows read so far."""
        return self._count

    def run(self, reader: FlowReader, stop: threading.Event) -> None:
        """Read events until told to stop."""
        while not stop.is_set():
            if reader.wait(PAUSE_SECONDS):
                records = reader.read(BATCH)
                self._add(records)
                if len(records) == BATCH:
                    stop.wait(PAUSE_SECONDS)

    def last(self, count: int) -> list[bytes]:
        """The last flows as lines of JSON, oldest first."""
        with self._more:
            return [line.data for line in _tail(self._lines, count)]

    def follow(self, count: int) -> Iterator[bytes]:
        """The last flows, then each new one; b"" now and then, so that a reader that left shows."""
        with self._more:
            lines = _tail(self._lines, count)
            seen = self._count
        yield from (line.data for line in lines)
        while True:
            with self._more:
                if self._count <= seen:
                    self._more.wait(1.0)
                lines = [line for line in self._lines if line.number > seen]
                seen = self._count
            yield from (line.data for line in lines)
            if not lines:
                yield b""

    def _add(self, records: tuple[FlowRecord, ...]) -> None:
        self._refresh()
        lines = []
        for record in records:
            flow = to_flow(record, self._directory, self._node)
            flow["judgement"] = self._directory.judgement(record)
            lines.append(json.dumps(flow, separators=(",", ":")).encode())
        with self._more:
            for data in lines:
                self._count += 1
                self._lines.append(_Line(self._count, data))
            self._more.notify_all()

    def _refresh(self) -> None:
        state = self._board.state
        if state is not self._known:
            self._past.appendleft(self._known.tables)
            self._known = state
            self._directory = Directory(state, self._node, tuple(self._past))


def _tail(lines: deque[_Line], count: int) -> list[_Line]:
    return list(islice(lines, max(0, len(lines) - count), None)) if count > 0 else []
