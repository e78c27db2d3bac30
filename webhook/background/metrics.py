"""What Prometheus can read about the background rules; docs/metrics.md lists it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from generators.kube.queue import QueueStats
from generators.serving.metrics import gauge, gauges
from webhook.background.needs import RuleName
from webhook.background.writer import Done

_LAG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Now:
    """The background rules at a scrape."""

    queue: QueueStats
    made: int
    problems: Mapping[RuleName, int]
    running: bool


class Measures:
    """Counters, and gauges computed at the scrape."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], Now]) -> None:
        self._writes = Counter(
            "ringfence_policies_writes",
            "Objects that policies wrote or deleted, by kind and action.",
            ("kind", "action"),
            registry=registry,
        )
        self.failures = Counter(
            "ringfence_policies_failures",
            "Triggers for which policies could not be carried out and that are retried.",
            ("error",),
            registry=registry,
        )
        self.lag = Histogram(
            "ringfence_policies_lag_seconds",
            "Time from a watched trigger change until all generated objects exist.",
            buckets=_LAG,
            registry=registry,
        )
        registry.register(_AtTheScrape(now))

    def wrote(self, kind: str, done: Done) -> None:
        """Count a write; of what was taken over, that it was changed."""
        done = Done.UPDATED if done is Done.TAKEN_OVER else done
        self._writes.labels(kind, done.value).inc()


class _AtTheScrape(Collector):
    def __init__(self, now: Callable[[], Now]) -> None:
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        now = self._now()
        yield gauge(
            "ringfence_policies_running",
            "1 while this controller carries out rules in the background.",
            float(now.running),
        )
        yield gauge(
            "ringfence_policies_queue_depth",
            "Triggers that wait for a worker or a retry.",
            now.queue.depth + now.queue.delayed,
        )
        yield gauge(
            "ringfence_policies_queue_oldest_seconds",
            "How long the first trigger in the queue has waited.",
            now.queue.oldest_seconds,
        )
        yield gauge("ringfence_policies_objects", "Objects that policies have made.", now.made)
        yield gauges(
            "ringfence_policies_problems",
            "Triggers for which a rule failed, by rule.",
            ("policy", "rule"),
            {(policy, rule): count for (policy, rule), count in sorted(now.problems.items())},
        )
