"""Prometheus metrics of the agent, made at each scrape from state and kernel counters.

Names have Cilium's and Hubble's tails, so that dashboards carry over; docs/metrics.md lists them.
Packet counts are the kernel's own and survive a restart of the agent; nothing is labelled by pod
unless requested, and then a deleted pod leaves no series behind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import (
    HistogramMetricFamily,
    Metric,
)

from enforcer.agent.delays import BOUNDS, Bootstrap, Histogram
from enforcer.agent.state import Board, NodeState
from enforcer.answers.counts import Counts
from enforcer.answers.endpoints import ISOLATED
from enforcer.answers.status import entries
from enforcer.datapath.flows import POLICY_REASONS, reason_of
from enforcer.datapath.maps import Collected, Lost
from enforcer.http.proxy import ProxyState
from enforcer.observe.feed import Feed, FlowKind, RequestKind
from enforcer.observe.lines import MATCHES
from enforcer.observe.shape import PROTOCOLS, RESERVED
from enforcer.policy.tables import Dir, EndpointEntry, EndpointFlag, Table
from generators.objects import policy_of
from generators.reachability.verdicts import ACTIONS, Verdict
from generators.serving.metrics import Labels, counter, gauge, gauges

PREFIX = "ringfence"
DROPPED, AUDITED = 1, 2
"""enum verdict of statistics: the rest went through."""


class Kernel(Protocol):
    """The part of the maps that is read."""

    collected: Collected

    def lost(self) -> Lost:
        """Events and counts that the programs could not tell."""

    def memory(self) -> int:
        """Bytes of all maps when they are full."""

    def capacity(self) -> Mapping[Table, int]:
        """How many entries each map holds at most."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What the metrics are read from."""

    board: Board
    maps: Kernel
    counts: Counts
    feed: Feed
    bootstrap: Bootstrap


class AgentCollector:
    """Collects for prometheus_client; nothing is counted twice."""

    def __init__(self, observed: Observed) -> None:
        self._of = observed

    def collect(self) -> Iterable[Metric]:
        """All metrics, in a fixed order."""
        state = self._of.board.state
        yield from _endpoints(state)
        yield from _policies(state)
        yield from _inputs(state)
        yield from _work(state)
        yield from _proxy(state.proxy)
        yield from self._maps(state)
        yield from self._packets()
        yield from _flows(self._of.feed.kinds(), self._of.feed.contexts.labels)
        yield _requests(self._of.feed.requests())
        lost = self._of.maps.lost()
        rows = {
            ("kernel_ring",): lost.events - lost.held_back,
            ("share",): lost.held_back,
            ("statistics",): lost.counts,
            ("reader",): self._of.feed.missed,
        }
        yield _counter("lost_events", "Events and counts that were lost.", ("source",), rows)
        scopes = self._of.bootstrap.read()
        yield _gauges(
            "agent_bootstrap_seconds",
            "Duration of the start: loading the programs, until inputs were in force.",
            ("scope", "outcome"),
            {(scope, "success"): seconds for scope, seconds in scopes.items()},
        )

    def _maps(self, state: NodeState) -> Iterator[Metric]:
        held = {table: entries(state.tables, table) for table in Table}
        capacity = self._of.maps.capacity()
        yield from _rooms(state)
        yield _gauges(
            "bpf_map_pressure",
            "Fill level of a map, 0 to 1.",
            ("map_name",),
            {(table.value,): held[table] / capacity[table] for table in Table},
        )
        yield _gauges(
            "bpf_map_capacity",
            "Entries that a map can hold.",
            ("map_group",),
            {(table.value,): capacity[table] for table in Table},
        )
        size = self._of.maps.memory()
        yield _gauge("bpf_maps_virtual_memory_max_bytes", "Memory of all maps when full.", size)
        collected = self._of.maps.collected
        yield _gauges(
            "datapath_conntrack_gc_entries",
            "Connections that the last collection left and removed.",
            ("status",),
            {("alive",): collected.alive, ("deleted",): collected.deleted},
        )

    def _packets(self) -> Iterator[Metric]:
        totals = self._of.counts.totals()
        found: dict[str, Counter[tuple[str, ...]]] = {
            name: Counter() for name in ("dropped", "lost", "passed", "carried", "audited")
        }
        for key, packets in totals.packets.items():
            reason, octets = reason_of(key.reason), totals.octets[key]
            direction = key.direction.name
            if key.verdict == DROPPED:
                found["dropped"][reason.name, direction, key.tenant] += packets
                found["lost"][reason.name, direction, key.tenant] += octets
                continue
            found["passed"][direction, key.tenant] += packets
            found["carried"][direction, key.tenant] += octets
            if key.verdict == AUDITED:
                found["audited"][reason.name, direction, key.tenant] += packets
        named, plain = ("reason", "direction", "tenant"), ("direction", "tenant")
        yield _counter("drop_count", "Packets dropped.", named, found["dropped"])
        yield _counter("drop_bytes", "Bytes dropped.", named, found["lost"])
        yield _counter("forward_count", "Packets let through.", plain, found["passed"])
        yield _counter("forward_bytes", "Bytes let through.", plain, found["carried"])
        yield _counter(
            "audit_count",
            "Packets let through that would be dropped without audit.",
            named,
            found["audited"],
        )


