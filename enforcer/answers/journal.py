"""What happened to each endpoint: a short log a pod, made by comparing one state with the next.

`ringfence endpoint log` shows it. Two changes in the same instant are one line, because published
states are compared, not the steps between them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from enforcer.agent.delays import Bootstrap
from enforcer.agent.state import Board, NodeState
from enforcer.answers.request import Json
from enforcer.observe.shape import timestamp
from enforcer.policy.tables import EndpointEntry, EndpointFlag

KEPT = 2048
"""Lines, of all endpoints."""
WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What of an endpoint is worth a line."""

    entry: EndpointEntry | None
    attached: str
    trouble: str


class EndpointLog:
    """Watches the board from a thread of its own."""

    def __init__(self, board: Board, bootstrap: Bootstrap) -> None:
        self._board = board
        self._bootstrap = bootstrap
        self._lines: deque[tuple[str, Json]] = deque(maxlen=KEPT)
        self._known: dict[str, _Known] = {}

    def run(self, stop: threading.Event) -> None:
        """Note changes until stopped."""
        last: NodeState | None = None
        while not stop.is_set():
            state = self._board.wait(_other_than(last), WAIT_SECONDS)
            if state is not None:
                self.note(state)
                if state.ready:
                    self._bootstrap.reached("inputs")
                last = state

    def note(self, state: NodeState) -> None:
        """Compare a state with what is known."""
        now = _known(state)
        for pod in sorted(now.keys() | self._known.keys()):
            before, after = self._known.get(pod), now.get(pod)
            for what in _changes(before, after):
                entry = after.entry if after is not None else None
                line = {
                    "time": timestamp(time.time_ns()),
                    "pod": pod,
                    "endpoint": entry.endpoint if entry is not None else None,
                    "revision": state.revision,
                    "message": what,
                }
                self._lines.append((pod, line))
        self._known = now

    def of(self, pod: str) -> list[Json]:
        """The lines of a pod, oldest first."""
        return [line for key, line in list(self._lines) if key == pod]


def _other_than(last: NodeState | None) -> Callable[[NodeState], bool]:
    return lambda now: now is not last


def _known(state: NodeState) -> dict[str, _Known]:
    found = {
        pod.key: _Known(
            state.tables.endpoints.get(ifindex),
            state.attached.get(ifindex, ""),
            state.unenforced.get(pod.key, ""),
        )
        for ifindex in list(state.pods)
        if (pod := state.pods.get(ifindex)) is not None
    }
    for key, trouble in state.unenforced.items():
        found.setdefault(key, _Known(None, "", trouble))
    return found


def _changes(before: _Known | None, after: _Known | None) -> Iterator[str]:
    if after is None:
        yield "gone: no longer on this node"
        return
    old = before or _Known(None, "", "")
    if after.entry is not None and old.entry is None:
        yield "in the maps"
    if after.attached and after.attached != old.attached:
        yield f"programs attached ({after.attached})"
    if after.trouble and after.trouble != old.trouble:
        yield f"not enforced: {after.trouble}"
    if old.trouble and not after.trouble:
        yield "enforced again"
    if after.entry is not None and old.entry is not None:
        yield from _rewritten(old.entry, after.entry)


def _rewritten(old: EndpointEntry, new: EndpointEntry) -> Iterator[str]:
    if old.group != new.group:
        yield f"policy group {old.group} -> {new.group}"
    if old.wall != new.wall or old.tenant != new.tenant:
        yield f"tenant wall {old.wall} -> {new.wall}"
    changed = [
        f"{'+' if flag in new.flags else '-'}{flag.name}"
        for flag in EndpointFlag
        if (flag in old.flags) != (flag in new.flags)
    ]
    if changed:
        yield f"flags {' '.join(changed)}"
    if old.generation != new.generation:
        yield f"generation {new.generation}: open connections are judged again"
