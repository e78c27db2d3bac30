"""Frames that nobody would send: never a way in, and what is judged is what the frame says.

`make fuzz` runs this, with all other property tests, for as long as one likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from enforcer.datapath.flows import DropReason, FlowRecord, ForwardReason
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import CidrEntry, Dir, EndpointFlag, PolicyKey, RangeKey, Tables
from generators.reachability.protocols import PORT_PROTOCOLS
from generators.reachability.services import Backend, ServiceKey
from generators.reachability.verdicts import Verdict
from tests.bpf.veth import (
    GROUP,
    ISOLATED_BOTH,
    LOOPBACK,
    NODE,
    OTHER,
    PEER,
    PEER_IDENTITY,
    POD,
    RULE,
    WORLD,
    Veth,
    echo,
    inward,
    ip,
    opened,
    outward,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf

CLUSTER_IP = {4: "10.96.0.7", 6: "fd96::7"}
PORTS = (22, 53, 80, 443, 1024, 8080, 40000)
JUDGED = (
    ForwardReason.POLICY_ALLOWED,
    DropReason.POLICY_DENIED,
    DropReason.UNKNOWN_L4_PROTOCOL,
)
LINK = (0x0806, 0x86DD)
IPV4 = b"\x08\x00"
SHORTEST_IPV4, SHORTEST = 34, 54
"""Test runs refuse frames without room for the header that their EtherType promises."""
FRAGMENT_BITS = 0x3FFF
bounded = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
directions = st.sampled_from(Dir)
ports = st.sampled_from(PORTS)


@st.composite
def packets(draw: st.DrawFn, direction: Dir) -> Layers:
    """Something a pod or its peer might send, with options and extension headers here and there."""
    family = draw(st.sampled_from((4, 6)))
    peer = draw(st.sampled_from((PEER, OTHER, WORLD, CLUSTER_IP)))
    header = ip(family, POD, peer) if direction is Dir.EGRESS else ip(family, peer, POD)
    if family == 4:
        header.options = draw(st.sampled_from(([], [IPOption_NOP()], [IPOption_NOP()] * 40)))
        header.flags = draw(st.sampled_from((0, "DF", "MF")))
    else:
        extensions = (None, IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1))
        extension = draw(st.sampled_from(extensions))
        header = header if extension is None else header / extension
    source, destination = draw(ports), draw(ports)
    return header / draw(
        st.sampled_from(
            (
                TCP(
                    sport=source,
                    dport=destination,
                    flags=draw(st.sampled_from(("S", "A", "PA", "SA", "F", "R", ""))),
                ),
                UDP(sport=source, dport=destination),
                SCTP(sport=source, dport=destination),
                echo(family),
                Raw(bytes(40)),
            )
        )
    )


@st.composite
def frames(draw: st.DrawFn, direction: Dir) -> bytes:
    """A packet as a frame, with some of its bytes changed, a tag before it or its end missing."""
    ethernet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if draw(st.integers(0, 9)) == 0:
        ethernet /= Dot1Q(vlan=5)
    frame = bytearray(bytes(ethernet / draw(packets(direction))))
    for _ in range(draw(st.integers(0, 3))):
        frame[draw(st.integers(12, len(frame) - 1))] = draw(st.integers(0, 255))
    shortest = SHORTEST_IPV4 if frame[12:14] == IPV4 else SHORTEST
    frame += bytes(max(0, shortest - len(frame)))
    length = len(frame) if draw(st.integers(0, 3)) else draw(st.integers(shortest, len(frame)))
    return bytes(frame[:length])


garbage = st.binary(min_size=SHORTEST, max_size=200)


@pytest.fixture(scope="module")
def open_veth(pins: Path) -> Iterator[Veth]:
    """One pod for all examples of this file."""
    with opened(pins) as veth:
        yield veth


def closed(veth: Veth) -> None:
    veth.configure(ISOLATED_BOTH, addresses={})


def link_control(frame: bytes) -> bool:
    return int.from_bytes(frame[12:14]) in LINK


@pytest.mark.timeout(300)
@bounded
@given(direction=directions, frame=garbage)
@example(direction=Dir.INGRESS, frame=bytes(Ether(dst="02:00:00:00:00:02") / ARP(pdst=POD[4])))
def test_garbage_never_enters_or_leaves_an_isolated_pod(
    open_veth: Veth, direction: Dir, frame: bytes
) -> None:
    closed(open_veth)
    answer = open_veth.send(direction, frame)
    if answer.passed:  # neighbours find each other, and nothing else
        assert answer.reason is ForwardReason.LINK
        assert link_control(frame)


@pytest.mark.timeout(300)
@bounded
@given(data=st.data(), direction=directions)
def test_damaged_frames_never_enter_or_leave_an_isolated_pod(
    open_veth: Veth, data: st.DataObject, direction: Dir
) -> None:
    closed(open_veth)
    frame = data.draw(frames(direction))
    answer = open_veth.send(direction, frame)
    if answer.passed:
        assert answer.reason in (ForwardReason.LINK, ForwardReason.SELF)
        assert answer.reason is ForwardReason.SELF or link_control(frame)


BLOCKS = {"192.0.2.0/24": CidrEntry(5), "2001:db8::/32": CidrEntry(5)}
entries = st.dictionaries(
    st.builds(
        PolicyKey,
        group=st.just(GROUP),
        peer=st.sampled_from((0, PEER_IDENTITY, PEER_IDENTITY + 1, (2 << 30) | 5)),
        port=st.sampled_from((0, *PORTS)),
        protocol=st.sampled_from((6, 17, 132, 1, 58, 47)),
        direction=directions,
    ),
    st.integers(RULE, RULE + 99),
    max_size=8,
)
ranges = st.dictionaries(
    st.builds(
        RangeKey,
        group=st.just(GROUP),
        peer=st.sampled_from((0, PEER_IDENTITY)),
        protocol=st.sampled_from((6, 17, 132)),
        direction=directions,
        port=st.just(1024),
        length=st.just(6),
    ),
    st.integers(RULE, RULE + 99),
    max_size=2,
)
backends = st.lists(
    st.builds(Backend, st.sampled_from((PEER[4], OTHER[4], WORLD[4], NODE[4])), ports), max_size=3
).map(tuple)


@dataclass(frozen=True, slots=True)
class Fields:
    """What a frame without extension headers says of itself."""

    source: str
    destination: str
    protocol: int
    ports: tuple[int, int] | None


def read(frame: bytes) -> Fields | None:
    """A second parser, for plain packets only."""
    version = frame[14] >> 4
    if version == 6:
        source, destination = frame[22:38], frame[38:54]
        protocol, start, whole = frame[20], 54, True
    else:
        source, destination = frame[26:30], frame[30:34]
        protocol, start = frame[23], 14 + 4 * (frame[14] & 15)
        whole = not int.from_bytes(frame[20:22]) & FRAGMENT_BITS
    if version == 6 and protocol not in (6, 17, 132, 58):
        return None
    found = None
    if protocol in PORT_PROTOCOLS and whole:
        found = int.from_bytes(frame[start : start + 2]), int.from_bytes(frame[start + 2 :][:2])
    return Fields(str(ip_address(source)), str(ip_address(destination)), protocol, found)


def expected(tables: Tables, record: FlowRecord) -> Verdict:
    """The interpreter's verdict on the fields of an event."""
    ends = (record.destination, record.source)
    own, peer = ends if record.direction is Dir.INGRESS else ends[::-1]
    with_ports = record.protocol in PORT_PROTOCOLS
    called = record.destination_port if with_ports else 0
    asked = EndpointPacket(record.direction, own, peer, record.protocol, called, from_socket=True)
    return judge(tables, LOOPBACK, asked).verdict


