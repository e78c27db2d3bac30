"""Packet counts that only ever grow, although endpoints and their kernel counters go.

The agent forgets endpoints through here, and the metrics are summed here. Both hold a lock, because
a count must not be missing, or be there twice, while it is carried over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from enforcer.agent.state import Board
from enforcer.datapath.maps import Statistic
from enforcer.policy.tables import Dir


class KernelCounters(Protocol):
    """The counters of the kernel, and the way to drop those of endpoints that are gone."""

    def statistics(self) -> tuple[Statistic, ...]:
        """Counts of every endpoint."""

    def forget(self, endpoints: Iterable[int]) -> None:
        """Drop connections and counts of endpoints."""


@dataclass(frozen=True, slots=True, order=True)
class PacketOutcome:
    """What became of packets: `verdict` and `reason` as in statistics."""

    tenant: str
    direction: Dir
    verdict: int
    reason: int


@dataclass(slots=True)
class Totals:
    """Packets and bytes by outcome."""

    packets: Counter[PacketOutcome] = field(default_factory=Counter)
    octets: Counter[PacketOutcome] = field(default_factory=Counter)


class Counts:
    """Totals since the programs were loaded and this agent began.

    Only what was added since the last look is counted on, under the tenant that the endpoint has
    now: an endpoint that changes owners takes nothing away from a former tenant.
    """

    def __init__(
        self, kernel: KernelCounters, tenant_of: Callable[[int], str] = lambda endpoint: ""
    ) -> None:
        self._kernel = kernel
        self._tenant_of = tenant_of
        self._lock = threading.Lock()
        self._totals = Totals()
        self._seen: dict[Statistic, Statistic] = {}
        """Each counter as it was last seen, by the counter without its counts."""

    def totals(self) -> Totals:
        """What endpoints count now, and what those counted that are gone."""
        with self._lock:
            self._look()
            return Totals(self._totals.packets.copy(), self._totals.octets.copy())

    def forget(self, endpoints: Iterable[int]) -> None:
        """Endpoints are gone: their counts stay in the totals."""
        gone = frozenset(endpoints)
        with self._lock:
            self._look()
            self._kernel.forget(gone)
            for key in [key for key in self._seen if key.endpoint in gone]:
                del self._seen[key]

    def _look(self) -> None:
        for item in self._kernel.statistics():
            key = replace(item, packets=0, octets=0)
            before = self._seen.get(key, key)
            tenant = self._tenant_of(item.endpoint)
            outcome = PacketOutcome(tenant, item.direction, item.verdict, item.reason)
            self._totals.packets[outcome] += item.packets - before.packets
            self._totals.octets[outcome] += item.octets - before.octets
            self._seen[key] = item


class TenantsOf:
    """The tenant of each endpoint here, looked up again when the state is another one."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._state = board.state
        self._tenants: dict[int, str] = {}

    def __call__(self, endpoint: int) -> str:
        """Empty where it has none."""
        state = self._board.state
        if state is not self._state:
            self._state = state
            self._tenants = {
                entry.endpoint: state.tenants.get(pod.namespace, "")
                for ifindex, pod in list(state.pods.items())
                if (entry := state.tables.endpoints.get(ifindex)) is not None
            }
        return self._tenants.get(endpoint, "")
