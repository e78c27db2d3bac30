"""Waiting for what happens elsewhere: a condition with a deadline, never a sleep and a hope.

Seconds are said for a quiet machine. `patience` makes of them what this one needs now: here, and
nowhere else, a busy machine gets more time. RINGFENCE_PATIENCE=3 stretches all of it by three.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

POLL_SECONDS = 0.02
STRETCH_AT_LEAST = 2.0
"""A machine becomes busy after the deadline was set as well."""
STRETCH_AT_MOST = 12.0

T = TypeVar("T")
Popen = TypeVar("Popen", bound=subprocess.Popen[Any])


def stretch(load: float, cores: int, wanted: str) -> float:
    """By how much: from the processes that want to run, the cores and the variable."""
    if wanted:
        return float(wanted)
    return min(max(STRETCH_AT_LEAST, 2 * load / cores), STRETCH_AT_MOST)


def patience(seconds: float) -> float:
    """How long to wait here for what takes at most these seconds on a quiet machine."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return seconds * stretch(load, cores, os.environ.get("RINGFENCE_PATIENCE", ""))


def eventually(
    ask: Callable[[], T],
    what: str = "what was waited for",
    seconds: float = 60.0,
    poll: float = POLL_SECONDS,
) -> T:
    """The first answer that is true; fails with `what` when none comes in time."""
    began = time.monotonic()
    while not (answer := ask()):
        waited = time.monotonic() - began
        # Asked anew each time: the machine may have become busy since.
        assert waited < patience(seconds), f"not after {waited:.0f} s: {what}"
        time.sleep(poll)
    return answer


def holds_for(seconds: float, holds: Callable[[], bool], what: str) -> None:
    """Fail as soon as it does not hold; these seconds are the same on every machine."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert holds(), what
        time.sleep(POLL_SECONDS)


def ended(process: subprocess.Popen[Any], seconds: float = 20.0) -> int:
    """How a process ended that has reason to; one that does not end in time is killed and told."""
    try:
        return process.wait(patience(seconds))
    except subprocess.TimeoutExpired:
        kill(process)
        raise


def kill(process: subprocess.Popen[Any]) -> None:
    """End a process that may have ended: SIGKILL, pipes closed, and not a zombie afterwards."""
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait(patience(20))


@contextlib.contextmanager
def ending(process: Popen) -> Iterator[Popen]:
    """A process for as long as the block lasts; Popen's own block waits for its end forever."""
    try:
        yield process
    finally:
        kill(process)
