"""What Prometheus can read about policies; webhook and controller say it under the same names.

docs/metrics.md lists each of these; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from webhook.policies.book import Policies, PolicyBook, PolicySource

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0)


class PolicyMetrics:
    """What the webhook counts; policies in force bound the label values."""

    def __init__(self, book: PolicyBook, served: Callable[[], Policies | None]) -> None:
        self._book = book
        self._served = served
        self.results = Counter(
            "ringfence_webhook_policy_results",
            "Rules carried out on a request's object, by policy, rule and result "
            "(pass, skip, error).",
            ("policy", "rule", "result"),
            registry=None,
        )
        self.seconds = Histogram(
            "ringfence_webhook_policy_duration_seconds",
            "Time that all policies together took for one request.",
            buckets=BUCKETS,
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Show them in a registry."""
        registry.register(self.results)
        registry.register(self.seconds)
        registry.register(PoliciesInForce(self._book, self._served))


class PoliciesInForce(Collector):
    """The policies as they are at the scrape."""

    def __init__(self, book: PolicyBook, served: Callable[[], Policies | None]) -> None:
        self._book = book
        self._served = served

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        policies = self._served() or Policies()
        count = GaugeMetricFamily(
            "ringfence_policies", "Policies in force, by source.", labels=("source",)
        )
        for source in PolicySource:
            found = sum(1 for each in policies.held if each.source is source)
            count.add_metric((source.value,), found)
        yield count
        yield GaugeMetricFamily(
            "ringfence_policies_refused",
            "Policies and rules that are not carried out as written.",
            value=len(policies.refused),
        )
        yield GaugeMetricFamily(
            "ringfence_policies_standing_back",
            "1 while the cluster's policies are left to a Kyverno that executes them.",
            value=1 if policies.standing_back else 0,
        )
        yield GaugeMetricFamily(
            "ringfence_policies_last_reload_successful",
            "1 when all policy files on disk are in force, 0 when any part was refused.",
            value=0 if self._book.files.in_force.problems else 1,
        )
        info = GaugeMetricFamily(
            "ringfence_policies_info",
            "Always 1; the label is the digest of the policies in force.",
            labels=("digest",),
        )
        info.add_metric((policies.digest,), 1)
        yield info
