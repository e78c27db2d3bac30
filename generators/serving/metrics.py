"""Metrics that are computed at the scrape, as families of prometheus_client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

Labels = TypeVar("Labels", bound=tuple[str, ...])
"""The values of the labels; rows are shown in the order in which they come."""


def gauge(name: str, text: str, value: float) -> Metric:
    """One value that goes up and down."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, float]) -> Metric:
    """The same by labels."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, float]) -> Metric:
    """What only grows, by labels."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, rows: Mapping[Labels, float]
) -> Metric:
    for key, value in rows.items():
        family.add_metric(key, value)
    return family
