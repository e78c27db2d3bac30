"""The soak measures what it says, and a short one holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from generators.tenants.load import parse_tenants
from tests.soak.ground import tenants
from tests.soak.samples import Sample, counts, of_process, slope, table
from tests.testbed.waiting import ending, eventually, patience


@pytest.mark.parametrize(
    ("points", "an_hour"),
    [([], 0), ([(0, 5)], 0), ([(0, 5), (3600, 5)], 0), ([(0, 1), (1800, 2), (3600, 3)], 2)],
    ids=["nothing", "one", "flat", "growing"],
)
def test_a_slope_is_growth_an_hour(points: list[tuple[float, float]], an_hour: float) -> None:
    assert slope(points) == pytest.approx(an_hour)


def test_the_second_half_tells_growth_from_a_start() -> None:
    values = [60, 80, 100, 100, 100]
    samples = [Sample(900.0 * n, "agent (7)", "RSS MB", v) for n, v in enumerate(values)]
    row = table(samples)[-1]
    assert row == "| agent (7) | RSS MB | 60 | 60.0 | 100.0 | 100.0 | +40.00 | +0.00 |"


def test_what_happened_most_often_comes_first() -> None:
    assert counts("Faults", {"b": 1, "a": 1, "c": 2}) == ["Faults: c 2, a 1, b 1"]
    assert counts("Faults", {}) == ["Faults: none"]


def test_a_process_is_measured_with_its_children() -> None:
    with ending(subprocess.Popen(["sleep", "60"])) as child:
        alone = of_process(child.pid)
    # Its own threads, and no others: this process may have some of earlier tests, which end.
    script = "import subprocess; subprocess.run(['sleep', '20'])"
    with ending(subprocess.Popen([sys.executable, "-c", script])) as parent:
        eventually(lambda: of_process(parent.pid).get("threads") == 2, "both are counted")
        both = of_process(parent.pid)
    assert alone["threads"] == 1
    assert both["RSS MB"] > alone["RSS MB"] > 0
    assert of_process(child.pid) == {}


def test_every_tenant_file_of_the_soak_is_another_good_one() -> None:
    digests = {parse_tenants(tenants(n).encode(), "tenants.yaml").digest for n in range(4)}
    assert len(digests) == 4


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_soak_holds_and_leaves_its_table(checkout: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "0.5", "--output", tmp_path],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=patience(600),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = tmp_path.glob("*/soak.md")
    assert "What did not hold: nothing" in page.read_text()
    assert "| agent of node 1 (" in page.read_text()
