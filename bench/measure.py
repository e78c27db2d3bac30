"""What benches measure and how: subjects take turns, so that a busy machine is unfair to all alike.

A bench yields comparisons. Each compares a few series of samples, one sample a unit of work, with
the series that is its baseline.
"""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

CHECKOUT = Path(__file__).resolve().parents[1]
Item = TypeVar("Item")


class Unit(StrEnum):
    """What a sample counts. Less is better in seconds, more in rates."""

    SECONDS = "s"
    PER_SECOND = "/s"
    BITS_PER_SECOND = "bit/s"


class Scale(StrEnum):
    """FULL is for people; SMOKE is the least work that touches every line."""

    FULL = "full"
    SMOKE = "smoke"

    def of(self, full: int, smoke: int) -> int:
        """The size for this scale."""
        return full if self is Scale.FULL else smoke


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one subject; `notes` are further columns, such as memory."""

    name: str
    unit: Unit
    samples: tuple[float, ...]
    notes: Mapping[str, str] = field(default_factory=dict)

    def percentile(self, percent: float) -> float:
        """What `percent` of the samples are as good as, or better (nearest rank)."""
        ordered = sorted(self.samples, reverse=self.unit is not Unit.SECONDS)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table. The first series is the baseline."""

    title: str
    series: tuple[Series, ...]
    aim: str = ""
    absent: tuple[str, ...] = ()
    """Subjects that could not run here, each with the reason."""

    def ratio(self, series: Series) -> float:
        """Median of a series in medians of the baseline."""
        return series.percentile(50) / self.series[0].percentile(50)


def told_by(module: str, words: Iterable[int | str], patience: float) -> dict[str, Any]:
    """What a module prints as JSON in its last line, run as a process of its own with these words;
    `patience` in seconds. RuntimeError with the end of what it printed when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


Turn = Callable[[], Sequence[float]]
"""One round of one subject: does the work, returns its samples."""


def alternate(subjects: Mapping[str, Turn], rounds: int) -> dict[str, tuple[float, ...]]:
    """Let the subjects take turns; each begins a round as often as the others."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            samples[name].extend(subjects[name]())
    return {name: tuple(found) for name, found in samples.items()}


def timed(work: Callable[[], object]) -> Turn:
    """A turn that takes the time of one call."""

    def turn() -> Sequence[float]:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start,)

    return turn


def timed_each(work: Callable[[Item], object], items: Sequence[Item]) -> Turn:
    """A turn that takes the time of a call for each item."""

    def turn() -> Sequence[float]:
        samples = []
        for item in items:
            start = time.perf_counter()
            work(item)
            samples.append(time.perf_counter() - start)
        return samples

    return turn
