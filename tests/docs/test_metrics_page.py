"""docs/metrics.md names every metric of webhook and controller, with its type and labels."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from generators.certificates import issue, new_authority
from generators.kube.queue import QueueStats
from generators.kube.reflector import ReflectorStats
from tests.webhook.reviews import TENANTS
from webhook.background.metrics import Measures, Now
from webhook.background.writer import Done
from webhook.controller.metrics import ControllerMetrics, Moment
from webhook.registration.certificates import write_files
from webhook.registration.guard import GuardState
from webhook.reload import TenantFile
from webhook.serving.state import load_state
from webhook.settings import WebhookSettings

Described = dict[str, tuple[str, tuple[str, ...]]]
OURS = (
    "ringfence_webhook_",
    "ringfence_controller_",
    "ringfence_config_",
    "ringfence_policies",
)
OTHERS = ("process_", "python_")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tenants.yaml").write_text(TENANTS)
    now = datetime.now(UTC)
    authority = new_authority(now, 1)
    write_files(tmp_path, authority.pem, issue(authority, ("localhost",), now, 1))
    return tmp_path


def webhook(folder: Path) -> CollectorRegistry:
    paths = (folder / "tenants.yaml", folder / "tls.crt", folder / "tls.key")
    (folder / "policies").mkdir(exist_ok=True)
    state = load_state(WebhookSettings(*paths, policies=(str(folder / "policies"),)))
    metrics = state.metrics
    assert state.policies is not None
    state.policies.metrics.results.labels("policy", "rule", "pass").inc()
    metrics.requests.labels("mutate", "CREATE", "namespaces", "patched").inc()
    metrics.seconds.labels("mutate").observe(0.001)
    return metrics.registry


def controller(folder: Path) -> CollectorRegistry:
    reflector = ReflectorStats(
        "namespaces", True, True, False, 1, 0.0, {"start": 1}, {"Silent": 1}, {}
    )
    moment = Moment(
        leading=True,
        reflectors=(reflector,),
        queue=QueueStats(0, 0, 0, 0, 0, 0.0),
        guard=GuardState.IN_FORCE,
        unproven=0,
        behind=0,
        recorded={"test01": 1},
        undecided={},
        webhook="",
        certificate_expiry=1.0,
        authority_expiry=1.0,
    )
    metrics = ControllerMetrics(TenantFile(folder / "tenants.yaml"), lambda: moment)
    metrics.writes.labels("Namespace", "Update").inc()
    metrics.failures.labels("Forbidden").inc()
    metrics.reasserted.labels("ValidatingWebhookConfiguration", "edited").inc()
    metrics.findings.labels("TenantAssigned").inc()
    metrics.renewals.labels("the CA is due for renewal").inc()
    now = Now(moment.queue, 1, {("policy", "rule"): 1}, running=True)
    measures = Measures(metrics.registry, lambda: now)
    measures.wrote("NetworkPolicy", Done.CREATED)
    measures.failures.labels("Forbidden").inc()
    measures.lag.observe(0.001)
    return metrics.registry


def exported(registry: CollectorRegistry) -> Described:
    found: Described = {}
    for family in registry.collect():
        if family.name.startswith(OTHERS):
            continue
        assert family.documentation, f"{family.name} has no help text"
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {k for s in family.samples for k in s.labels if k != "le"}
        found[name] = (family.type, tuple(sorted(labels)))
    return found


def documented(page: str) -> Described:
    rows = re.findall(r"^\| `(ringfence_[a-z0-9_]+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    return {
        name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows
    }


def test_the_page_and_the_processes_name_the_same_metrics(checkout: Path, folder: Path) -> None:
    page = documented((checkout / "docs/metrics.md").read_text())
    ours = exported(webhook(folder)) | exported(controller(folder))
    known = {name: row for name, row in page.items() if name.startswith(OURS)}
    assert known == ours
