"""What Prometheus can read about policies; webhook and controller say it under the same names.

docs/metrics.md lists each of these; a test compares the two.
"""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from generators.serving.metrics import gauge, gauges
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
        held = Counted(each.source for each in policies.held)
        yield gauges(
            "ringfence_policies",
            "Policies in force, by source.",
            ("source",),
            {(source.value,): held[source] for source in PolicySource},
        )
        yield gauge(
            "ringfence_policies_refused",
            "Policies and rules that are not carried out as written.",
            len(policies.refused),
        )
        yield gauge(
            "ringfence_policies_standing_back",
            "1 while the cluster's policies are left to a Kyverno that executes them.",
            1 if policies.standing_back else 0,
        )
        yield gauge(
            "ringfence_policies_last_reload_successful",
            "1 when all policy files on disk are in force, 0 when any part was refused.",
            0 if self._book.files.in_force.problems else 1,
        )
        yield gauges(
            "ringfence_policies_info",
            "Always 1; the label is the digest of the policies in force.",
            ("digest",),
            {(policies.digest,): 1},
        )
