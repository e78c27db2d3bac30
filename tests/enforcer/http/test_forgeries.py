"""Pods that pretend to be the proxy: its connections, its marks, its frames. All of it is dropped,
and what they pretend about goes on.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from enforcer.datapath.flows import DropReason
from enforcer.datapath.maps import Maps
from enforcer.http.proxy import DIRECTORY
from lab import netns
from lab.names import mac
from tests.enforcer.http.proxied import (
    DEATHSTAR,
    HTTP,
    TIE,
    XWING,
    Proxied,
    ingress,
    needs_envoy,
    rules,
    said,
    started,
)
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120), needs_envoy]

LANDING = "POST /v1/request-landing"
SO_MARK = 36
LEG_DOWN, LEG_UP = 1, 2
FLAGS = pytest.mark.parametrize("flags", ["A", "PA", "R", "FA", "S", "SA"])
MARKED = pytest.mark.parametrize("marked", [False, True], ids=["plain", "marked"])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """The empire may ask for a landing."""
    with started(tmp_path_factory.mktemp("node")) as made:
        made.enforce(made.start(), ingress("landing", *rules(LANDING)))
        yield made


def secret(node: Proxied) -> int:
    """The mark by which the programs know the proxy; no pod can know it."""
    return int.from_bytes((node.run_dir / DIRECTORY / "secret").read_bytes(), "little")


def send(node: Proxied, pod: str, packet: Packet, mark: int = 0, source: str = "") -> None:
    """A frame of a pod's own making, by a socket with a mark."""
    interface = node.wires[pod].interface
    frame = Ether(src=source or mac(f"pod {interface}"), dst=mac(f"host {interface}")) / packet
    with netns.inside(node.wires[pod].netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        raw.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark))
        raw.send(bytes(frame))


def segment(
    node: Proxied, ends: tuple[str, str], family: int, ports: tuple[int, int], flags: str
) -> Packet:
    addresses = [node.address(pod, family) for pod in ends]
    header = (IP if family == 4 else IPv6)(src=addresses[0], dst=addresses[1])
    return header / TCP(sport=ports[0], dport=ports[1], seq=1, ack=1, flags=flags) / b"GET / HTTP"


def dropped(node: Proxied, reason: DropReason) -> int:
    """Packets that were dropped for it so far."""
    (pins,) = node.pin_dir.glob("v*")
    with Maps.open(pins) as maps:
        return sum(s.packets for s in maps.statistics() if s.reason == reason)


def is_dropped(node: Proxied, reason: DropReason, before: int) -> None:
    eventually(lambda: dropped(node, reason) > before, f"one more is dropped: {reason.name}")


def callers_port(kept: HTTPConnection) -> int:
    return int(kept.sock.getsockname()[1])


def envoys_port(kept: HTTPConnection) -> int:
    """As the server sees it."""
    status, body = said(kept, LANDING)
    assert status == 200
    return int(json.loads(body)["port"])


@MARKED
@FLAGS
def test_the_called_pod_cannot_answer_in_the_proxys_place(
    node: Proxied, family: int, flags: str, marked: bool
) -> None:
    mark = secret(node) | LEG_DOWN if marked else 0
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, LANDING)[0] == 200
        reason = DropReason.POLICY_DENIED if flags == "S" else DropReason.FORGED
        before = dropped(node, reason)
        ports = (HTTP, callers_port(kept))
        send(node, DEATHSTAR, segment(node, (DEATHSTAR, TIE), family, ports, flags), mark)
        if flags != "S":  # begins a connection of its own, which nothing forbids
            is_dropped(node, reason, before)
            assert said(kept, LANDING)[0] == 200


@MARKED
@FLAGS
def test_the_caller_cannot_speak_in_the_proxys_place(
    node: Proxied, family: int, flags: str, marked: bool
) -> None:
    mark = secret(node) | LEG_UP if marked else 0
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        ports = (envoys_port(kept), HTTP)
        before = dropped(node, DropReason.FORGED)
        send(node, TIE, segment(node, (TIE, DEATHSTAR), family, ports, flags), mark)
        is_dropped(node, DropReason.FORGED, before)
        assert said(kept, LANDING)[0] == 200


def test_a_mark_lets_nobody_in(node: Proxied, family: int) -> None:
    before = dropped(node, DropReason.POLICY_DENIED)
    packet = segment(node, (XWING, DEATHSTAR), family, (40_000, HTTP), "S")
    send(node, XWING, packet, secret(node) | LEG_UP)
    is_dropped(node, DropReason.POLICY_DENIED, before)


def test_a_frame_with_the_proxys_tag_does_not_leave(node: Proxied, family: int) -> None:
    for tag in ("02:01:00:00:04:00", "02:02:00:00:00:00", "02:11:00:00:04:00"):
        before = dropped(node, DropReason.INVALID_SOURCE_MAC)
        packet = segment(node, (XWING, DEATHSTAR), family, (40_001, HTTP), "S")
        send(node, XWING, packet, source=tag)
        is_dropped(node, DropReason.INVALID_SOURCE_MAC, before)
