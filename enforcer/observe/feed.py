"""Flows for readers: the kernel's events with names put to their numbers, and the last few kept.

The agent runs `Feed.run` in a thread, the control socket reads from it. JSON is made only for
readers, so an unwatched flood costs little; a flood is cut (counted as lost), because the exact
counts are in the kernel anyway; and flows of the largest producer are dropped first, so that they
do not hide those of others.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from enforcer.agent.state import Board
from enforcer.datapath.flows import FlowReader, FlowRecord
from enforcer.observe import requests
from enforcer.observe.audited import Audited, Seen, Would
from enforcer.observe.contexts import Contexts, Values
from enforcer.observe.names import Directory, MatchType, NamedEvent
from enforcer.observe.requests import HttpRecord, NamedRequest
from enforcer.observe.shape import lost_events, to_flow
from enforcer.policy.tables import Dir, Tables
from generators.http import policy_rule_of
from generators.reachability.verdicts import Verdict, for_packets

REMEMBERED = 4096
"""Flows kept for `observe --last`."""
FORGOTTEN = 64
"""So many go at once: finding out who has the most takes a look at all."""
BATCH = 512
WAIT_SECONDS = 0.2
PAUSE_SECONDS = 0.05
"""At most a batch every pause: ten thousand flows a second."""
LOST_SECONDS = 1.0
"""Between two looks at how many events were lost."""
SAVE_SECONDS = 10.0
"""Between two times that audited flows are written to disk."""
PAST_TABLES = 8
"""An event may be older than the tables in force: the groups of this many are remembered."""
KERNEL_LOSS = "PERF_EVENT_RING_BUFFER"
"""Hubble's word for events that the kernel had no room for; it knows no other buffer there."""
READER_LOSS = "HUBBLE_RING_BUFFER"
"""And for events that a slow reader missed because the feed forgets."""


@dataclass(frozen=True, slots=True)
class FlowKind:
    """What flows are counted by."""

    verdict: Verdict
    reason: str
    direction: Dir
    protocol: int
    match: MatchType
    tenant: str
    context: Values = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """So many events there is nothing to say about."""

    source: str
    count: int
    time: int


@dataclass(frozen=True, slots=True)
class RequestKind:
    """What HTTP requests are counted by; `rule` is a policy's, empty where none let it pass."""

    verdict: Verdict
    direction: Dir
    method: str
    status: str
    rule: str
    tenant: str


Seeable = NamedEvent | NamedRequest | Loss


class FeedLine:
    """One line; encoded once, for its first reader."""

    __slots__ = ("_data", "_node", "_what", "number")

    def __init__(self, number: int, what: Seeable, node: str) -> None:
        self.number = number
        self._what = what
        self._node = node
        self._data = b""

    @property
    def endpoint(self) -> int:
        """Id of the endpoint that it is about; 0 for losses."""
        match self._what:
            case NamedEvent():
                return self._what.record.endpoint
            case NamedRequest():
                return self._what.local.endpoint
        return 0

    @property
    def data(self) -> bytes:
        """One line of JSON."""
        if not self._data:
            what = self._what
            if isinstance(what, Loss):
                line = lost_events(what.source, what.count, self._node, what.time)
            elif isinstance(what, NamedRequest):
                line = requests.to_flow(what, self._node)
            else:
                line = to_flow(what, self._node)
            self._data = json.dumps(line, separators=(",", ":")).encode()
        return self._data

    @property
    def seen(self) -> NamedEvent | NamedRequest | None:
        """The flow; None for losses."""
        return self._what if not isinstance(self._what, Loss) else None


