"""Packet counts that only ever grow, although endpoints and their kernel counters go.

The agent forgets endpoints through here, and the metrics are summed here. What may surprise: both
hold a lock, because a count must not be missing, or be there twice, while it is carried over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from enforcer.maps import Statistic


class Kernel(Protocol):
    """The counters of the kernel, and the way to drop those of endpoints that are gone."""

    def statistics(self) -> tuple[Statistic, ...]:
        """Counts of every endpoint."""

    def forget(self, endpoints: Iterable[int]) -> None:
        """Drop connections and counts of endpoints."""


@dataclass(slots=True)
class Totals:
    """Packets and bytes by outcome; endpoint, rule and group of a key are 0."""

    packets: Counter[Statistic] = field(default_factory=Counter)
    octets: Counter[Statistic] = field(default_factory=Counter)

    def add(self, item: Statistic) -> None:
        """Count one more."""
        key = replace(item, endpoint=0, rule=0, group=0, packets=0, octets=0)
        self.packets[key] += item.packets
        self.octets[key] += item.octets


class Counts:
    """Totals since the programs were loaded and this agent began."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lock = threading.Lock()
        self._carried = Totals()

    def totals(self) -> Totals:
        """What endpoints count now, and what those counted that are gone."""
        with self._lock:
            found = Totals(self._carried.packets.copy(), self._carried.octets.copy())
            for item in self._kernel.statistics():
                found.add(item)
        return found

    def forget(self, endpoints: Iterable[int]) -> None:
        """Endpoints are gone: their counts stay in the totals."""
        gone = frozenset(endpoints)
        with self._lock:
            last = [item for item in self._kernel.statistics() if item.endpoint in gone]
            self._kernel.forget(gone)
            for item in last:
                self._carried.add(item)
