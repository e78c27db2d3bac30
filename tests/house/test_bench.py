"""Every bench still runs, in its smallest size; nothing is asserted about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import BENCHES
from bench.measure import Comparison, Series, Unit, alternate
from bench.report import markdown, quantity
from tests.testbed.waiting import ended, ending, patience

NEEDS_KERNEL = {
    "traffic",
    "verdict",
    "rulesets",
    "cut",
    "events",
    "arrival",
    "elsewhere",
    "node",
    "flood",
    "starting",
    "real_node",
    "loading",
}
NEEDS_API_SERVER = {"controller", "policy_generation", "arrival", "elsewhere", "real_node"}


def marked(name: str) -> object:
    """A bench with what it needs; one that needs a kernel or a cluster takes its time."""
    marks = [pytest.mark.timeout(180)]
    if name in NEEDS_API_SERVER:
        marks += [pytest.mark.cluster, pytest.mark.slow]
    if name in NEEDS_KERNEL:
        marks += [pytest.mark.bpf, pytest.mark.slow]
    return pytest.param(name, marks=marks)


def bench(checkout: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and messages. A bench that takes too long may still take down what it made."""
    command = [sys.executable, "-m", "bench", *arguments]
    process = subprocess.Popen(
        command, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with ending(process):
        try:
            messages = process.communicate(timeout=patience(150))[1]
        except BaseException:
            process.terminate()
            ended(process)
            raise
    return process.returncode, messages


@pytest.mark.parametrize("name", [marked(name) for name in BENCHES])
def test_bench_runs_and_saves_its_tables(checkout: Path, tmp_path: Path, name: str) -> None:
    code, messages = bench(checkout, name, "--scale", "smoke", "--output", str(tmp_path))
    assert code == 0, messages
    (saved,) = tmp_path.glob("*.json")
    comparisons = json.loads(saved.read_text())["comparisons"]
    assert comparisons
    assert all(series["samples"] for item in comparisons for series in item["series"])
    assert all(len(item["series"]) > 1 for item in comparisons), "nothing to compare with"


def test_subjects_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []

    def turn(name: str) -> list[float]:
        order.append(name)
        return [1.0]

    alternate({"a": lambda: turn("a"), "b": lambda: turn("b")}, rounds=2)
    assert order == ["a", "b", "b", "a"]


def test_table_compares_medians_with_the_baseline() -> None:
    slow = Series("slow", Unit.SECONDS, (0.002, 0.004, 0.006))
    fast = Series("fast", Unit.SECONDS, (0.001, 0.002, 0.003), {"RSS": "1 MB"})
    table = markdown(Comparison("Two", (slow, fast)))
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["subject", "p50", "p99", "samples", "times baseline", "RSS"],
        ["slow", "4 ms", "6 ms", "3", "baseline", ""],
        ["fast", "2 ms", "3 ms", "3", "0.50", "1 MB"],
    ]


def test_table_says_who_is_missing_and_why() -> None:
    there = Series("there", Unit.SECONDS, (0.001,))
    table = markdown(Comparison("One", (there,), absent=("gone: is not installed",)))
    assert table.endswith("\nNo figures for gone: is not installed\n")


@pytest.mark.parametrize(("unit", "expected"), [(Unit.SECONDS, 99.0), (Unit.BITS_PER_SECOND, 2.0)])
def test_p99_is_on_the_bad_side(unit: Unit, expected: float) -> None:
    series = Series("any", unit, tuple(float(number) for number in range(1, 101)))
    assert series.percentile(99) == expected


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0000051, Unit.SECONDS, "5.1 µs"),
        (1.5, Unit.SECONDS, "1.5 s"),
        (1234.4, Unit.PER_SECOND, "1234 /s"),
        (9.41e9, Unit.BITS_PER_SECOND, "9.41 Gbit/s"),
        (0.0, Unit.BITS_PER_SECOND, "0 bit/s"),
    ],
)
def test_quantity_is_written_with_a_unit_that_fits(value: float, unit: Unit, text: str) -> None:
    assert quantity(value, unit) == text
