"""What drops cost the agent: its CPU at 10,000 drops a second, with and without a reader.

A sample is seconds of CPU in a second of the clock; the baseline is the same agent without any
drops. Every drop makes an event, so this is the worst case.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cut import POLICY
from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from bench.traffic import ADDRESSES, CLIENT, PORT, RINGFENCE, SERVER, Node, enforced, lab
from tests.testbed.waiting import eventually

RATE = 10_000
TICKS = os.sysconf("SC_CLK_TCK")
QUIET_SECONDS = 0.3
PATIENCE = 10.0
AIM = "10,000 drops a second, read by nobody, take less than a fifth of a core"


def run(scale: Scale) -> Iterator[Comparison]:
    """Datagrams that a policy denies, at a fixed rate."""
    seconds = 3.0 if scale is Scale.FULL else 0.2
    sent: list[int] = []
    with ExitStack() as stack:
        node = stack.enter_context(enforced())
        path = Path(stack.enter_context(TemporaryDirectory(prefix="ringfence-bench-")), "deny.json")
        path.write_text(json.dumps(POLICY))
        lab("apply", node.places, "-f", str(path))
        pid = _agent(node)

        def flooded() -> None:
            sent.append(_flood(node, seconds))

        turns: dict[str, Turn] = {
            "no drops": lambda: _cpu_while(pid, lambda: time.sleep(seconds)),
            "10,000 drops a second": lambda: _cpu_while(
                pid, lambda: sent.append(_flood(node, seconds))
            ),
            "and `monitor` prints them": lambda: _cpu_read(pid, node, seconds),
        }
        samples = alternate(turns, scale.of(10, 1))
    rate = {"sent": f"{sum(sent) / len(sent) / seconds:,.0f} a second"}
    series = tuple(
        Series(name, Unit.SECONDS, found, rate if "drops a" in name else {})
        for name, found in samples.items()
    )
    yield Comparison("CPU of the agent, seconds a second", series, AIM)


def _agent(node: Node) -> int:
    status = json.loads(lab("status", node.places, "-o", "json"))
    return next(int(p["pid"]) for p in status["processes"] if p["name"].startswith("enforcer"))


def _flood(node: Node, seconds: float) -> int:
    address = ADDRESSES[SERVER][0]
    command = node.command(CLIENT, "flood", address, str(PORT), str(RATE), str(seconds))
    return int(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def _cpu_read(pid: int, node: Node, seconds: float) -> Sequence[float]:
    with _reader(node):
        return _cpu_while(pid, lambda: _flood(node, seconds))


@contextmanager
def _reader(node: Node) -> Iterator[None]:
    command = [str(RINGFENCE), "monitor", "--run-dir", str(node.places.enforcer_run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _cpu_while(pid: int, work: Callable[[], object]) -> Sequence[float]:
    """CPU seconds of a process for each second of the work, never quite none.

    What it still has to do when the work ends counts too.
    """
    _settle(pid)
    before, start = _cpu(pid), time.monotonic()
    work()
    took = time.monotonic() - start
    _settle(pid)
    return (max(_cpu(pid) - before, 0.001) / took,)


def _settle(pid: int) -> None:
    """Wait until the agent is nearly idle."""

    def quiet() -> bool:
        before = _cpu(pid)
        time.sleep(QUIET_SECONDS)
        return _cpu(pid) - before < 2 / TICKS

    eventually(quiet, "the agent has nothing to do", PATIENCE)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
