"""What Prometheus can read from a controller; everything that can be is computed at the scrape.

docs/metrics.md lists each of these; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from generators.isolation.tenancy import Finding
from generators.kube.queue import QueueStats
from generators.kube.reflector import ReflectorStats
from generators.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
)
from generators.serving.metrics import counter, gauge, gauges
from webhook.registration.configuration import Found
from webhook.registration.guard import GuardState
from webhook.reload import TenantFile
from webhook.serving.metrics import tenant_file_metrics

REGISTERED = (
    VALIDATING_WEBHOOKS,
    MUTATING_WEBHOOKS,
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """The controller as it is at a scrape."""

    leading: bool
    reflectors: tuple[ReflectorStats, ...]
    queue: QueueStats
    guard: GuardState
    unproven: int
    behind: int
    """Replicas of the webhook that have not read the tenant file that is wanted."""
    recorded: Mapping[str, int]
    """Namespaces by tenant."""
    undecided: Mapping[Finding, int]
    """Namespaces in quarantine, by what is to be decided."""
    webhook: str | None
    """Why the API server cannot call the webhook; empty: it can, None: not asked."""
    certificate_expiry: float | None
    authority_expiry: float | None


class ControllerMetrics:
    """The registry and what the controller counts in it."""

    def __init__(self, tenants: TenantFile, moment: Callable[[], Moment]) -> None:
        self.registry = CollectorRegistry()
        self.writes = self._counter(
            "ringfence_controller_writes",
            "Writes to the API server that succeeded, by kind and action.",
            "kind",
            "action",
        )
        self.failures = self._counter(
            "ringfence_controller_failures",
            "Namespaces that could not be synchronized and are retried, by error.",
            "error",
        )
        self.reasserted = self._counter(
            "ringfence_controller_admission_reasserted",
            "Ringfence's admission objects that were missing or different and were written again.",
            "kind",
            "what",
        )
        # From 0 on: of a series that is born at 1, Prometheus sees no increase.
        for resource in REGISTERED:
            for found in Found:
                self.reasserted.labels(resource.kind, found)
        self.findings = self._counter(
            "ringfence_controller_findings",
            "Findings about namespaces that were reported by an Event, by its reason.",
            "reason",
        )
        for finding in Finding:
            self.findings.labels(finding.value)
        self.renewals = self._counter(
            "ringfence_controller_certificate_renewals",
            "Rotation steps of the webhook's certificates, by reason.",
            "why",
        )
        self.registry.register(_AtTheScrape(tenants, moment))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


class _AtTheScrape(Collector):
    """Leader, caches, queue, admission, certificates, tenant file."""

    def __init__(self, tenants: TenantFile, moment: Callable[[], Moment]) -> None:
        self._tenants = tenants
        self._moment = moment

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        moment = self._moment()
        yield from tenant_file_metrics(self._tenants)
        yield gauge(
            "ringfence_controller_leader", "1 in the controller that leads.", float(moment.leading)
        )
        yield from _caches(moment.reflectors)
        yield from _queue(moment.queue)
        yield gauges(
            "ringfence_controller_admission_state",
            "1 for the current state of admission: in-force, changing, settling, broken or off.",
            ("state",),
            {(each.value,): float(each is moment.guard) for each in GuardState},
        )
        yield gauge(
            "ringfence_controller_unproven_labels",
            "Namespaces whose tenant label is older than admission and not settled yet.",
            moment.unproven,
        )
        yield gauge(
            "ringfence_controller_webhooks_behind",
            "Replicas of the webhook that have not read the newest tenant file.",
            moment.behind,
        )
        if moment.webhook is not None:
            yield gauge(
                "ringfence_controller_webhook_answers",
                "1 while the API server can call the webhook, as the leader's dry run shows.",
                float(not moment.webhook),
            )
        yield gauges(
            "ringfence_controller_namespaces",
            "Namespaces in the record, by tenant.",
            ("tenant",),
            {(tenant,): count for tenant, count in sorted(moment.recorded.items())},
        )
        yield gauges(
            "ringfence_controller_undecided_namespaces",
            "Namespaces in quarantine until an admin decides, by the reason of their Event.",
            ("reason",),
            {
                (finding.value,): moment.undecided.get(finding, 0)
                for finding in (Finding.AMBIGUOUS, Finding.TENANT_GONE, Finding.UNKNOWN_TENANT)
            },
        )
        yield from _certificates(moment)


def _caches(reflectors: Iterable[ReflectorStats]) -> Iterable[Metric]:
    known, one = tuple(reflectors), ("resource",)
    yield gauges(
        "ringfence_controller_synced",
        "1 once the copy of a resource is complete.",
        one,
        {(stats.resource,): float(stats.synced) for stats in known},
    )
    yield gauges(
        "ringfence_controller_objects",
        "Objects in the copy of a resource.",
        one,
        {(stats.resource,): stats.objects for stats in known},
    )
    yield gauges(
        "ringfence_controller_last_event_age_seconds",
        "Seconds since the API server last sent anything about a resource, bookmarks included.",
        one,
        {(stats.resource,): stats.last_event_age for stats in known},
    )
    yield counter(
        "ringfence_controller_relists",
        "Full lists of a resource, by reason.",
        ("resource", "reason"),
        {(s.resource, reason): n for s in known for reason, n in sorted(s.relists.items())},
    )
    yield counter(
        "ringfence_controller_watch_errors",
        "Watches that failed, by error.",
        ("resource", "error"),
        {(s.resource, error): n for s in known for error, n in sorted(s.watch_errors.items())},
    )


def _queue(queue: QueueStats) -> Iterable[Metric]:
    yield gauge(
        "ringfence_controller_queue_depth",
        "Namespaces that wait for a worker or a retry.",
        queue.depth + queue.delayed,
    )
    yield gauge(
        "ringfence_controller_queue_oldest_seconds",
        "How long the first namespace in the queue has waited.",
        queue.oldest_seconds,
    )
    yield counter(
        "ringfence_controller_queue_retries",
        "Namespaces that were retried after a failure.",
        (),
        {(): queue.retries},
    )


def _certificates(moment: Moment) -> Iterable[Metric]:
    if moment.certificate_expiry is not None:
        yield gauge(
            "ringfence_controller_certificate_expiry_timestamp_seconds",
            "When the webhook's certificate in the Secret expires (Unix time).",
            moment.certificate_expiry,
        )
    if moment.authority_expiry is not None:
        yield gauge(
            "ringfence_controller_authority_expiry_timestamp_seconds",
            "When the newest CA of the webhook's certificates expires (Unix time).",
            moment.authority_expiry,
        )