class Feed:
    """The last flows, and a wait for the next ones."""

    def __init__(
        self,
        board: Board,
        node: str,
        lost: Callable[[], int] = lambda: 0,
        contexts: Contexts | None = None,
        audited: Audited | None = None,
    ) -> None:
        self._board = board
        self._node = node
        self.contexts = contexts or Contexts()
        self._audited = audited or Audited()
        self._lost = lost
        self._told_lost = lost()
        self._more = threading.Condition()
        self._naming = threading.Lock()
        self._lines: dict[tuple[str, bool], deque[FeedLine]] = {}
        """By sender, and whether they passed; losses have none. Oldest first."""
        self._kept = 0
        self._count = 0
        self._missed = 0
        self._kinds: Counter[FlowKind] = Counter()
        self._requests: Counter[RequestKind] = Counter()
        self._directory = Directory(board.state, node)
        self._past: deque[Tables] = deque(maxlen=PAST_TABLES)
        self._known = board.state
        self._began = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    @property
    def kept(self) -> int:
        """Lines that are remembered."""
        return self._kept

    @property
    def count(self) -> int:
        """Lines so far: flows, and reported losses."""
        return self._count

    @property
    def missed(self) -> int:
        """Flows that readers were too slow for."""
        return self._missed

    def kinds(self) -> Counter[FlowKind]:
        """How many flows of each kind were read."""
        with self._more:
            return self._kinds.copy()

    def requests(self) -> Counter[RequestKind]:
        """How many HTTP requests of each kind the proxy judged."""
        with self._more:
            return self._requests.copy()

    def forget_kinds(self) -> None:
        """Drop counts about pods that have been gone for a while."""
        pods = list(self._board.state.pods.values())
        with self._more:
            ended = self.contexts.ended({kind.context for kind in self._kinds}, pods)
            for kind in [kind for kind in self._kinds if kind.context in ended]:
                del self._kinds[kind]

    def run(self, reader: FlowReader, stop: threading.Event) -> None:
        """Read events until stopped."""
        looked = saved = time.monotonic()
        while not stop.is_set():
            if reader.wait(WAIT_SECONDS):
                self.add(reader.read(BATCH))
                stop.wait(PAUSE_SECONDS)
            if time.monotonic() - looked > LOST_SECONDS:
                looked = time.monotonic()
                self._tell_loss()
                self.forget_kinds()
            if time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                self._save_audited()
        self._save_audited()

    def _save_audited(self) -> None:
        """Readers put names to late flows meanwhile, and wait for no disk."""
        with self._more:
            data = self._audited.unsaved()
        self._audited.save(data)

    def audited(self) -> tuple[list[tuple[Would, Seen]], Counter[str]]:
        """What would have been dropped, and how many such flows are in no line, by tenant."""
        with self._more:
            self._audited.name_late(Directory(self._board.state, self._node).see)
            return self._audited.kinds(), self._audited.forgotten.copy()

    def last(self, count: int) -> list[FeedLine]:
        """The last flows, oldest first."""
        with self._more:
            return self._newest(count)

    def follow(self, count: int) -> Iterator[FeedLine | None]:
        """The last flows, then each new one; None now and then, so that a reader that left shows.

        A reader that is too slow is told how many flows it missed.
        """
        with self._more:
            lines = self._newest(count)
            seen = self._count
        yield from lines
        while True:
            with self._more:
                if self._count <= seen:
                    self._more.wait(1.0)
                lines = self._since(seen)
                missed = self._count - seen - len(lines)
                self._missed += missed
                seen = self._count
            if missed:
                yield FeedLine(0, Loss(READER_LOSS, missed, time.time_ns()), self._node)
            yield from lines
            if not lines:
                yield None

    def add(self, records: Sequence[FlowRecord]) -> None:
        """Put names to events, count and keep them."""
        with self._naming:
            self._refresh()
            seen = [self._directory.see(record) for record in records]
        with self._more:
            for item in seen:
                self._kinds[self._kind(item)] += 1
                if item.record.verdict is Verdict.AUDIT:
                    self._audited.note(item)
                self._append(item)
            self._more.notify_all()

    def add_requests(self, records: Iterable[HttpRecord]) -> None:
        """The same for what the proxy says, from its thread."""
        with self._naming:
            self._refresh()
            seen = [requests.see(self._directory, record) for record in records]
        with self._more:
            for item in seen:
                self._requests[_request_kind(item)] += 1
                self._append(item)
            self._more.notify_all()

    def _kind(self, seen: NamedEvent) -> FlowKind:
        record = seen.record
        return FlowKind(
            record.verdict,
            record.reason.name,
            record.direction,
            record.protocol,
            seen.match,
            seen.local.tenant,
            self.contexts.of(seen.local),
        )

    def _append(self, what: Seeable) -> None:
        self._count += 1
        whose = ("", False)
        if not isinstance(what, Loss):
            passed = for_packets(what.record.verdict) is Verdict.FORWARDED
            whose = (what.record.source, passed)
        self._lines.setdefault(whose, deque()).append(FeedLine(self._count, what, self._node))
        self._kept += 1
        if self._kept > REMEMBERED:
            self._forget()

    def _forget(self) -> None:
        whose = max(self._lines, key=lambda key: len(self._lines[key]))
        lines = self._lines[whose]
        for _ in range(min(FORGOTTEN, len(lines))):
            lines.popleft()
            self._kept -= 1
        if not lines:
            del self._lines[whose]

    def _newest(self, count: int) -> list[FeedLine]:
        return self._since(0)[-count:] if count > 0 else []

    def _since(self, number: int) -> list[FeedLine]:
        """The lines that are kept of those after a number, oldest first."""
        found: list[FeedLine] = []
        for lines in self._lines.values():
            found += takewhile(lambda line: line.number > number, reversed(lines))
        return sorted(found, key=lambda line: line.number)

    def _tell_loss(self) -> None:
        lost = self._lost()
        if lost > self._told_lost:
            with self._more:
                self._append(Loss(KERNEL_LOSS, lost - self._told_lost, time.time_ns()))
                self._more.notify_all()
        self._told_lost = lost

    def _refresh(self) -> None:
        state = self._board.state
        if state is not self._known:
            self._past.appendleft(self._known.tables)
            self._known = state
            self._directory = Directory(state, self._node, tuple(self._past))


METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Methods that are counted by name; clients may make up others without end."""


def _request_kind(seen: NamedRequest) -> RequestKind:
    record = seen.record
    return RequestKind(
        record.verdict,
        record.direction,
        record.method if record.method in METHODS else "other",
        f"{record.code // 100}xx" if 100 <= record.code <= 599 else "none",
        policy_rule_of(record.rule),
        seen.local.tenant,
    )
