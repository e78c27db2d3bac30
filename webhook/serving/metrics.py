"""What Prometheus can read from a webhook.

`resource` and `operation` come from closed lists: a client could otherwise invent label values
until memory is full. What the files in force say is computed at the scrape, so it is never stale.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from generators.serving.metrics import gauge, gauges
from webhook.reload import ServingCertificate, TenantFile

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """The registry and what app.py counts in it."""

    def __init__(self, tenants: TenantFile, certificate: ServingCertificate) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ringfence_webhook_requests",
            "Admission requests by webhook, operation, resource and decision "
            "(allowed, patched, denied, bad_request, error).",
            ("webhook", "operation", "resource", "decision"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ringfence_webhook_request_duration_seconds",
            "Time from the first byte of the body to the finished answer.",
            ("webhook",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.registry.register(FilesInForce(tenants, certificate))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)


class FilesInForce(Collector):
    """The tenant file and the certificate as they are at the scrape."""

    def __init__(self, tenants: TenantFile, certificate: ServingCertificate) -> None:
        self._tenants = tenants
        self._certificate = certificate

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        yield from tenant_file_metrics(self._tenants)
        yield gauge(
            "ringfence_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires (Unix time).",
            self._certificate.not_after.timestamp(),
        )
        yield gauge(
            "ringfence_webhook_certificate_last_reload_successful",
            "1 when the certificate on disk is served, 0 when it was refused.",
            0 if self._certificate.problem else 1,
        )


def tenant_file_metrics(tenants: TenantFile) -> Iterable[Metric]:
    """The tenant file in force; webhook and controller say it under the same names."""
    yield gauge(
        "ringfence_config_last_reload_successful",
        "1 when the tenant file on disk is in force, 0 when it was refused.",
        0 if tenants.problem else 1,
    )
    yield gauge(
        "ringfence_config_last_reload_success_timestamp_seconds",
        "When the tenant file in force was loaded (Unix time).",
        tenants.loaded_at,
    )
    yield gauges(
        "ringfence_config_info",
        "Always 1; the label is the SHA-256 of the tenant file in force.",
        ("digest",),
        {(tenants.config.digest,): 1},
    )
