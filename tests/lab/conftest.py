"""Labs for tests: fresh names, and taken down whatever the test does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from subprocess import CompletedProcess
from typing import TypedDict

import pytest

from lab import netns
from lab.names import Places, places
from tests.conftest import Run
from tests.lab.builders import CLUSTER, TENANTS

SECONDS = 150.0
Done = CompletedProcess[str]


class Judged(TypedDict):
    """One direction of a cell."""

    verdict: str
    reason: str
    rule: str | None
    policies: list[str]


class Cell(TypedDict):
    """A cell of `matrix -o json` or `probe -o json`."""

    source: str
    destination: str
    protocol: str
    port: int
    family: str
    verdict: str
    egress: Judged | None
    ingress: Judged | None


class ProcessStatus(TypedDict):
    """A process in `status -o json`."""

    name: str
    pid: int


class PodStatus(TypedDict):
    """A pod in `status -o json`."""

    namespace: str
    name: str
    networkNamespace: str
    hostInterface: str | None
    addresses: list[str]
    enforced: bool
    reason: str


class Status(TypedDict):
    """`status -o json`, as far as tests look at it."""

    name: str
    network: str
    processes: list[ProcessStatus]
    pods: list[PodStatus]
    notEnforced: list[str]


Key = tuple[str, str, str, int, str]


def key_of(cell: Cell) -> Key:
    """What a cell is about."""
    return (cell["source"], cell["destination"], cell["protocol"], cell["port"], cell["family"])


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab, through the command as a user has it."""

    places: Places
    run: Run

    def __call__(self, command: str, *arguments: str | Path, stdin: str = "") -> Done:
        """`ringfence lab COMMAND ...` in this lab."""
        name = ("--name", self.places.name)
        return self.run("lab", command, *name, *arguments, stdin=stdin, timeout=SECONDS)

    def ok(self, command: str, *arguments: str | Path, stdin: str = "") -> str:
        """The same, and it has to succeed; what it printed."""
        done = self(command, *arguments, stdin=stdin)
        assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def apply(self, text: str, *arguments: str) -> Done:
        """Apply YAML from standard input."""
        return self("apply", *arguments, "-f", "-", stdin=text)

    def probe(self, *arguments: str) -> dict[Key, Cell]:
        """The cells of real connections."""
        document = json.loads(self.ok("probe", "-o", "json", *arguments))
        assert document["engine"] == "packets"
        return {key_of(cell): cell for cell in document["cells"]}

    def reaches(self, source: str, destination: str, port: str) -> set[str]:
        """Verdicts of all families, from real connections."""
        cells = self.probe("--from", source, "--to", destination, "--port", port)
        return {cell["verdict"] for cell in cells.values()}

    def status(self) -> Status:
        """`status -o json`."""
        found: Status = json.loads(self.ok("status", "-o", "json"))
        return found

    def traces(self) -> list[str]:
        """Everything on this machine that has the lab's name."""
        found = [name for name in netns.names() if self.places.owns_netns(name)]
        found += [str(p) for p in (self.places.pins, self.places.run) if p.exists()]
        found += [str(self.places.lock)] if self.places.lock.exists() else []
        marks = (str(self.places.run), str(self.places.pins))
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if any(mark in line for mark in marks):
                found.append(f"process {entry.name}: {line}")
        mounts = Path("/proc/self/mounts").read_text()
        found += [line for line in mounts.splitlines() if f"{self.places.node_netns}" in line]
        return found


@contextmanager
def fresh(run: Run) -> Iterator[Lab]:
    """A name for a lab, and its end."""
    lab = Lab(places(f"t-{token_hex(4)}"), run)
    try:
        yield lab
    finally:
        lab("down")


@pytest.fixture
def new_lab(ringfence: Run) -> Iterator[Callable[[], Lab]]:
    """Labs that are not up yet, as many as wanted."""
    labs: list[Lab] = []

    def make() -> Lab:
        labs.append(Lab(places(f"t-{token_hex(4)}"), ringfence))
        return labs[-1]

    yield make
    for lab in labs:
        lab("down")


@pytest.fixture(scope="module")
def two_clients(ringfence: Run) -> Iterator[Lab]:
    """The example, up, for tests that leave it as it was."""
    with fresh(ringfence) as lab:
        lab.ok("up", "-c", TENANTS, "-f", CLUSTER)
        yield lab
