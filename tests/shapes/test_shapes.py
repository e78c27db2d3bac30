"""No packet crosses the wall because of its shape: frames of every family, by root in a pod."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.netns import inside
from tests.shapes.families import Shape, friends, pending_checksums, services, some, strangers
from tests.shapes.ground import FRIEND, STRANGER, VICTIM, Ground, Wiring, ground, serve
from tests.testbed.waiting import patience

pytestmark = pytest.mark.bpf

SEED = 20261130
LARGE = bytes(range(256)) * 8192
FEW = 8
"""One of so many shapes is sent where there is little time."""


def wrong(on: Ground, sender: int, shapes: list[Shape]) -> tuple[list[str], list[str]]:
    """What arrived and should not, and the other way round."""
    arrived = set(on.arrived(sender, shapes))
    told = {shape.name: shape.arrives for shape in shapes}
    came = sorted(name for name in arrived if not told[name])
    return came, sorted(name for name, arrives in told.items() if arrives and name not in arrived)


def let_loose(pins: Path, wiring: Wiring, share: int) -> int:
    """Every shape of a stranger and of a friend; how many there were."""
    with ground(pins, wiring) as on:
        attempts = {
            STRANGER: some(strangers(on.scene(STRANGER)), SEED, share),
            FRIEND: some(friends(on.scene(FRIEND)), SEED, share),
        }
        found = {sender: wrong(on, sender, shapes) for sender, shapes in attempts.items()}
    assert found == dict.fromkeys(attempts, ([], [])), f"seed {SEED}, {wiring}"
    return sum(map(len, attempts.values()))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("wiring", Wiring)
def test_some_shapes_of_every_family_stay_where_they_belong(pins: Path, wiring: Wiring) -> None:
    assert let_loose(pins, wiring, FEW) > 500


@pytest.mark.timeout(120)
def test_shapes_arrive_where_nothing_is_enforced(pins: Path) -> None:
    """Otherwise it would say nothing that they stay away."""
    with ground(pins, Wiring.BRIDGE, enforced=False) as on:
        shapes = some(strangers(on.scene(STRANGER)), SEED, FEW)
        assert len(on.arrived(STRANGER, shapes)) > len(shapes) // 2


@pytest.mark.timeout(120)
def test_pending_checksum_is_where_the_transport_has_it(pins: Path) -> None:
    """What is written after the verdict is behind all that was judged."""
    with ground(pins, Wiring.NODES) as on:
        pending = pending_checksums(on.scene(FRIEND))
        assert wrong(on, FRIEND, pending) == ([], [])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("wiring", [Wiring.NODE, Wiring.NODES])
def test_a_virtual_address_leads_nobody_past_the_wall(pins: Path, wiring: Wiring) -> None:
    with ground(pins, wiring) as on:
        serve(on)
        for sender in (FRIEND, STRANGER):
            shapes = services(on.scene(sender), arrives=sender == FRIEND)
            assert wrong(on, sender, shapes) == ([], []), f"of {sender}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("wiring", [Wiring.NODE, Wiring.NODES])
def test_a_large_transfer_arrives_whole(pins: Path, wiring: Wiring, family: int) -> None:
    """In super-packets with pending checksums; between nodes a wire without offloads."""
    with ground(pins, wiring) as on:
        assert carried(on, FRIEND, family) == LARGE
        assert carried(on, STRANGER, family) == b""


def carried(on: Ground, sender: int, family: int) -> bytes:
    """What the victim gets when a pod sends `LARGE` to it; nothing where they cannot connect."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    address = (on.pods[VICTIM].address[family], 4000 + sender)
    with inside(on.pods[VICTIM].namespace):
        server = socket.create_server(address, family=kind)
    with inside(on.pods[sender].namespace):
        client = socket.socket(kind, socket.SOCK_STREAM)
    with server, client, ThreadPoolExecutor(1) as reader:
        client.settimeout(patience(2))
        try:
            client.connect(address)
        except TimeoutError:
            return b""
        accepted, _ = server.accept()
        accepted.settimeout(patience(20))
        client.settimeout(patience(20))
        with accepted, accepted.makefile("rb") as stream:
            got = reader.submit(stream.read)
            client.sendall(LARGE)
            client.shutdown(socket.SHUT_WR)
            return got.result(patience(60))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("wiring", Wiring)
def test_every_shape_stays_where_it_belongs(pins: Path, wiring: Wiring) -> None:
    assert let_loose(pins, wiring, 1) > 5000