@pytest.mark.timeout(300)
@bounded
@given(data=st.data(), direction=directions, policy=entries, spans=ranges, behind=backends)
def test_what_is_judged_is_what_the_frame_says_and_the_interpreter_agrees(
    open_veth: Veth,
    data: st.DataObject,
    direction: Dir,
    policy: dict[PolicyKey, int],
    spans: dict[RangeKey, int],
    behind: tuple[Backend, ...],
) -> None:
    flags = ISOLATED_BOTH | EndpointFlag.USES_CIDR | EndpointFlag.USES_RANGE
    services = {ServiceKey(CLUSTER_IP[4], port, "TCP"): behind for port in PORTS[:4]}
    open_veth.maps.forget([open_veth.endpoint])
    open_veth.configure(flags, policy, ranges=spans, cidrs=BLOCKS, services=services)
    frame = data.draw(frames(direction))
    answer = open_veth.send(direction, frame)
    for record in answer.events:
        if record.reason not in JUDGED:
            continue
        fields = read(frame)
        if fields is not None:
            said = record.source, record.destination, record.protocol
            assert said == (fields.source, fields.destination, fields.protocol)
            if fields.ports is not None:
                assert (record.source_port, record.destination_port) == fields.ports
        assert record.verdict is expected(open_veth.tables(), record), record


def test_the_same_pod_is_open_to_whole_packets(open_veth: Veth, family: int) -> None:
    """Positive control: what lets no damage in lets in what it should."""
    open_veth.configure(ISOLATED_BOTH, {**inward((80, 6)), **outward((53, 17))})
    assert open_veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    assert open_veth.from_pod(ip(family, POD, PEER) / udp()).passed
