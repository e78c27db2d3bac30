"""Prometheus metrics of the agent, made at each scrape from state and kernel counters.

Names have Cilium's tails, so that dashboards carry over. What may surprise: packet counts are the
kernel's own and survive a restart of the agent; endpoints that are gone keep their share in them
until then (counts.py).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from enforcer.counts import Counts
from enforcer.feed import Feed
from enforcer.flows import DropReason, reason_of
from enforcer.maps import CAPACITY, Maps, Table
from enforcer.service import entries
from enforcer.state import Board

PREFIX = "ringfence"
DROPPED = 1
"""enum verdict of statistics: the rest went through (AUDIT too)."""


class AgentCollector:
    """Collects for prometheus_client; nothing is counted twice."""

    def __init__(self, board: Board, maps: Maps, counts: Counts, feed: Feed) -> None:
        self._board = board
        self._counts = counts
        self._maps = maps
        self._feed = feed

    def collect(self) -> Iterable[Metric]:
        """All metrics, in a fixed order."""
        state = self._board.state
        yield _gauge("endpoint", "Endpoints under enforcement.", len(state.tables.endpoints))
        yield _gauge("unenforced_pods", "Local pods not under enforcement.", len(state.unenforced))
        yield _gauge("policy_max_revision", "Inputs that came into force.", state.revision)
        loaded = 0 if "config" in state.errors else 1
        yield _gauge("config_last_reload_successful", "1 if the tenant file is good.", loaded)
        accepted = 0 if "manifests" in state.errors else 1
        yield _gauge("inputs_last_read_successful", "1 if the policies are good.", accepted)
        written = 0 if "datapath" in state.errors else 1
        yield _gauge("maps_last_write_successful", "1 if the maps hold what they should.", written)
        yield self._pressure()
        yield from self._packets()
        yield self._lost()
        read = CounterMetricFamily(f"{PREFIX}_flows_processed", "Flow events read.")
        read.add_metric([], self._feed.count)
        yield read

    def _pressure(self) -> Metric:
        family = GaugeMetricFamily(
            f"{PREFIX}_bpf_map_pressure", "Fill level of a map, 0 to 1.", labels=["map_name"]
        )
        for table in Table:
            held = entries(self._board.state.tables, table)
            family.add_metric([table.value], held / CAPACITY[table])
        return family

    def _packets(self) -> Iterable[Metric]:
        packets: Counter[tuple[str, str]] = Counter()
        octets: Counter[tuple[str, str]] = Counter()
        passed: Counter[str] = Counter()
        totals = self._counts.totals()
        for item in totals.packets:
            direction = item.direction.name
            reason = reason_of(item.reason)
            if item.verdict == DROPPED and isinstance(reason, DropReason):
                packets[reason.name, direction] += totals.packets[item]
                octets[reason.name, direction] += totals.octets[item]
            else:
                passed[direction] += totals.packets[item]
        labels = ["reason", "direction"]
        drops = CounterMetricFamily(f"{PREFIX}_drop_count", "Packets dropped.", labels=labels)
        lost = CounterMetricFamily(f"{PREFIX}_drop_bytes", "Bytes dropped.", labels=labels)
        for key in sorted(packets):
            drops.add_metric(key, packets[key])
            lost.add_metric(key, octets[key])
        forwards = CounterMetricFamily(
            f"{PREFIX}_forward_count", "Packets let through.", labels=["direction"]
        )
        for direction in sorted(passed):
            forwards.add_metric([direction], passed[direction])
        yield from (drops, lost, forwards)

    def _lost(self) -> Metric:
        lost = self._maps.lost()
        family = CounterMetricFamily(
            f"{PREFIX}_lost_events", "Events and counts that were lost.", labels=["source"]
        )
        family.add_metric(["kernel_ring"], lost.events)
        family.add_metric(["statistics"], lost.counts)
        return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Scrapes are not events."""


def serve(collector: AgentCollector, host: str, port: int) -> None:
    """Answer scrapes on an address for the rest of the process."""
    registry = CollectorRegistry()
    registry.register(collector)
    server = make_server(host, port, make_wsgi_app(registry), handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
