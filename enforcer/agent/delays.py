"""How long changes take from the agent's input to the datapath, and what the agent did.

The agent's threads observe and count, the metrics read; everything only grows. Kept here and not in
prometheus_client, so that the loop works without it and nothing is registered globally.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BOUNDS = (
    *(0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0),
)
"""Upper bounds of the buckets in seconds; longer ones count in the sum only."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations so far."""

    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """How many fell below each bound and above the one before; the last: above all of them."""
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.buckets)


@dataclass(slots=True)
class _Running:
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0


class Delays:
    """A histogram for each name, e.g. the source of the change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}

    def observe(self, name: str, seconds: float) -> None:
        """One change took so long."""
        with self._lock:
            found = self._running.setdefault(name, _Running())
            found.buckets[bisect_left(BOUNDS, seconds)] += 1
            found.seconds += seconds

    def read(self) -> Mapping[str, Histogram]:
        """All of them, by name."""
        with self._lock:
            return {
                name: Histogram(tuple(found.buckets), found.seconds)
                for name, found in sorted(self._running.items())
            }


class WorkKind(NamedTuple):
    """One kind of work: what, on what, and how it ended."""

    action: str
    """`regeneration` of endpoints, `map` operations, `gc` of connections."""
    on: str = ""
    operation: str = ""
    outcome: str = "success"


class Tally:
    """How much of each kind of work was done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: Counter[WorkKind] = Counter()

    def add(self, work: WorkKind, amount: int = 1) -> None:
        """So much more was done."""
        with self._lock:
            self._done[work] += amount

    def read(self) -> Mapping[WorkKind, int]:
        """All of it."""
        with self._lock:
            return dict(sorted(self._done.items()))


class Bootstrap:
    """How long the agent's start took, part by part; counts from when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._scopes: dict[str, float] = {}

    def reached(self, scope: str) -> None:
        """This part is done; later calls for the same part change nothing."""
        self._scopes.setdefault(scope, time.monotonic() - self._began)

    def read(self) -> Mapping[str, float]:
        """Seconds from the beginning, by part."""
        return dict(sorted(self._scopes.items()))
