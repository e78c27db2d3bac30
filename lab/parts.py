"""A lab's processes as parts that belong together: start one, wait until it answers, say why not.

Used by files/bringup.py and, on an API server, by api/bringup.py. Whatever is started is in the
ledger before it does anything.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from enforcer.answers import control
from generators.errors import RingfenceError
from lab import processes
from lab.created import CreatedThings, State
from lab.names import Places
from lab.processes import Process

READY_SECONDS = 60.0
POLL_SECONDS = 0.02
LOG_TAIL = 4000
ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
PLANE = (ETCD, API_SERVER, CONTROLLER_MANAGER)
"""Parts of an API server of the lab's own."""


class LabFailed(RingfenceError):
    """A part of the lab does not do what it should."""

    exit_code = 1


def start(ledger: CreatedThings, name: str, command: tuple[str, ...]) -> Process:
    """Start a process in our current network namespace, in the folder of the lab's user."""
    log, directory = ledger.places.log(name), Path(ledger.state.directory)
    return processes.start(name, command, log, ledger.set_process, directory)


def alive(ledger: CreatedThings, name: str) -> bool:
    """Whether the lab's process of that name runs."""
    process = ledger.state.process(name)
    return process is not None and process.alive


def stop(ledger: CreatedThings, name: str) -> None:
    """End one of the lab's processes."""
    process = ledger.state.process(name)
    if process is not None:
        processes.end([process])


def wait(places: Places, process: Process, ready: Callable[[], bool]) -> None:
    """Return when it is ready; LabFailed with its last words when it ends before, or is late."""
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if not process.alive or time.monotonic() > deadline:
            raise failure(places, process)
        time.sleep(POLL_SECONDS)


def away(ledger: CreatedThings, name: str) -> LabFailed:
    """The error for a process that should answer and does not, with the end of its log."""
    process = ledger.state.process(name)
    return LabFailed(f"there is no {name}") if process is None else failure(ledger.places, process)


def failure(places: Places, process: Process) -> LabFailed:
    """The last output of a process, as an error."""
    log = places.log(process.name)
    tail = log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip() if log.exists() else ""
    what = "does not answer" if process.alive else "ended"
    return LabFailed(f"the lab's {process.name} {what}; it said:\n{tail or '(nothing)'}")


def ringfence(*arguments: str) -> tuple[str, ...]:
    """The command line of a `ringfence` process of this very installation."""
    script = Path(sys.executable).with_name("ringfence")
    if script.exists():
        return (str(script), *arguments)
    return (sys.executable, "-c", "from generators.cli import main; main()", *arguments)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of one of the lab's own modules."""
    return (sys.executable, "-m", name, *arguments)


def as_given(state: State, config: str) -> str:
    """The tenant file relative to where its user was: messages are for that person."""
    path, directory = Path(config), Path(state.directory)
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else config


def agent_answers(run_dir: Path) -> bool:
    """Whether an agent answers on the control socket there."""
    try:
        control.ask(run_dir, {"command": "status"})
    except (OSError, RingfenceError):
        return False
    return True
