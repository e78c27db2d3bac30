"""Comparisons as Markdown for people and as JSON for the next run; both land in .cache/bench."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.measure import Comparison, Series, Unit

COLUMNS = ("subject", "p50", "p99", "samples", "times baseline")
_STEPS = {
    Unit.SECONDS: ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    Unit.PER_SECOND: ((1.0, "/s"),),
    Unit.BITS_PER_SECOND: ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1.0, "bit/s")),
}


def quantity(value: float, unit: Unit) -> str:
    """A number with three digits and a unit that fits: `1.23 ms`."""
    steps = _STEPS[unit]
    size, name = next((step for step in steps if value >= step[0]), steps[-1])
    scaled = value / size
    return f"{scaled:.0f} {name}" if scaled >= 100 else f"{scaled:.3g} {name}"


def markdown(comparison: Comparison) -> str:
    """One table with its title, and the aim where there is one."""
    notes = list(dict.fromkeys(name for series in comparison.series for name in series.notes))
    rows = [[*COLUMNS, *notes]]
    rows += [_row(comparison, series, notes) for series in comparison.series]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    aim = f"\nAim: {comparison.aim}\n" if comparison.aim else ""
    absent = "".join(f"\nNo figures for {reason}\n" for reason in comparison.absent)
    return f"### {comparison.title}\n{aim}\n" + "\n".join(lines) + "\n" + absent


def _row(comparison: Comparison, series: Series, notes: Sequence[str]) -> list[str]:
    is_baseline = series is comparison.series[0]
    return [
        series.name,
        quantity(series.percentile(50), series.unit),
        quantity(series.percentile(99), series.unit),
        str(len(series.samples)),
        "baseline" if is_baseline else f"{comparison.ratio(series):.2f}",
        *(series.notes.get(note, "") for note in notes),
    ]


def machine() -> dict[str, str]:
    """What the figures belong to."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip() or "none",
        "kernel": platform.release(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }


def save(comparisons: Sequence[Comparison], folder: Path, stem: str) -> Path:
    """Write STEM.md and STEM.json; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    head = ", ".join(f"{name} {value}" for name, value in facts.items())
    page = folder / f"{stem}.md"
    page.write_text(f"{head}\n\n" + "\n".join(map(markdown, comparisons)))
    document = {"machine": facts, "comparisons": [asdict(item) for item in comparisons]}
    page.with_suffix(".json").write_text(json.dumps(document, indent=1))
    return page
