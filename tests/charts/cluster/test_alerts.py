"""The chart's alerts in the real promtool: each fires when its case comes, and no other does.

A case is a healthy install some of whose series differ; what is compared are labels and annotations
after 70 minutes with a sample every half minute.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from generators.documents.json import Document, mapping, mappings, strings, text
from generators.errors import MachineLacks
from tests.charts.cluster.rendered import CHECKOUT, SYSTEM, documents, find
from tests.testbed import build

GOLDEN = Path(__file__).with_name("golden") / "everything.yaml"
"""What helm renders; test_renders.py compares the two."""
RULES = mappings(
    mappings(
        mapping(find(documents(GOLDEN.read_text()), "PrometheusRule/ringfence"), "spec"), "groups"
    )[0],
    "rules",
)
ALERTS = [text(rule, "alert") for rule in RULES]
SAMPLES = 140
EVERY = "30s"
AT = "70m"

STATE = "ringfence_controller_admission_state"
REASSERTED = "ringfence_controller_admission_reasserted_total"
EDITED = REASSERTED + '{kind="ValidatingWebhookConfiguration",what="edited"}'
STARTED = REASSERTED + '{kind="ValidatingWebhookConfiguration",what="start"}'
CONNECTIONS = "ringfence_server_connections"
REFUSED = CONNECTIONS + '_refused_total{instance="w",port="admission",reason="source"}'
TIMED_OUT = CONNECTIONS + '_timed_out_total{instance="w",phase="handshake",port="admission"}'
LEADER, OTHER = (f'ringfence_controller_leader{{instance="{i}"}}' for i in "ab")
POLICY, TENANT = 'ringfence_policy_without_room{at="p"}', 'ringfence_map_tenant_waiting{at="p"}'
UNDECIDED = 'ringfence_controller_undecided_namespaces{reason="TenantRemoved"}'
LOST = 'ringfence_lost_events_total{source="reader"}'
REJECTED = "apiserver_admission_webhook_rejection_count"
UNCALLED = REJECTED + '{error_type="calling_webhook_error",name="namespaces.ringfence.io"}'
DENIED = REJECTED + '{error_type="no_error",name="namespaces.ringfence.io"}'
FULL = 'ringfence_drop_count_total{reason="CT_MAP_INSERTION_FAILED"}'
POLICY_DENIED = 'ringfence_drop_count_total{reason="POLICY_DENIED"}'
AGENT = f'up{{job="enforcer",namespace="{SYSTEM}",node="n1"}}'
OTHERS_AGENT = 'up{job="enforcer",namespace="another",node="n1"}'
PASSED_BY = 'ringfence_programs_of_others{effect="not-enforced"}'
EXPIRY = "ringfence_webhook_certificate_expiry_timestamp_seconds"

ALWAYS = f"x{SAMPLES}"
HEALTHY: Mapping[str, str] = {
    "ringfence_webhook_certificate_last_reload_successful": f"1{ALWAYS}",
    EXPIRY: f"5000000{ALWAYS}",
    "ringfence_controller_webhook_answers": f"1{ALWAYS}",
    UNDECIDED: f"0{ALWAYS}",
    DENIED: f"0+1{ALWAYS}",
    STATE + '{state="in-force"}': f"1{ALWAYS}",
    STATE + '{state="broken"}': f"0{ALWAYS}",
    EDITED: f"0{ALWAYS}",
    STARTED: f"0 1{ALWAYS}",
    LEADER: f"1{ALWAYS}",
    OTHER: f"0{ALWAYS}",
    "ringfence_config_last_reload_successful": f"1{ALWAYS}",
    "ringfence_controller_webhooks_behind": f"0{ALWAYS}",
    "ringfence_controller_queue_oldest_seconds": f"2{ALWAYS}",
    'ringfence_controller_failures_total{error="Conflict"}': f"3{ALWAYS}",
    REFUSED: f"0{ALWAYS}",
    TIMED_OUT: f"0{ALWAYS}",
    'ringfence_server_threads{port="admission"}': f"16{ALWAYS}",
    'ringfence_server_threads_busy{port="admission"}': f"2{ALWAYS}",
    "ringfence_unenforced_pods": f"0{ALWAYS}",
    PASSED_BY: f"0{ALWAYS}",
    AGENT: f"1{ALWAYS}",
    OTHERS_AGENT: f"0{ALWAYS}",
    "ringfence_record_last_read_successful": f"1{ALWAYS}",
    "ringfence_controllers_failing": f"0{ALWAYS}",
    "ringfence_maps_last_write_successful": f"1{ALWAYS}",
    "ringfence_drift_corrections_total": f"0{ALWAYS}",
    'ringfence_bpf_map_pressure{map_name="cidrs"}': f"0.5{ALWAYS}",
    POLICY_DENIED: f"0+5{ALWAYS}",
    "ringfence_cni_last_join_successful": f"1{ALWAYS}",
    LOST: f"7{ALWAYS}",
}


@dataclass(frozen=True, slots=True)
class Case:
    """An alert, when it fires, and the labels it carries beside its severity."""

    alert: str
    when: str
    series: Mapping[str, str | None]
    labels: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    """Alerts of which it is not the business of this case whether they fire."""


def once(alert: str, series: str, values: str, **labels: str) -> Case:
    return Case(alert, "as it says", {series: values}, labels)


def at_the_end(before: str, after: str, minutes: int) -> str:
    """A series that changes so many minutes before the end."""
    return f"{before}x{SAMPLES - 2 * minutes} {after}x{2 * minutes}"


CASES = [
    Case(
        "RingfenceAdmissionDead",
        "no webhook is left",
        {"ringfence_webhook_certificate_last_reload_successful": "1x130 stale", EXPIRY: None},
    ),
    once("RingfenceAdmissionDead", "ringfence_controller_webhook_answers", at_the_end("1", "0", 5)),
    once("RingfenceNamespacesUndecided", UNDECIDED, "2x140", reason="TenantRemoved"),
    Case(
        "RingfenceAdmissionFails",
        "the first call fails",
        {UNCALLED: at_the_end("_", "1", 5)},
        {"error_type": "calling_webhook_error", "name": "namespaces.ringfence.io"},
    ),
    Case(
        "RingfenceAdmissionFails",
        "calls fail again",
        {UNCALLED: f"4x{SAMPLES - 5} 5x5"},
        {"error_type": "calling_webhook_error", "name": "namespaces.ringfence.io"},
    ),
    Case(
        "RingfenceAdmissionNotInForce",
        "a gap of a quarter of an hour",
        {STATE + '{state="in-force"}': at_the_end("1", "0", 15)},
    ),
    Case(
        "RingfenceAdmissionEdited",
        "the first edit after the start",
        {EDITED: at_the_end("0", "1", 5)},
        {"kind": "ValidatingWebhookConfiguration", "what": "edited"},
    ),
    Case("RingfenceNoLeader", "nobody leads", {LEADER: "0x140"}),
    Case(
        "RingfenceNoLeader",
        "no controller is left",
        {
            LEADER: "1x110 stale",
            OTHER: "0x110 stale",
        },
    ),
    once("RingfenceTenantFileRefused", "ringfence_config_last_reload_successful", "0x140"),
    once("RingfenceWebhookBehind", "ringfence_controller_webhooks_behind", "1x140"),
    once("RingfenceQueueOld", "ringfence_controller_queue_oldest_seconds", "290+30x140"),
    once(
        "RingfenceNamespacesFail",
        'ringfence_controller_failures_total{error="Conflict"}',
        "0+1x140",
        error="Conflict",
    ),
    Case("RingfenceCertificateExpires", "in two days", {EXPIRY: f"172800{ALWAYS}"}),
    once("RingfenceAdmissionCrowded", REFUSED, "0+60x140", instance="w"),
    once(
        "RingfenceAdmissionThreadsBusy",
        'ringfence_server_threads_busy{port="admission"}',
        "16x140",
        port="admission",
    ),
    once("RingfencePodsNotEnforced", "ringfence_unenforced_pods", "2x140"),
    once("RingfencePassedByOthers", PASSED_BY, "1x140", effect="not-enforced"),
    Case(
        "RingfenceAgentAway",
        "for ten minutes",
        {AGENT: at_the_end("1", "0", 10)},
        {"job": "enforcer", "namespace": SYSTEM, "node": "n1"},
    ),
    once("RingfenceRecordMissing", "ringfence_record_last_read_successful", "0x140"),
    once("RingfenceAgentBehind", "ringfence_controllers_failing", "1x140"),
    once("RingfenceMapsNotWritten", "ringfence_maps_last_write_successful", "0x140"),
    once("RingfenceMapsChanged", "ringfence_drift_corrections_total", at_the_end("0", "1", 5)),
    once(
        "RingfenceMapFull",
        'ringfence_bpf_map_pressure{map_name="cidrs"}',
        "0.81x140",
        map_name="cidrs",
    ),
    Case(
        "RingfenceConnectionTableFull",
        "its first drop",
        {FULL: at_the_end("_", "1", 5)},
        {"reason": "CT_MAP_INSERTION_FAILED"},
    ),
    once(
        "RingfencePolicyWithoutRoom",
        POLICY,
        "3x140",
        at="p",
    ),
    once("RingfenceTenantWithoutRoom", TENANT, "3x140", at="p"),
    once("RingfenceCniNotJoined", "ringfence_cni_last_join_successful", "0x140"),
    once(
        "RingfenceEventsLost",
        LOST,
        "0+5x140",
        source="reader",
    ),
]


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return build.ensure(build.PROMTOOL, lambda _: None) / "promtool"
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")


def expected(case: Case | None) -> Iterator[dict[str, object]]:
    """What promtool is to find at the end, alert by alert."""
    for rule in RULES:
        alert = text(rule, "alert")
        if case is not None and alert in case.also:
            continue
        fires = case is not None and alert == case.alert
        labels = {**(case.labels if case else {}), **strings(rule, "labels")}
        told = {"exp_labels": labels, "exp_annotations": strings(rule, "annotations")}
        yield {"eval_time": AT, "alertname": alert, "exp_alerts": [told] if fires else []}


def outcome(promtool: Path, folder: Path, case: Case | None) -> str:
    """What promtool says against it; nothing where all is as expected."""
    series = {**HEALTHY, **(case.series if case else {})}
    (folder / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "ringfence", "rules": list(map(dict, RULES))}]})
    )
    test: Document = {
        "interval": EVERY,
        "input_series": [{"series": s, "values": v} for s, v in series.items() if v is not None],
        "alert_rule_test": list(expected(case)),
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": EVERY, "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    command: list[str | Path] = [promtool, "test", "rules", folder / "test.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_a_healthy_install_is_quiet(promtool: Path, tmp_path: Path) -> None:
    assert outcome(promtool, tmp_path, None) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{case.when}")
def test_it_fires_and_no_other_does(promtool: Path, tmp_path: Path, case: Case) -> None:
    assert outcome(promtool, tmp_path, case) == ""


def test_every_alert_has_its_case() -> None:
    assert {case.alert for case in CASES} == set(ALERTS)


def test_every_alert_leads_to_its_own_section() -> None:
    page = (CHECKOUT / "docs/alerts.md").read_text()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == ALERTS
    for rule in RULES:
        notes, alert = strings(rule, "annotations"), text(rule, "alert")
        assert notes["runbook_url"] == f"docs/alerts.md#{alert.lower()}"
        section = page.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
        assert notes["summary"] in section
        assert notes["action"] in section
        severity = strings(rule, "labels")["severity"]
        assert f"| [{alert}](#{alert.lower()}) | {severity} | {notes['summary']} |" in page


def metrics_of(expressions: str) -> set[str]:
    """Names in PromQL, without those of labels and of what is in quotes."""
    bare = re.sub(r'"[^"]*"', "", expressions)
    return set(re.findall(r"\b(?:ringfence_[a-z0-9_]+|apiserver_[a-z_]+|up)\b", bare))


def test_dashboards_show_every_metric_that_an_alert_asks() -> None:
    boards = [
        json.loads(p.read_text()) for p in (CHECKOUT / "charts/ringfence/dashboards").glob("*.json")
    ]
    shown = [t["expr"] for board in boards for panel in board["panels"] for t in panel["targets"]]
    asked = metrics_of(" ".join(text(rule, "expr") for rule in RULES))
    assert len(asked) > 20
    assert asked - metrics_of(" ".join(shown)) == set()


def test_operations_and_metrics_name_alerts_that_exist() -> None:
    for page in ("operations.md", "metrics.md", "troubleshooting.md"):
        named = re.findall(r"\bRingfence[A-Z]\w+", (CHECKOUT / "docs" / page).read_text())
        assert set(named) <= set(ALERTS), page
