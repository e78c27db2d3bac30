"""Metrics of the agent: the page names all, dashboards ask for nothing else, counts add up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from enforcer.scrape import application
from tests.docs.test_metrics_page import documented, exported
from tests.enforcer.answers.conftest import Answering, scrape
from tests.enforcer.answers.observed import registry

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
    labels = {"instance", "le"}
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
    boards = sorted((checkout / "dashboards").glob("*.json"))
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
    answers: dict[str, tuple[str, bytes]] = {}
    app = application(lambda environ, start: [b""], lambda: ["pods: not read", "map full"])
    for path in ("/healthz", "/readyz", "/other"):
        told: list[str] = []

        def start(status: str, headers: object, told: list[str] = told) -> None:
            told.append(status)

        body = b"".join(app({"PATH_INFO": path}, start))  # type: ignore[arg-type]
        answers[path] = (told[0], body)
    assert answers["/healthz"] == ("200 OK", b"ok\n")
    assert answers["/readyz"] == ("503 Service Unavailable", b"pods: not read\nmap full\n")
    assert answers["/other"][0].startswith("404")


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
    assert values["ringfence_drop_total", "TCP", "TENANT_WALL", "red"] == 1
    assert values["ringfence_audit_count_total", "INGRESS", "TENANT_WALL", "green"] >= 1
    assert values["ringfence_policy_verdicts_total", "L3-L4", "allow", "ingress", "red"] >= 1
    assert values["ringfence_policy_endpoint_enforcement_status", "audit-ingress"] == 1
    assert values["ringfence_lost_events_total", "kernel_ring"] == 0
    assert values["ringfence_bpf_maps_virtual_memory_max_bytes",] > 1 << 20
    assert any(name == "process_resident_memory_bytes" for name, *_ in values)
