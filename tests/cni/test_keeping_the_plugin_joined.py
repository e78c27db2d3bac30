"""The keeper on nodes whose configuration is missing, doubled, or fought over."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.cni import conflist, install
from enforcer.cni.install import FIGHT, PluginPlaces
from tests.cni.node import CONFLIST
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.usefixtures("plugin")

SINGLE = '{"cniVersion": "1.0.0", "name": "net", "type": "bridge"}\n'


class Told:
    """What the keeper has said last."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def __call__(self, part: str, failure: str) -> None:
        assert part == "cni"
        self.all.append(failure)

    @property
    def last(self) -> str:
        return self.all[-1] if self.all else ""


@pytest.fixture
def places(tmp_path: Path) -> PluginPlaces:
    found = PluginPlaces(tmp_path / "net.d", tmp_path / "bin", tmp_path / "run")
    found.conf_dir.mkdir()
    return found


@pytest.fixture
def told() -> Told:
    return Told()


Start = Callable[[], None]


@pytest.fixture
def start(places: PluginPlaces, told: Told) -> Iterator[Start]:
    """Begins to keep; ended with the test."""
    stop = threading.Event()
    keeper = install.PluginKeeper(places, told)
    thread = threading.Thread(target=keeper.run, args=(stop,), daemon=True)

    def begin() -> None:
        keeper.start()
        thread.start()

    yield begin
    stop.set()
    keeper.wake()
    if thread.ident is not None:
        thread.join(patience(10))
        assert not thread.is_alive()


def joined(path: Path) -> bool:
    return path.exists() and conflist.PLUGIN_TYPE in path.read_text()


def test_a_node_without_a_configuration_is_told_until_it_has_one(
    places: PluginPlaces, told: Told, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    assert f"no CNI configuration in {places.conf_dir}" in told.last
    assert "no start mode is in force" in told.last
    assert "--cni-conf-dir" in told.last
    assert [r.levelname for r in caplog.records if "part_failed" in r.getMessage()] == ["ERROR"]
    (places.conf_dir / "README").write_text("no configuration either\n")
    (places.conf_dir / "10-net.conflist").write_text(CONFLIST)
    eventually(lambda: told.last == "")
    assert joined(places.conf_dir / "10-net.conflist")
    (places.conf_dir / "10-net.conflist").unlink()
    eventually(lambda: "no CNI configuration" in told.last)


def test_of_two_configurations_the_one_that_runtimes_use_is_joined_and_both_are_left(
    places: PluginPlaces, told: Told, start: Start
) -> None:
    first, second = (places.conf_dir / f"{n}-net.conflist" for n in ("05", "10"))
    second.write_text(CONFLIST)
    start()
    assert joined(second)
    first.write_text(CONFLIST.replace('"net"', '"newer"'))
    before = first.read_bytes()
    eventually(lambda: joined(first))
    first.rename(first.with_suffix(".bak"))  # as a CNI does that wants to be the only one
    eventually(lambda: told.last == "")
    assert joined(second)
    first.with_suffix(".bak").rename(first)
    install.leave(places)
    assert (first.read_bytes(), second.read_text()) == (before, CONFLIST)


def test_a_node_that_has_only_a_single_configuration(
    places: PluginPlaces, told: Told, start: Start
) -> None:
    single = places.conf_dir / "10-net.conf"
    single.write_text(SINGLE)
    start()
    listed = single.with_suffix(".conflist")
    assert joined(listed)
    assert json.loads(listed.read_text())["plugins"][0] == json.loads(SINGLE)
    assert not single.exists()
    single.write_text(SINGLE)  # its owner is updated
    eventually(lambda: not single.exists())
    assert joined(listed)
    assert told.last == ""
    install.leave(places)
    assert [path.name for path in places.conf_dir.iterdir()] == [single.name]
    assert single.read_text() == SINGLE


def test_an_owner_that_writes_its_configuration_anew_each_time_is_told_with_what_to_set(
    places: PluginPlaces, told: Told, start: Start
) -> None:
    file = places.conf_dir / "05-cilium.conflist"
    file.write_text(CONFLIST)
    start()
    for _ in range(FIGHT - 2):
        file.write_text(CONFLIST)
        eventually(lambda: joined(file))
    assert told.last == "", "an update writes it more than once"
    file.write_text(CONFLIST)
    eventually(lambda: f"{file} was written without our entry {FIGHT} times" in told.last)
    assert "cni.exclusive=false" in told.last
    assert joined(file), "told, and kept all the same"


def test_a_fight_that_is_over_is_forgotten(
    places: PluginPlaces, told: Told, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "FIGHT_SECONDS", 1.0)
    monkeypatch.setattr(install, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(install, "FIGHT", 1)
    file = places.conf_dir / "10-net.conflist"
    file.write_text(CONFLIST)
    keeper = install.PluginKeeper(places, told)
    keeper.start()
    assert "written without our entry" in told.last

    def forgotten() -> bool:
        keeper.keep()
        return told.last == ""

    eventually(forgotten)
