"""What processes use while the soak runs, and how it grows: samples, slopes and their table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1e6
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of one subject, such as the RSS in MB of process 4711 as `agent of node 1`."""

    seconds: float
    subject: str
    figure: str
    value: float


def of_process(pid: int) -> dict[str, float]:
    """Memory in MB, descriptors and threads of a process with its children; empty when it is gone.

    Source: proc(5).
    """
    found = {"RSS MB": 0.0, "descriptors": 0.0, "threads": 0.0}
    try:
        for one in (pid, *_children(pid)):
            status = Path(f"/proc/{one}/status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in status if ":" in line)
            found["RSS MB"] += int(fields["VmRSS"].split()[0]) * 1024 / MEGABYTE
            found["threads"] += int(fields["Threads"])
            found["descriptors"] += len(os.listdir(f"/proc/{one}/fd"))
    except (OSError, KeyError):
        return {}
    return found


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth an hour by least squares over (seconds, value); 0 for fewer than two moments."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread * HOUR


def table(samples: Iterable[Sample]) -> list[str]:
    """A Markdown row a subject and figure: first, last, highest, growth an hour in each half."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for sample in samples:
        points = series.setdefault((sample.subject, sample.figure), [])
        points.append((sample.seconds, sample.value))
    lines = [
        "| subject | figure | minutes | first | last | highest | an hour | an hour, second half |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (subject, figure), points in sorted(series.items()):
        middle = (points[0][0] + points[-1][0]) / 2
        later = [point for point in points if point[0] >= middle]
        values = [value for _, value in points]
        minutes = (points[-1][0] - points[0][0]) / 60
        lines.append(
            f"| {subject} | {figure} | {minutes:.0f} | {values[0]:.1f} | {values[-1]:.1f} | "
            f"{max(values):.1f} | {slope(points):+.2f} | {slope(later):+.2f} |"
        )
    return lines


def counts(title: str, found: Mapping[str, int]) -> list[str]:
    """A list of how often what happened, most often first."""
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [f"{title}: " + (", ".join(f"{name} {n}" for name, n in ordered) or "none")]
