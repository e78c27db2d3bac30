"""What every test may count on: the real command, fresh names, skips that nobody overlooks.

Tests marked `bpf` need root and a kernel that loads programs, those marked `cluster` an API server.
Elsewhere they are skipped with the reason; where CI=true says that the machine is meant to have all
of it, such a skip is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from secrets import token_hex

import pytest
from hypothesis import HealthCheck, settings

from generators.errors import MachineLacks
from lab import machine
from tests.testbed.sharing import FileScheduling, together
from tests.testbed.waiting import patience

CHECKOUT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).with_name("ringfence")

# Tests start thousands of processes. Where the environment forbids to keep bytecode, each would
# compile all that it imports, which takes as long as everything else that a short command does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

WORTH_A_LINE = 15
"""Seconds of a file from which on its turn matters."""

# `make test` tries the same few examples every time, `make fuzz` many new ones.
settings.register_profile(
    "few",
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "many",
    settings.get_profile("few"),
    max_examples=300,
    derandomize=False,
)
settings.load_profile("few")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@cache
def lacking() -> str:
    """What this machine lacks for tests marked `bpf`; empty when it has everything."""
    try:
        machine.check()
    except MachineLacks as lack:
        return f"{lack.what}; make setup installs what can be installed"
    return ""


def stage(item: pytest.Item) -> int:
    """Fast and pure first, then the wheel, then root and the kernel, then an API server."""
    if item.get_closest_marker("cluster"):
        return 3
    if item.get_closest_marker("bpf"):
        return 2
    return 1 if item.path.name == "test_wheel.py" else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In stages where one reads along; the longest files first where processes share the work."""
    items.sort(key=stage)
    if config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"):
        files = {path: str(path.relative_to(CHECKOUT)) for path in {item.path for item in items}}
        seconds = durations()
        sums: dict[str, int] = defaultdict(int)
        for file in files.values():
            sums[together(file)] += seconds.get(file, 0)

        def turn(item: pytest.Item) -> tuple[int, str, int]:
            file = files[item.path]
            return -sums[together(file)], together(file), -seconds.get(file, 0)

        items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FileScheduling | None:
    """A file goes to one process, and so do files that share an API server."""
    return FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@cache
def durations() -> dict[str, int]:
    """Seconds, roughly: only their order matters. `make test` ends with those that it saw."""
    rows = (CHECKOUT / "tests/durations.txt").read_text().splitlines()
    return {path: int(seconds) for seconds, path in (row.split() for row in rows)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Beside the slowest tests the longest files, as durations.txt has them."""
    if not terminalreporter.config.option.durations:
        return
    seconds: dict[str, float] = defaultdict(float)
    for report in chain(*terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("longest files")
    for path, took in sorted(seconds.items(), key=lambda item: -item[1]):
        if took >= WORTH_A_LINE:
            terminalreporter.write_line(f"{round(took, -1):.0f} {path}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """How long a test may take is said for a quiet machine too; pytest-timeout reads it next."""
    marked = item.get_closest_marker("timeout")
    chosen = item.config.getoption("timeout")
    default = float(item.config.getini("timeout") if chosen is None else chosen)
    seconds = patience(marked.args[0] if marked else default)
    item.add_marker(pytest.mark.timeout(seconds), append=False)
    return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("bpf") and lacking():
        pytest.skip(lacking())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    unexpected = report.skipped and not hasattr(report, "wasxfail")
    if unexpected and stage(item) >= 2 and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped where CI=true lacks nothing: {report.longrepr}"
        )
    return report


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository."""
    return CHECKOUT


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """Fresh names for labs, namespaces, links, pins: `unique_name("node")` -> `node-3f9a1c`."""
    return lambda prefix: f"{prefix}-{token_hex(3)}"


@pytest.fixture(scope="session")
def ringfence() -> Run:
    """The command in a process of its own: `ringfence("matrix", "-f", path).returncode`."""

    def run(
        *arguments: str | Path, stdin: str = "", cwd: Path | None = None, timeout: float = 50
    ) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [str(COMMAND), *map(str, arguments)]
        return subprocess.run(
            command,
            input=stdin,
            cwd=cwd,
            timeout=patience(timeout),
            capture_output=True,
            text=True,
            check=False,
        )

    return run
