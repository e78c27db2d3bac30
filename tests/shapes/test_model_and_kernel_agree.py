"""The kernel and a parser in Python read the same in any bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from enforcer.policy.tables import Dir
from tests.bpf.veth import ISOLATED_BOTH, LOOPBACK, MAC, OTHER, OTHER_MAC, PEER, POD, Veth, opened
from tests.shapes.families import Scene, Shape, strangers
from tests.shapes.frames import End
from tests.shapes.model import Fields, Model

pytestmark = pytest.mark.bpf

SEED = 20261130
ROUND, ROUNDS = 4_000, 25
"""A first fragment is remembered for 30 s: no round takes so long."""
OWN = End(MAC, POD[4], POD[6])
NEIGHBOUR = End(OTHER_MAC, PEER[4], PEER[6])
FRIEND = End("02:00:00:00:00:03", OTHER[4], OTHER[6])
SHORTEST = 54
"""Test runs refuse frames without room for the header that their EtherType promises."""


def shapes() -> dict[Dir, list[Shape]]:
    """Frames of the pod, and frames to it."""
    out = Scene(OWN, OTHER_MAC, NEIGHBOUR, FRIEND, FRIEND)
    into = Scene(NEIGHBOUR, MAC, OWN, FRIEND, FRIEND, direct=True)
    return {Dir.EGRESS: strangers(out), Dir.INGRESS: strangers(into)}


def damaged(lot: random.Random, frame: bytes) -> bytes:
    """The frame with some bytes changed, some missing or some more."""
    data = bytearray(frame)
    for _ in range(lot.choice((0, 1, 1, 2, 5))):
        place = lot.randrange(6, min(len(data), 120))
        data[place] = lot.choice((0, 1, 6, 17, 44, 58, 60, 255, lot.randrange(256)))
    if lot.randrange(4) == 0:
        del data[lot.randrange(min(SHORTEST, len(data)), len(data) + 1) :]
    if lot.randrange(8) == 0:
        data += lot.randbytes(lot.randrange(1, 40))
    return bytes(data.ljust(SHORTEST, b"\0"))


def differences(pins: Path, seed: int) -> list[str]:
    """Where kernel and model answer differently to one of `ROUND` frames at a new pod.

    It is one that nothing may enter or leave, and that knows nobody.
    """
    with opened(pins) as veth:
        veth.configure(ISOLATED_BOTH, addresses={})
        return list(_differences(veth, random.Random(seed)))  # noqa: S311 - chosen by lot


def _differences(veth: Veth, lot: random.Random) -> Iterator[str]:
    known, model = shapes(), Model(OWN)
    for _ in range(ROUND):
        direction = lot.choice(list(Dir))
        frame = damaged(lot, lot.choice(known[direction]).frame)
        if lot.randrange(50) == 0:
            frame = frame[:12] + lot.randbytes(60)
        wanted, said = model.outcome(direction, frame)
        event = veth.event(direction, frame, came_by=LOOPBACK)
        if event is None:
            agree = wanted.value < 130
        else:
            read = Fields(
                event.family,
                ip_address(event.source) if event.source else None,
                ip_address(event.destination) if event.destination else None,
                event.protocol,
                (event.source_port, event.destination_port),
                event.tcp_flags,
                (event.icmp_type, event.icmp_code),
            )
            agree = event.reason is wanted and (not said.family or read == said)
        if not agree:
            told = "passed" if event is None else event.reason.name
            yield f"{direction.name} {frame.hex()}: kernel {told}, model {wanted.name} {said}"


def test_they_agree_on_some_thousand_damaged_shapes(pins: Path) -> None:
    assert differences(pins, SEED) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_they_agree_on_a_hundred_thousand_damaged_shapes(pins: Path) -> None:
    for seed in range(ROUNDS):
        assert differences(pins, seed) == [], f"seed {seed}"