def _endpoints(state: NodeState) -> Iterator[Metric]:
    listed = list(state.tables.endpoints.values())
    yield _gauge("endpoint", "Endpoints under enforcement.", len(listed))
    waiting = len(state.unenforced)
    states = {("ready",): len(listed), ("not-ready",): waiting}
    yield _gauges("endpoint_state", "Local pods by state.", ("state",), states)
    yield _gauge("unenforced_pods", "Local pods not under enforcement.", waiting)
    others = state.neighbours
    held, passed_by = others.held(state.attached), others.problems(state.attached)
    effects = {
        ("none",): len(others.neighbours) - len(held) - len(passed_by),
        ("held",): len(held),
        ("not-enforced",): len(passed_by),
    }
    yield _gauges(
        "programs_of_others", "eBPF programs of other software on this node.", ("effect",), effects
    )
    graced = sum(EndpointFlag.GRACE in entry.flags for entry in listed)
    yield _gauge("grace_endpoints", "Endpoints whose older connections were adopted.", graced)
    enforced = Counter((_enforcement(entry),) for entry in listed)
    yield _gauges(
        "policy_endpoint_enforcement_status",
        "Endpoints by the directions that policies or the wall restrict.",
        ("enforcement",),
        {(name,): enforced[name,] for name in ENFORCEMENTS},
    )
    identities = {entry.identity for entry in list(state.tables.addresses.values())}
    reserved = len(identities & RESERVED.keys())
    rows = {("reserved",): reserved, ("pods",): len(identities) - reserved}
    yield _gauges("identity", "Identities in use.", ("type",), rows)


ENFORCEMENTS = ("none", "ingress", "egress", "both", "audit-ingress", "audit-egress", "audit-both")


def _enforcement(entry: EndpointEntry) -> str:
    sides = {d: flag in entry.flags for d, flag in ISOLATED.items()}
    audit = EndpointFlag.AUDIT in entry.flags or EndpointFlag.AUDIT_INGRESS in entry.flags
    if EndpointFlag.WALL in entry.flags:
        audit = audit or (EndpointFlag.WALL_AUDIT in entry.flags and not sides[Dir.INGRESS])
        sides[Dir.INGRESS] = True
    named = {(False, False): "none", (True, False): "ingress", (False, True): "egress"}
    name = named.get((sides[Dir.INGRESS], sides[Dir.EGRESS]), "both")
    return f"audit-{name}" if audit and name != "none" else name


def _rooms(state: NodeState) -> Iterator[Metric]:
    """Budgets, and what found no room."""
    usages = dict(state.usage.items())
    labels = ("map_name", "tenant")
    used = {(m, tenant): n for m, usage in usages.items() for tenant, n in usage.used.items()}
    kept = {(m, tenant): n for m, usage in usages.items() for tenant, n in usage.budget.items()}
    waiting = {(m, tenant): n for m, usage in usages.items() for tenant, n in usage.waiting.items()}
    yield _gauges("map_tenant_entries", "Entries of a map that a tenant uses.", labels, used)
    yield _gauges("map_tenant_budget", "Entries of a map kept for a tenant.", labels, kept)
    yield _gauges("map_tenant_waiting", "Objects of a tenant that found no room.", labels, waiting)
    yield _gauges(
        "policy_without_room",
        "Entries that a policy needs that is closed for lack of room.",
        ("namespace", "policy", "direction", "map_name", "tenant"),
        {
            (*r.policy.split("/", 1), r.direction.value.lower(), r.table.value, r.tenant): r.needs
            for r in state.refused
        },
    )


