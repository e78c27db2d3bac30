"""Deferred work in a thread: removes ended connections and what endpoints leave behind.

The agent's loop names the endpoints that are gone and never waits: walking over a quarter of a
million connections takes longer than a change of policy may. Until then the remains of an endpoint
are harmless, because its number is never reused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from enforcer.agent.delays import Delays, Tally, WorkKind
from generators.errors import RingfenceError

COLLECT_SECONDS = 30.0
"""Between two removals of connections that have ended."""
GONE_SECONDS = 1.0
"""Endpoints that go within that time are forgotten together."""


class Collector:
    """`start`, `forget` as often as needed, `stop`."""

    def __init__(
        self,
        collect: Callable[[], int],
        forget: Callable[[Iterable[int]], None],
        tally: Tally,
        delays: Delays,
    ) -> None:
        self._collect = collect
        self._forget = forget
        self._tally = tally
        self._delays = delays
        self._lock = threading.Lock()
        self._gone: set[int] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def forget(self, endpoints: Iterable[int]) -> None:
        """These endpoints are gone; returns at once."""
        with self._lock:
            self._gone.update(endpoints)
        self._wake.set()

    def stop(self) -> None:
        """Remove what is left, and end."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + COLLECT_SECONDS
        while not self._stopping.is_set():
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            self._forget_gone()
            if time.monotonic() >= due:
                self._collect_once()
                due = time.monotonic() + COLLECT_SECONDS
            self._stopping.wait(GONE_SECONDS)
        self._forget_gone()

    def _forget_gone(self) -> None:
        with self._lock:
            gone, self._gone = self._gone, set()
        if gone:
            self._forget(gone)

    def _collect_once(self) -> None:
        began = time.monotonic()
        outcome = "success"
        try:
            self._collect()
        except RingfenceError:
            outcome = "fail"
        self._tally.add(WorkKind("gc", "ct_map", outcome=outcome))
        self._delays.observe("gc", time.monotonic() - began)
