"""The table of docs/starting.md, played: one row after the other, each cell with real packets.

A cell is two datagrams, of IPv4 and of IPv6. Where ADD starts a pod, a CHECK follows at once. The
plugin's rows use interfaces that the watcher does not look at, the watcher's rows no plugin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path

import pytest

from enforcer.datapath import attach, loader
from enforcer.policy.modes import StartMode
from generators.labels import MODE_ANNOTATION
from lab import netns
from lab.names import Wire
from tests.cni.datagrams import Datagram, Listeners, listening
from tests.cni.node import Node, namespace, pod, started, tenants
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("plugin"), pytest.mark.timeout(180)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "starting.md"
HEAD = "| line | mode | pod | of | ADD |"
SPACES = {"strict tenant": "t1", "tenant": "t2", "nobody": "free", "unknown namespace": "later"}
PEERS = ("t1", "t2", "free")
OTHERS = {"t1": "t2", "t2": "t1", "free": "t1", "later": "t1"}
FAR = ("10.9.0.1", "fd09::1")
"""A pod of t1 on another node, which the forgeries claim to be."""
CELLS = ("out, own address", "out, forged", "in, from its own", "in, from others")
ODD_NAMES = ("[1]", "*", "é", ".1-a_b", "abcdefghijkl", "?", "#;$x", "%")
SECONDS = {"unknown": 1, "known": 20}
"""How long ADD may wait."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the page, for one mode and one kind of namespace."""

    line: str
    mode: str
    pod: str
    of: str
    add: str
    passes: tuple[bool, ...]

    def __str__(self) -> str:
        return f"{self.line}, {self.mode}, {self.pod}, {self.of}"


def rows() -> Iterator[Row]:
    lines = iter(PAGE.read_text().splitlines())
    for line in lines:
        if line.startswith(HEAD):
            assert tuple(cell.strip() for cell in line.split("|")[6:-1]) == CELLS
            next(lines)
            break
    for line in lines:
        if not line.startswith("|"):
            return
        of_line, modes, known, whose, add, *cells = (c.strip() for c in line.split("|")[1:-1])
        assert {*cells} <= {"passes", "dropped"}
        found = [*StartMode] if modes == "every" else [modes.strip("`")]
        kinds = [*SPACES] if whose == "anybody" else whose.split(" or ")
        for mode, kind in product(found, kinds):
            passes = tuple(cell == "passes" for cell in cells)
            yield Row(of_line, str(mode), known, kind, add, passes)


ROWS = list(rows())


@dataclass(frozen=True, slots=True)
class Stage:
    """A node in one start mode, with a pod of each namespace that hears everything."""

    node: Node
    peers: dict[str, Wire]
    ears: Listeners
    numbers: Iterator[int]

    def plugged(self, line: str) -> Wire:
        """A sandbox with its network, the programs on it where the watcher is the line."""
        wire = self.node.empty()
        if line == "watcher":
            name = ODD_NAMES[next(self.numbers) % len(ODD_NAMES)]
            wire = replace(wire, interface=f"odd{next(self.numbers)}{name}"[:15])
        self.node.plug(wire)
        if line == "watcher":
            eventually(lambda: self.has_programs(wire))
        return wire

    def has_programs(self, wire: Wire) -> bool:
        with netns.inside(self.node.name):
            pins = loader.find_loaded(self.node.pin_dir)
            return pins is not None and attach.attached(pins, wire.interface) is not None

    def tell(self, pods: Mapping[str, Wire]) -> None:
        """Have the agent know pods as an API server shows them once they have addresses."""
        self.node.write("told.json", *(pod(key, ips=wire.addresses) for key, wire in pods.items()))
        eventually(lambda: all(self.node.enforces(key) for key in pods))

    def cells(self, new: Wire, space: str) -> Iterator[tuple[str, Datagram]]:
        """What is sent for each cell: one datagram or two of each family."""
        target, near = self.peers["free"], self.peers["t1"]
        own, other = self.peers.get(space, target), self.peers[OTHERS[space]]
        for n, own_address in enumerate(new.addresses):
            shots = (
                (CELLS[0], new.netns, own_address, target.addresses[n]),
                (CELLS[1], new.netns, FAR[n], target.addresses[n]),
                (CELLS[1], new.netns, FAR[n], near.addresses[n]),
                (CELLS[2], own.netns, own.addresses[n], own_address),
                (CELLS[3], other.netns, other.addresses[n], own_address),
            )
            for cell, sender, source, destination in shots:
                yield cell, Datagram(f"{next(self.numbers)}", sender, source, destination)

    def outcomes(self, pods: Mapping[Row, Wire]) -> dict[str, tuple[str, ...]]:
        """By row: what became of each cell; `passes` and `dropped` are all of its datagrams."""
        sent = {row: list(self.cells(wire, SPACES[row.of])) for row, wire in pods.items()}
        shots = [datagram for shots in sent.values() for _, datagram in shots]
        expected = [
            datagram.name
            for row, shots in sent.items()
            for cell, datagram in shots
            if row.passes[CELLS.index(cell)]
        ]
        arrived = self.ears.arrived(shots, expected)
        return {str(row): tuple(_outcomes(shots, arrived)) for row, shots in sent.items()}


