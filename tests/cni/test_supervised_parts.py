"""No thread beside the agent's loop ends because something went wrong once."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.agent.state import Board, NodeState
from enforcer.agent.supervise import Supervised
from enforcer.agent.watcher import Watcher
from enforcer.cni import install, namespaces
from enforcer.cni.install import PluginPlaces
from enforcer.cni.namespaces import Strictness
from lab import netns
from tests.cni.node import CONFLIST
from tests.testbed.waiting import eventually


class Told:
    """What was reported, by part."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, part: str, failure: str) -> None:
        self.all.append((part, failure))

    @property
    def last(self) -> str:
        return self.all[-1][1] if self.all else ""


class Changing(Mapping[str, bool]):
    """Namespaces that another thread changes while they are looked through."""

    def __getitem__(self, name: str) -> bool:
        raise KeyError(name)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("dictionary changed size during iteration")


@contextmanager
def threaded(run: Callable[[threading.Event], None]) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(10)


def test_a_fault_is_told_once_and_again_when_it_is_over() -> None:
    told = Told()
    part = Supervised("x", "trouble", told)
    for number in (1, 1, 0, 0, 2):
        part.attempt(lambda divisor=number: 1 // (divisor - 1))  # type: ignore[misc]
    assert told.all == [
        ("x", "trouble: integer division or modulo by zero"),
        ("x", ""),
    ]
    assert not part.failed


def test_the_file_of_namespaces_is_kept_after_whatever_went_wrong(tmp_path: Path) -> None:
    told, board, path = Told(), Board(), tmp_path / "namespaces"
    keeper = namespaces.NamespaceKeeper(path, Strictness(board, configured=True), board, told)
    keeper.start()
    assert namespaces.parse(path.read_text())["*"] is namespaces.Start.STRICT
    with threaded(keeper.run):
        board.publish(NodeState(revision=1, walled=Changing()))
        eventually(lambda: "dictionary changed size" in told.last)
        board.publish(NodeState(revision=2, walled={"free": False}))
        eventually(lambda: "free" in namespaces.parse(path.read_text()))
        eventually(lambda: told.last == "")


def test_a_file_that_could_not_be_written_is_written_when_it_can(tmp_path: Path) -> None:
    told, board, path = Told(), Board(), tmp_path / "namespaces"
    blocked = path.with_name(f".{path.name}.new")
    blocked.mkdir()
    keeper = namespaces.NamespaceKeeper(path, Strictness(board, configured=True), board, told)
    keeper.start()
    assert "namespaces cannot be written" in told.last
    with threaded(keeper.run):
        blocked.rmdir()
        eventually(path.exists)
        eventually(lambda: told.last == "")


@pytest.mark.usefixtures("plugin")
def test_a_configuration_that_breaks_the_parser_does_not_end_the_keeper(tmp_path: Path) -> None:
    places = PluginPlaces(tmp_path / "net.d", tmp_path / "bin", tmp_path / "run")
    places.conf_dir.mkdir()
    file, told = places.conf_dir / "10-net.conflist", Told()
    file.write_text("[" * 200_000)
    keeper = install.PluginKeeper(places, told)
    keeper.start()
    assert told.last.startswith("new pods start without the CNI plugin: ")
    with threaded(keeper.run):
        file.write_text(CONFLIST)
        eventually(lambda: told.last == "")
        eventually(lambda: "ringfence" in file.read_text())
        keeper.wake()


@pytest.fixture
def node() -> Iterator[str]:
    name = f"rft-{token_hex(3)}"
    for each in (name, f"{name}-pod"):
        netns.create(each)
    try:
        with netns.inside(name):
            yield name
    finally:
        for each in (f"{name}-pod", name):
            netns.remove(each)


@pytest.mark.bpf
def test_the_watcher_hears_of_interfaces_after_whatever_went_wrong(
    node: str, tmp_path: Path
) -> None:
    told, heard = Told(), list[int]()

    def changed() -> None:
        heard.append(len(heard))
        if len(heard) == 1:
            raise RuntimeError("once")

    watcher = Watcher(tmp_path, ["veth*"], changed, told)
    with threaded(watcher.run):
        for number in (1, 2):
            words = f"link add veth{number} type veth peer name e{number} netns {node}-pod"
            subprocess.run(["ip", *words.split()], check=True)
            eventually(lambda wanted=number: len(heard) >= wanted)  # type: ignore[misc]
        eventually(lambda: told.last == "")
    assert told.all[0] == (
        "interfaces",
        "new interfaces are not closed until their pod is known: once",
    )
