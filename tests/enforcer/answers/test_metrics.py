"""Metrics of the agent: the page names all, dashboards ask for nothing else, counts add up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from enforcer.agent.delays import Bootstrap
from enforcer.agent.state import Board, NodeState
from enforcer.answers.counts import Counts
from enforcer.answers.metrics import AgentCollector, Observed
from enforcer.answers.scrape import readiness
from enforcer.datapath.flows import ForwardReason
from enforcer.observe.contexts import Context, Contexts
from enforcer.observe.feed import REMEMBERED, Feed
from generators.objects import Workload
from generators.reachability.verdicts import Verdict
from generators.serving import pages
from generators.serving.http import HttpRequest
from tests.docs.test_metrics_page import documented, exported
from tests.enforcer.answers.conftest import Answering, scrape
from tests.enforcer.answers.observed import RECORD, Kernel, registry, state

FLOW_METRICS = ("ringfence_flows_processed", "ringfence_drop", "ringfence_policy_verdicts")
SHARED = "ringfence_config_last_reload_successful"
NAME = re.compile(r"[a-z_][a-z0-9_]*")
SUFFIXES = ("_bucket", "_sum", "_count")


def test_the_page_and_the_agent_name_the_same_metrics(checkout: Path) -> None:
    page = (checkout / "docs/metrics.md").read_text()
    section = page.partition("## Node agent")[2].partition("\n## ")[0]
    ours = exported(registry())
    assert ours.pop(SHARED) == documented(page)[SHARED]
    assert documented(section) == ours


def queries(dashboard: object) -> Iterator[str]:
    """Every query of a dashboard, variables included."""
    if isinstance(dashboard, dict):
        for key, value in dashboard.items():
            if key in ("expr", "query") and isinstance(value, str) and value != "prometheus":
                yield value
            else:
                yield from queries(value)
    elif isinstance(dashboard, list):
        for item in dashboard:
            yield from queries(item)


def unknown(query: str, known: dict[str, tuple[str, tuple[str, ...]]]) -> set[str]:
    """Metrics of a query that no process has, and labels that its metric has not."""
    bare = re.sub(r'"[^"]*"', '""', query)
    grouped = {n for part in re.findall(r"by \(([^)]*)\)", bare) for n in NAME.findall(part)}
    chosen = {n for part in re.findall(r"\{([^}]*)\}", bare) for n in NAME.findall(part)}
    asked = re.findall(r"\b(?:ringfence|process)_[a-z0-9_]+", bare)
    labels = {"instance", "le", "job"}
    if "apiserver_admission_webhook_" in bare:
        labels |= {"name", "error_type"}
    missing = {name for name in asked if name.startswith("ringfence_")}
    for name in asked:
        for suffix in ("", *SUFFIXES):
            found = known.get(name.removesuffix(suffix))
            if found is not None and (not suffix or found[0] == "histogram"):
                missing.discard(name)
                labels |= set(found[1])
    return missing | ((grouped | chosen) - labels)


def test_dashboards_ask_for_metrics_and_labels_that_exist(checkout: Path) -> None:
    page = (checkout / "docs/metrics.md").read_text()
    known = documented(page)  # compared with all three processes by tests of the page
    boards = sorted((checkout / "charts/ringfence/dashboards").glob("*.json"))
    assert [board.name for board in boards] == ["agent.json", "control.json"]
    for board in boards:
        asked = list(queries(json.loads(board.read_text())))
        assert len(asked) >= 10
        for query in asked:
            assert unknown(query, known) == set(), (board.name, query)


@pytest.mark.parametrize(
    "query",
    [
        "sum(ringfence_nothing)",
        "sum by (colour) (ringfence_endpoint_state)",
        'ringfence_drop_count_total{colour="red"}',
        "ringfence_endpoint_bucket",
    ],
)
def test_a_query_for_what_is_not_there_would_be_seen(checkout: Path, query: str) -> None:
    page = (checkout / "docs/metrics.md").read_text()
    assert unknown(query, documented(page))


def test_readyz_lists_reasons_and_healthz_does_not_care() -> None:
    shown = {
        "/healthz": pages.alive,
        "/readyz": readiness(lambda: ["pods: not read", "map full"]),
    }
    handle = pages.pages_of(shown, None)
    answers = {
        path: handle(HttpRequest("GET", path, "", (), b"", keep_alive=True))
        for path in (*shown, "/other")
    }
    assert [(each.status, each.body) for each in answers.values()] == [
        (200, b"ok\n"),
        (503, b"pods: not read\nmap full\n"),
        (404, b"there is /healthz, /readyz\n"),
    ]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def series(feed: Feed) -> dict[str, set[tuple[str, ...]]]:
    """The labels of each flow metric, by name, as an agent exports them; those of context."""
    board, kernel = Board(), Kernel()
    parts = Observed(board, kernel, Counts(kernel), feed, Bootstrap())
    shown = ("namespace", "workload", "pod")
    return {
        family.name: {
            tuple(sample.labels[name] for name in shown if name in sample.labels)
            for sample in family.samples
        }
        for family in AgentCollector(parts).collect()
        if family.name in FLOW_METRICS
    }


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        ((), ()),
        ((Context.NAMESPACE,), ("blue-dev",)),
        ((Context.WORKLOAD,), ("blue-dev", "Deployment/api")),
        ((Context.POD,), ("blue-dev", "api")),
        ((Context.POD, Context.WORKLOAD), ("blue-dev", "Deployment/api", "api")),
    ],
)
def test_flow_metrics_have_the_context_that_was_asked_for(
    wanted: tuple[Context, ...], values: tuple[str, ...]
) -> None:
    board = Board()
    board.publish(owned(state()))
    feed = Feed(board, "node1", contexts=Contexts(wanted))
    feed.add((RECORD,))
    assert series(feed) == {name: {values} for name in FLOW_METRICS}


def test_series_of_a_pod_end_a_minute_after_it_and_not_when_it_comes_back_before() -> None:
    clock, board = Clock(), Board()
    there = owned(state())
    away = replace(there, pods={}, owners={})
    board.publish(there)
    feed = Feed(board, "node1", contexts=Contexts([Context.POD], clock))
    feed.add((RECORD,))

    def look(at: float, state: NodeState) -> bool:
        clock.now = at
        board.publish(state)
        feed.forget_kinds()
        return all(series(feed).values())

    assert look(1000, there)
    assert look(1001, away)
    assert look(1060, away)
    assert look(1060.5, there)
    assert look(1062, away), "the minute begins anew"
    assert look(1121, away)
    assert not look(1122, away)


def test_without_a_context_nothing_that_was_counted_is_forgotten() -> None:
    board = Board()
    board.publish(state())
    feed = Feed(board, "node1")
    feed.add((RECORD,))
    board.publish(NodeState())
    feed.forget_kinds()
    assert sum(feed.kinds().values()) == 1


def test_flows_of_one_sender_push_out_none_of_another() -> None:
    feed = Feed(Board(), "node1")
    quiet = replace(RECORD, source="10.0.0.7", verdict=Verdict.DROPPED)
    loud = replace(RECORD, verdict=Verdict.FORWARDED, reason=ForwardReason.HOST)
    feed.add([quiet] * 20)
    feed.add([loud] * (3 * REMEMBERED))
    feed.add([quiet])
    kept = feed.last(REMEMBERED)
    assert [line.number for line in kept] == sorted(line.number for line in kept)
    assert REMEMBERED * 0.9 < feed.kept == len(kept) <= REMEMBERED
    assert sum(line.seen is not None and line.seen.record == quiet for line in kept) == 21
    assert [line.number for line in feed.last(2)] == [feed.count - 1, feed.count]


def owned(state: NodeState) -> NodeState:
    """The same with a pod that a Deployment runs."""
    pod = replace(state.pods[7], workload=Workload("Deployment", "api"))
    return replace(state, pods={7: pod}, owners={"10.0.0.1": pod})


@pytest.mark.bpf
@pytest.mark.timeout(120)
def test_what_the_agent_counts_is_what_happened(answering: Answering) -> None:
    status, text = scrape(answering.node, "/metrics")
    assert status == 200
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["ringfence_endpoint",] == 4
    assert values["ringfence_unenforced_pods",] == 0
    assert values["ringfence_drop_count_total", "INGRESS", "TENANT_WALL", "red"] == 1
    assert values["ringfence_drop_count_total", "INGRESS", "POLICY_DENIED", "red"] == 1
    assert values["ringfence_drop_count_total", "INGRESS", "TENANT_WALL", "blue"] == 1
    assert values["ringfence_drop_total", "StatefulSet/api", "TCP", "TENANT_WALL", "red", "t1"] == 1
    assert values["ringfence_audit_count_total", "INGRESS", "TENANT_WALL", "green"] >= 1
    verdict = ("L3-L4", "StatefulSet/web", "allow", "ingress", "red", "t1")
    assert values["ringfence_policy_verdicts_total", *verdict] >= 1
    assert values["ringfence_policy_endpoint_enforcement_status", "audit-ingress"] == 1
    assert values["ringfence_lost_events_total", "kernel_ring"] == 0
    assert values["ringfence_lost_events_total", "share"] == 0
    assert values["ringfence_bpf_maps_virtual_memory_max_bytes",] > 1 << 20
    assert any(name == "process_resident_memory_bytes" for name, *_ in values)