def _outcomes(shots: Sequence[tuple[str, Datagram]], arrived: Collection[str]) -> Iterator[str]:
    for cell in CELLS:
        came = {datagram.name in arrived for named, datagram in shots if named == cell}
        yield "both" if len(came) > 1 else {True: "passes", False: "dropped"}[came.pop()]


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, plugin: Path
) -> Iterator[Stage]:
    options = (f"--start-mode={request.param}", "--watch-interfaces=odd*")
    with started(tmp_path_factory.mktemp("table"), *options) as node, listening() as ears:
        annotations = {MODE_ANNOTATION: "audit"}
        metadata = {"name": "t2", "uid": "uid-t2", "annotations": annotations}
        audited = {**namespace("t2"), "metadata": metadata}
        spaces = [found for found in tenants() if found["kind"] != "Namespace"]
        node.write("base.json", *spaces, namespace("t1"), audited, namespace("free"))
        elsewhere = {"nodeName": "elsewhere", "containers": [{"name": "c"}]}
        far = {**pod("t1/far", ips=FAR), "spec": elsewhere}
        node.write("peers.json", far, *(pod(f"{space}/peer") for space in PEERS))
        eventually(lambda: "t2 open" in node.places.namespaces.read_text())
        peers = {space: node.sandbox() for space in PEERS}
        for space, wire in peers.items():
            assert node.add(f"{space}/peer", wire).code == 0, node.log
            ears.open(wire.netns, wire.addresses)
        yield Stage(node, peers, ears, count())


def test_the_table_has_a_row_for_every_case() -> None:
    lines, pods = ("plugin", "watcher"), ("unknown", "known")
    wanted = set(product(lines, map(str, StartMode), pods, SPACES))
    wanted -= {case for case in wanted if case[2:] == ("known", "unknown namespace")}
    found = [(row.line, row.mode, row.pod, row.of) for row in ROWS]
    assert (len(found), set(found)) == (len(wanted), wanted)


@pytest.mark.parametrize("stage", [str(StartMode.STRICT)], indirect=True)
def test_without_a_line_these_datagrams_leave_and_enter(stage: Stage) -> None:
    wire = stage.plugged("none")
    stage.ears.open(wire.netns, wire.addresses)
    everything = Row("none", "", "unknown", "nobody", "", (True,) * len(CELLS))
    assert stage.outcomes({everything: wire}) == {str(everything): ("passes",) * len(CELLS)}


@pytest.mark.parametrize("known", ["unknown", "known"])
@pytest.mark.parametrize("line", ["plugin", "watcher"])
@pytest.mark.parametrize("stage", [str(mode) for mode in StartMode], indirect=True)
def test_rows_are_what_packets_do(
    stage: Stage, line: str, known: str, request: pytest.FixtureRequest
) -> None:
    mode = request.node.callspec.params["stage"]
    chosen = [row for row in ROWS if (row.line, row.mode, row.pod) == (line, mode, known)]
    pods = {row: stage.plugged(line) for row in chosen}
    keys = {row: f"{SPACES[row.of]}/{line}-{known}" for row in chosen}
    if line == "plugin":
        if known == "known":
            stage.node.write("known.json", *(pod(key) for key in keys.values()))
        with ThreadPoolExecutor() as runtime:
            added = {
                row: runtime.submit(stage.node.add, keys[row], wire, seconds=SECONDS[known])
                for row, wire in pods.items()
            }
        found = {
            str(row): "fails" if a.result(patience(60)).code else "starts"
            for row, a in added.items()
        }
        assert found == {str(row): row.add for row in chosen}, stage.node.log
        assert all(stage.has_programs(wire) for wire in pods.values()), "before ADD answered"
        started = [row for row in chosen if found[str(row)] == "starts"]  # else CHECK waits as ADD
        checked = {str(row): stage.node.check(keys[row], pods[row]).code for row in started}
        assert not any(checked.values()), checked
    elif known == "known":
        stage.tell({keys[row]: wire for row, wire in pods.items()})
    for wire in pods.values():
        stage.ears.open(wire.netns, wire.addresses)
    wanted = {
        str(row): tuple("passes" if passes else "dropped" for passes in row.passes)
        for row in chosen
    }
    assert stage.outcomes(pods) == wanted