def _policies(state: NodeState) -> Iterator[Metric]:
    yield _gauge("policy", "NetworkPolicies of the cluster.", len(state.policies))
    yield _gauge("policy_max_revision", "Inputs that came into force.", state.revision)
    source = state.sources.get("networkpolicies") or state.sources.get("manifests")
    rows: dict[tuple[str, ...], float] = {}
    if source is not None:
        origin = "manifests" if source.kind == "manifests" else "k8s"
        rows = {(origin, name, "success"): count for name, count in source.events.items()}
        rows[origin, "update", "fail"] = len(source.unreadable)
    yield _counter(
        "policy_change",
        "Changes of policies taken in.",
        ("source", "operation", "outcome"),
        rows,
    )
    delays = state.delays.read()
    yield _histogram(
        "policy_implementation_delay",
        "Seconds from a change at its source to the datapath.",
        "source",
        {name: found for name, found in delays.items() if name in ("k8s", "manifests")},
    )
    yield _histogram(
        "policy_incremental_update_duration",
        "Seconds to compile and write a batch of changes.",
        "scope",
        {name: found for name, found in delays.items() if name == "write"},
    )
    yield _histogram(
        "datapath_conntrack_gc_duration_seconds",
        "Seconds that a collection of ended connections took.",
        "status",
        {"completed": delays["gc"]} if "gc" in delays else {},
    )


def _inputs(state: NodeState) -> Iterator[Metric]:
    for name, source, good in (
        ("config_last_reload_successful", "config", "1 if the tenant file is good."),
        ("record_last_read_successful", "record", "1 if there is a whole record of tenants."),
        ("inputs_last_read_successful", "manifests", "1 if the policies are good."),
        ("cni_last_join_successful", "cni", "1 if new pods start with the CNI plugin."),
        ("maps_last_write_successful", "datapath", "1 if the maps hold what they should."),
    ):
        yield _gauge(name, good, 0 if source in state.errors else 1)
    events: dict[tuple[str, ...], float] = {}
    lags: dict[tuple[str, ...], float] = {}
    failing = 0
    for kind, source_state in sorted(state.sources.items()):
        for action, count in source_state.events.items():
            events[kind, action, "success"] = count
        for error, count in source_state.failures.items():
            events[kind, "watch", error] = count
        if source_state.last_event is not None:
            lags[kind,] = time.monotonic() - source_state.last_event
        failing += not source_state.synced or not source_state.connected or source_state.forbidden
    labels = ("scope", "action", "outcome")
    yield _counter(
        "kubernetes_events", "Changes taken in, and watches that failed.", labels, events
    )
    yield _gauges(
        "k8s_event_lag_seconds", "Seconds since a source last sent anything.", ("source",), lags
    )
    yield _gauge("controllers_failing", "Sources that currently deliver no changes.", failing)


