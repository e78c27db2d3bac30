"""The lab's own processes (webhook, enforcer, responder): started so that none is ever lost, ended
by identity.

A pid alone proves nothing, pids are used again: with the boot and the start time it names one
process for ever. `start` forks a child that waits at a gate until the caller has written that
identity down; when the caller dies in between, the gate breaks and the child ends without having
done anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TERM_SECONDS = 5.0
KILL_SECONDS = 5.0
GATE_BROKEN = 111


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process of a lab. `started` is field 22 of /proc/PID/stat, in clock ticks since boot."""

    name: str
    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether exactly this process is running; a zombie is not."""
        stat = _stat(self.pid)
        return (
            stat.life is _Life.RUNNING and stat.started == self.started and self.boot == boot_id()
        )


def boot_id() -> str:
    """Which boot of the machine this is."""
    return BOOT_ID.read_text().strip()


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    remember: Callable[[Process], None],
    directory: Path = Path("/"),
) -> Process:
    """Start a process that outlives us, in our current network namespace, after `remember` has
    noted it.
    """
    gate_reads, gate_writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate_writes)
        _become(command, log, gate_reads, directory)
    os.close(gate_reads)
    try:
        process = Process(name, pid, _stat(pid).started, boot_id())
        remember(process)
        os.write(gate_writes, b"go")
    finally:
        os.close(gate_writes)
    return process


def end(processes: Sequence[Process], grace: float = TERM_SECONDS) -> None:
    """End these processes with all their children, and nothing else that may have got their pids
    since.
    """
    _signal(processes, signal.SIGTERM, grace)
    left = {process for process in processes if process.alive}
    for process in processes:
        left.update(_session(process))
    _signal(sorted(left), signal.SIGKILL, KILL_SECONDS)
    for process in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def inside_netns(paths: Iterable[Path]) -> tuple[Process, ...]:
    """All processes but ourselves that are in one of these network namespaces."""
    wanted = {_inode(path) for path in paths} - {None}
    found = []
    for pid in _pids():
        if pid != os.getpid() and _inode(Path(f"/proc/{pid}/ns/net")) in wanted:
            found.append(Process("", pid, _stat(pid).started, boot_id()))
    return tuple(found)


def _signal(processes: Sequence[Process], number: signal.Signals, seconds: float) -> None:
    """Send a signal to those that live and wait until they do not."""
    waiting = [process for process in processes if process.alive]
    for process in waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
    deadline = time.monotonic() + seconds
    while any(process.alive for process in waiting) and time.monotonic() < deadline:
        time.sleep(0.01)


def _session(leader: Process) -> Iterator[Process]:
    """What `leader` started and left behind. Its pid is not used again while its session has
    members.
    """
    if leader.boot != boot_id() or _stat(leader.pid).started not in (0, leader.started):
        return
    for pid in _pids():
        stat = _stat(pid)
        if stat.session == leader.pid and stat.life is _Life.RUNNING:
            yield Process(leader.name, pid, stat.started, leader.boot)


def _become(command: Sequence[str], log: Path, gate: int, directory: Path) -> None:
    """The child's side of `start`; never returns."""
    try:
        os.setsid()
        if os.read(gate, 2) != b"go":
            os._exit(GATE_BROKEN)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, number in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, number)
        os.chdir(directory)
        os.execv(command[0], list(command))  # noqa: S606  our own command, no shell
    finally:
        os._exit(GATE_BROKEN)


class _Life(Enum):
    RUNNING = "running"
    ZOMBIE = "zombie"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class _Stat:
    life: _Life = _Life.GONE
    started: int = 0
    session: int = 0


def _stat(pid: int) -> _Stat:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return _Stat()
    fields = text.rpartition(")")[2].split()
    life = _Life.ZOMBIE if fields[0] in "ZX" else _Life.RUNNING
    return _Stat(life, started=int(fields[19]), session=int(fields[3]))


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
