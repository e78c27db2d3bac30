"""Keys to look at, each once: the level-triggered work queue of a controller.

Reflectors `add`, workers `get` and then `done` or `retry`. What happened to a key is not kept, only
that something did; the worker looks at the state as it is when its turn comes. A key is never with
two workers at once; one that is added meanwhile comes again afterwards. Failing keys wait longer
each time without delaying others.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waiting times that double from `first` to `longest` seconds."""

    first: float = 0.05
    longest: float = 60.0

    def delay(self, failures: int) -> float:
        """Seconds before the next attempt after that many failures in a row (at least one)."""
        # An exponent without bound would overflow long before `min` could help.
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 40))


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Counters since the start, and what is there now."""

    depth: int
    delayed: int
    in_work: int
    adds: int
    retries: int
    oldest_seconds: float
    """How long the key at the front has waited."""


class WorkQueue(Generic[K]):
    """Deduplicating, fair, with delays and back-off for each key; for any number of threads."""

    def __init__(
        self, backoff: Backoff | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: OrderedDict[K, float] = OrderedDict()
        self._in_work: set[K] = set()
        self._again: set[K] = set()
        self._due: dict[K, float] = {}
        self._by_time: list[tuple[float, int, K]] = []
        self._failures: dict[K, int] = {}
        self._sequence = 0
        self._adds = 0
        self._retries = 0
        self._closed = False

    def add(self, key: K) -> None:
        """Something about this key changed."""
        with self._changed:
            if self._closed:
                return
            self._adds += 1
            self._make_ready(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Look at this key in a while; an earlier appointment stands."""
        with self._changed:
            due = self._clock() + seconds
            if self._closed or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            self._sequence += 1
            heapq.heappush(self._by_time, (due, self._sequence, key))
            self._changed.notify()

    def get(self, timeout: float | None = None) -> K | None:
        """The key whose turn it is, which this thread then owns; None after timeout or close."""
        deadline = None if timeout is None else self._clock() + timeout
        with self._changed:
            while not self._closed:
                self._move_due()
                if self._ready:
                    key, _ = self._ready.popitem(last=False)
                    self._in_work.add(key)
                    return key
                if deadline is not None and self._clock() >= deadline:
                    return None
                self._changed.wait(self._until_next(deadline))
            return None

    def done(self, key: K) -> None:
        """The owner has dealt with it; its failures are forgotten."""
        with self._changed:
            self._failures.pop(key, None)
            self._release(key)

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """The owner failed; it comes again after its back-off. Returns the seconds until then."""
        with self._changed:
            self._failures[key] = self._failures.get(key, 0) + 1
            self._retries += 1
            delay = max(at_least, self._backoff.delay(self._failures[key]))
            self._release(key)
        self.add_after(key, delay)
        return delay

    def failures(self, key: K) -> int:
        """How often in a row it failed."""
        with self._changed:
            return self._failures.get(key, 0)

    def close(self) -> None:
        """Wake every worker with None; keys that wait are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Nothing to do now and no worker busy; delayed keys may still come."""
        with self._changed:
            self._move_due()
            return not self._ready and not self._in_work

    def stats(self) -> QueueStats:
        """For metrics."""
        with self._changed:
            oldest = next(iter(self._ready.values()), None)
            return QueueStats(
                depth=len(self._ready),
                delayed=len(self._due),
                in_work=len(self._in_work),
                adds=self._adds,
                retries=self._retries,
                oldest_seconds=0.0 if oldest is None else self._clock() - oldest,
            )

    def _make_ready(self, key: K) -> None:
        if key in self._in_work:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = self._clock()
            self._changed.notify()

    def _release(self, key: K) -> None:
        self._in_work.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._make_ready(key)

    def _move_due(self) -> None:
        now = self._clock()
        while self._by_time and self._by_time[0][0] <= now:
            due, _, key = heapq.heappop(self._by_time)
            # A key whose appointment was moved forward leaves its later one behind in the heap.
            if self._due.get(key) == due:
                del self._due[key]
                self._make_ready(key)

    def _until_next(self, deadline: float | None) -> float | None:
        times = [due for due, _, _ in self._by_time[:1]]
        if deadline is not None:
            times.append(deadline)
        return max(0.0, min(times) - self._clock()) if times else None