def _work(state: NodeState) -> Iterator[Metric]:
    regenerated: Counter[tuple[str, ...]] = Counter()
    operations: Counter[tuple[str, ...]] = Counter()
    refused: Counter[tuple[str, ...]] = Counter()
    collections: Counter[tuple[str, ...]] = Counter()
    ipcache: Counter[tuple[str, ...]] = Counter()
    failed: Counter[tuple[str, ...]] = Counter()
    for work, amount in state.tally.read().items():
        if work.action == "regeneration":
            regenerated[work.outcome,] += amount
        elif work.action == "gc":
            collections["completed" if work.outcome == "success" else "uncompleted",] += amount
        elif work.action == "map":
            operations[work.on, work.operation, work.outcome] += amount
            if work.outcome == "refused":
                refused[work.on,] += amount
            if work.on == Table.ADDRESSES:
                counted = ipcache if work.outcome == "success" else failed
                counted["upsert" if work.operation == "update" else "delete",] += amount
    yield _counter(
        "endpoint_regenerations", "Endpoints written to the kernel.", ("outcome",), regenerated
    )
    labels = ("map_name", "operation", "outcome")
    yield _counter("bpf_map_ops", "Writes to maps.", labels, operations)
    yield _counter("map_writes_refused", "Plans that found no room.", ("map_name",), refused)
    yield _counter("ipcache_events", "Addresses written.", ("type",), ipcache)
    yield _counter("ipcache_errors", "Addresses that could not be written.", ("type",), failed)
    text = "Collections of ended connections."
    yield _counter("datapath_conntrack_gc_runs", text, ("status",), collections)
    corrections = {(): float(state.audit.corrections)}
    text = "Map entries that were corrected."
    yield _counter("drift_corrections", text, (), corrections)


def _proxy(proxy: ProxyState) -> Iterator[Metric]:
    sound = 0 if proxy.problem else 1
    yield _gauge("http_rules_in_force", "Whether HTTP rules are judged as written.", sound)
    yield _gauge("http_listeners", "Sets of HTTP rules that the proxy judges by.", proxy.listeners)
    yield _gauge("http_proxy_up", "Whether the proxy of HTTP rules runs.", 1 if proxy.pid else 0)
    yield _counter("http_proxy_starts", "Starts of the proxy.", (), {(): proxy.starts})
    text = "Updates that the proxy refused since it was started."
    yield _gauge("http_proxy_refused", text, proxy.refused)


def _flows(kinds: Counter[FlowKind], context: Sequence[str]) -> Iterator[Metric]:
    processed: Counter[tuple[str, ...]] = Counter()
    drops: Counter[tuple[str, ...]] = Counter()
    verdicts: Counter[tuple[str, ...]] = Counter()
    for kind, count in kinds.items():
        dropped = kind.verdict is Verdict.DROPPED
        match, whose = MATCHES[kind.match], (kind.tenant, *kind.context)
        name, sub = ("Drop", kind.reason) if dropped else ("PolicyVerdict", match)
        processed[name, sub, kind.verdict.value, *whose] += count
        if dropped:
            protocol = PROTOCOLS.get(kind.protocol, str(kind.protocol))
            drops[kind.reason, protocol, *whose] += count
        policy = not dropped or kind.reason in POLICY_REASONS
        if policy:
            direction = kind.direction.name.lower()
            verdicts[direction, match, ACTIONS[kind.verdict], *whose] += count
    labels = ("type", "subtype", "verdict", "tenant", *context)
    yield _counter("flows_processed", "Flow events read.", labels, processed)
    labels = ("reason", "protocol", "tenant", *context)
    yield _counter("drop", "Drops among them.", labels, drops)
    labels = ("direction", "match", "action", "tenant", *context)
    yield _counter("policy_verdicts", "Verdicts of policies and wall among them.", labels, verdicts)


def _requests(kinds: Counter[RequestKind]) -> Metric:
    rows: Counter[tuple[str, ...]] = Counter()
    for kind, count in kinds.items():
        policy, rule = policy_of(kind.rule) if kind.rule else ("", "")
        direction = kind.direction.name.lower()
        found = (kind.verdict.value, direction, kind.method, kind.status, policy, rule, kind.tenant)
        rows[found] += count
    labels = ("verdict", "direction", "method", "status", "policy", "rule", "tenant")
    return _counter("http_requests", "HTTP requests that rules judged.", labels, rows)


def _gauge(name: str, text: str, value: float) -> Metric:
    return gauge(f"{PREFIX}_{name}", text, value)


def _gauges(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, float]) -> Metric:
    return gauges(f"{PREFIX}_{name}", text, labels, dict(sorted(rows.items())))


def _counter(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, float]) -> Metric:
    return counter(f"{PREFIX}_{name}", text, labels, dict(sorted(rows.items())))


def _histogram(name: str, text: str, label: str, found: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value, histogram in sorted(found.items()):
        total, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), histogram.buckets, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([value], buckets, histogram.seconds)
    return family
