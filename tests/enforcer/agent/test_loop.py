"""The agent's loop on real maps, its API server a replayed watch: writes, audits, restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from bench.parts import node_process
from bench.parts.node_process import (
    Running,
    events,
    first_state,
    namespace,
    namespace_of,
    pod,
    policy,
    running,
)
from bench.parts.replay import Replayed
from enforcer.datapath import attach
from enforcer.policy.tables import AddressEntry, MapWrite, Table
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, PODS
from lab import netns
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]

ALL, LOCAL = 60, 3


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """The pins' folder of a node with interfaces for the local pods; we are inside.

    The tests share it: each begins with an agent that finds the maps of the one before.
    """
    name = f"rft-{token_hex(3)}"
    pin_dir = Path("/sys/fs/bpf") / name
    netns.create(name)
    try:
        with netns.inside(name):
            node_process.interfaces(ALL, LOCAL)
            yield pin_dir
            if pin_dir.exists():
                attach.uninstall(pin_dir)
    finally:
        netns.remove(name)


def ready(agent: Running) -> None:
    found = agent.board.wait(lambda state: state.ready and not state.unenforced, 30)
    assert found is not None, agent.board.state
    assert len(found.in_force) == LOCAL


def test_each_event_costs_the_writes_that_it_must(place: Path, tmp_path: Path) -> None:
    with running(Replayed(first_state(ALL, LOCAL)), tmp_path, place) as agent:
        ready(agent)
        writes = {
            name: set(agent.watched.time(resource, documents)[1])
            for name, (resource, documents) in events(ALL, 5).items()
        }
        assert writes["pod added"] == {1}
        assert writes["pod relabelled"] == {0}  # as far as policies of this node can tell
        # Connections of whoever it was let in by are judged again: its whole namespace is here.
        assert writes["pod removed"] == {1 + LOCAL}
        assert max(writes["policy changed"]) <= 16
        state = agent.board.state
        assert state.delays.read()["k8s"].count >= 25
        assert set(agent.maps.read().addresses) == set(state.tables.addresses)


def test_what_somebody_else_wrote_into_the_maps_is_set_right_and_counted(
    place: Path, tmp_path: Path
) -> None:
    with running(Replayed(first_state(ALL, LOCAL)), tmp_path, place, audit_seconds=1) as agent:
        ready(agent)
        wanted = agent.maps.read()
        first, second, *_ = wanted.addresses
        entry = next(iter(wanted.policy))
        agent.maps.apply(
            [
                MapWrite(Table.ADDRESSES, first, None),
                MapWrite(Table.ADDRESSES, second, AddressEntry(4242)),
                MapWrite(Table.ADDRESSES, "192.0.2.1", AddressEntry(4243)),
                MapWrite(Table.POLICY, entry, None),
            ]
        )
        found = agent.board.wait(lambda state: state.audit.corrections >= 4, 20)
        assert found is not None
        assert agent.maps.read() == wanted
        clean = agent.board.wait(lambda state: state.audit.runs > found.audit.runs, 20)
        assert clean is not None
        assert (clean.audit.corrections, clean.audit.drift) == (4, {})


def test_a_restart_without_changes_writes_nothing(place: Path, tmp_path: Path) -> None:
    with running(Replayed(first_state(ALL, LOCAL)), tmp_path, place) as agent:
        ready(agent)
        before = agent.maps.read()
    with running(Replayed(first_state(ALL, LOCAL)), tmp_path, place) as agent:
        ready(agent)
        assert agent.watched.writes() == 0
        assert agent.maps.read() == before


def test_policies_around_local_pods_are_written_down(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "policies.json"
    with running(Replayed(first_state(ALL, LOCAL)), tmp_path, place) as agent:
        ready(agent)
        agent.replay.send(NETWORK_POLICIES, "MODIFIED", policy(namespace_of(0), 4711))
        held = agent.board.wait(lambda _: file.exists() and "4711" in file.read_text(), 5)
        agent.replay.send(PODS, "ADDED", pod(ALL + 1))
        held = held or agent.board.wait(lambda _: "4711" in file.read_text(), 60)
        assert held is not None
        [entry] = json.loads(file.read_text())
        assert entry["uid"] == f"uid-{namespace_of(0)}"
        step = ALL // LOCAL
        for number in range(0, step * LOCAL, step):
            agent.replay.send(PODS, "DELETED", pod(number, local=True))
        agent.replay.send(NAMESPACES, "DELETED", namespace(namespace_of(0)))
        eventually(lambda: json.loads(file.read_text()) == [], "nothing of it is left")
