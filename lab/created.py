"""The ledger of one lab: what it has on this machine, written down before it is made.

Every command of a lab holds its lock while it changes something. A command that gets the lock and
finds a ledger whose phase is not UP sees the remains of a killed command and cleans them up first.
Things that no ledger names are not ours and are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

from generators.errors import RingfenceError
from generators.process.files import write_atomically
from lab.names import Places, Shape, Wire
from lab.processes import Process, boot_id

STATE_FILE = "state.json"
VERSION = 1


class BrokenLedger(RingfenceError):
    """A ledger that this version did not write."""

    exit_code = 1


class Phase(StrEnum):
    """How far the lab is; anything but UP with a free lock means that a command was killed."""

    STARTING = "starting"
    UP = "up"
    REMOVING = "removing"


class BackingKind(StrEnum):
    """Where a lab's objects are: in a file of its own, on its own API server, on another's."""

    FILES = "files"
    OWN_API = "own API server"
    JOINED_API = "joined API server"


class Pods(StrEnum):
    """What a lab's pods are."""

    NETWORKS = "networks"
    """Network namespaces, and nothing in them."""
    CONTAINERS = "containers"
    """Run by a kubelet and a container runtime."""


class Lock(StrEnum):
    """SHARED for commands that only look, EXCLUSIVE for those that change the lab."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class State:
    """What exists, or is about to.

    `boot`: which boot of the machine it is from; `netns`: names below /run/netns; `wires`: pods
    whose network namespace is complete; `pins`: the directory of pinned programs; `config`: the
    tenant file, absolute; `directory`: where its user was, so that messages name the file as the
    user did; `webhook`: its address, while there is one; `nodes`: how many hollow nodes it has;
    `shape`: of its pods' network; `pods`: what they are; `agents`: whether the lab enforces, or
    leaves that to its user.
    """

    name: str
    phase: Phase
    boot: str
    netns: tuple[str, ...] = ()
    wires: tuple[Wire, ...] = ()
    processes: tuple[Process, ...] = ()
    pins: str = ""
    config: str | None = None
    directory: str = "/"
    webhook: str | None = None
    backing: BackingKind = BackingKind.FILES
    nodes: int = 0
    shape: Shape = Shape.GATEWAY
    pods: Pods = Pods.NETWORKS
    agents: bool = True

    def process(self, name: str) -> Process | None:
        """The lab's process of that name."""
        return next((process for process in self.processes if process.name == name), None)


class _Wire(TypedDict):
    netns: str
    interface: str
    addresses: list[str]


class _Process(TypedDict):
    name: str
    pid: int
    started: int
    boot: str


class _Document(TypedDict):
    """A state in its file."""

    name: str
    phase: str
    boot: str
    netns: list[str]
    wires: list[_Wire]
    processes: list[_Process]
    pins: str
    config: str | None
    directory: str
    webhook: str | None
    backing: str
    nodes: int
    shape: str
    pods: str
    agents: bool


@dataclass(slots=True)
class CreatedThings:
    """The state and its file; `update` writes first and changes the value after."""

    places: Places
    state: State

    def update(self, state: State) -> None:
        """Put a new state on disk, whole or not at all."""
        self.places.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {"version": VERSION, **asdict(state)}
        write_atomically(self.places.run / STATE_FILE, json.dumps(document, indent=1).encode())
        self.state = state

    def set_process(self, process: Process) -> None:
        """Note a process; one of the same name is replaced."""
        others = tuple(p for p in self.state.processes if p.name != process.name)
        self.update(replace(self.state, processes=tuple(sorted((*others, process)))))


def load(places: Places) -> CreatedThings | None:
    """The lab's ledger, or None when there is no such lab.

    A lab from before the last boot is gone: only its names may be left.
    """
    path = places.run / STATE_FILE
    try:
        state = _state(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenLedger(
            f"{path} was not written by this version of Ringfence ({error!r}); "
            f"end the lab with the version that made it, or remove by hand what it names"
        ) from error
    if state.boot != boot_id():
        state = replace(state, phase=Phase.REMOVING)
    return CreatedThings(places, state)


def _state(document: _Document) -> State:
    return State(
        name=document["name"],
        phase=Phase(document["phase"]),
        boot=document["boot"],
        netns=tuple(document["netns"]),
        wires=tuple(
            Wire(wire["netns"], wire["interface"], tuple(wire["addresses"]))
            for wire in document["wires"]
        ),
        processes=tuple(Process(**process) for process in document["processes"]),
        pins=document["pins"],
        config=document["config"],
        directory=document["directory"],
        webhook=document["webhook"],
        backing=BackingKind(document["backing"]),
        nodes=document["nodes"],
        shape=Shape(document["shape"]),
        pods=Pods(document["pods"]),
        agents=document["agents"],
    )


@contextlib.contextmanager
def locked(places: Places, lock: Lock) -> Iterator[None]:
    """Hold the lab's lock. Its file goes with the lab, so it may have been replaced while we
    waited.
    """
    flag = fcntl.LOCK_EX if lock is Lock.EXCLUSIVE else fcntl.LOCK_SH
    while True:
        places.lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, flag)
            if not _is_current(descriptor, places.lock):
                continue
            yield
            return
        finally:
            os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    mine = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
