"""ICMP: errors pass when they are about a living connection, discovery stays on the link."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import CidrEntry, CidrFlag
from tests.bpf.veth import (
    ISOLATED,
    ISOLATED_BOTH,
    LOOPBACK,
    NODE,
    OTHER,
    PEER,
    POD,
    WORLD,
    Veth,
    echo,
    inward,
    ip,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf

ROUTER = WORLD
GATEWAY = "fe80::1"
NOBODY = {4: "10.9.0.99", 6: "fd09::99"}
POD_RANGES = {4: "10.9.0.0/16", 6: "fd09::/64"}


def quoting(family: int, error: Packet, quoted: Packet) -> Packet:
    """An ICMP error of a router on the way, with the first bytes of the packet it is about."""
    return ip(family, ROUTER, POD) / error / Raw(bytes(quoted)[: 28 if family == 4 else 48])


ERRORS: dict[int, list[Packet]] = {
    4: [ICMP(type=3, code=4), ICMP(type=11), ICMP(type=12), ICMP(type=4)],
    6: [ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded()],
}


@pytest.mark.parametrize("kind", ["tcp", "udp", "echo"])
def test_error_about_the_pods_connection_enters(veth: Veth, family: int, kind: str) -> None:
    payload = {"tcp": tcp(), "udp": udp(), "echo": echo(family)}[kind]
    veth.configure(ISOLATED)
    sent = ip(family, POD, PEER) / payload
    assert veth.from_pod(sent).passed
    for error in ERRORS[family]:
        answer = veth.to_pod(quoting(family, error, sent))
        assert answer.reason is ForwardReason.RELATED


def test_error_about_nothing_known_is_judged_as_icmp(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / tcp()).passed
    for quoted in (
        ip(family, POD, OTHER) / tcp(),
        ip(family, POD, PEER) / tcp(port=81),
        ip(family, PEER, POD) / tcp(),
    ):
        answer = veth.to_pod(quoting(family, ERRORS[family][0], quoted))
        assert answer.reason is DropReason.POLICY_DENIED


def test_error_goes_to_who_caused_it(veth: Veth, family: int) -> None:
    """A pod that quotes a stranger's packet to somebody else is not reporting an error."""
    veth.configure(ISOLATED_BOTH, inward((80, 6)))
    asked = ip(family, PEER, POD) / tcp()
    assert veth.to_pod(asked).passed
    error = Raw(bytes(asked)[: 28 if family == 4 else 48])
    right = ip(family, POD, PEER) / ERRORS[family][0] / error
    wrong = ip(family, POD, OTHER) / ERRORS[family][0] / error
    assert veth.from_pod(right).reason is ForwardReason.RELATED
    assert veth.from_pod(wrong).reason is DropReason.POLICY_DENIED


def test_error_creates_nothing(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    sent = ip(family, POD, PEER) / tcp()
    assert veth.from_pod(sent).passed
    before = len(veth.maps.connections())
    veth.to_pod(quoting(family, ERRORS[family][0], sent))
    assert len(veth.maps.connections()) == before


def test_error_about_a_cut_connection_is_not_related(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    sent = ip(family, POD, PEER) / tcp()
    assert veth.from_pod(sent).passed
    veth.generation += 1
    veth.configure(ISOLATED_BOTH)
    assert not veth.to_pod(quoting(family, ERRORS[family][0], sent)).passed


def test_error_cut_short_is_malformed(veth: Veth) -> None:
    veth.configure(ISOLATED)
    stump = IP(src=WORLD[4], dst=POD[4], proto=1) / Raw(b"\x03\x04\x00")
    assert veth.to_pod(stump).reason is DropReason.INVALID_PACKET_DROPPED


DISCOVERY = [
    pytest.param(ICMPv6ND_NS(tgt=POD[6]), id="solicitation"),
    pytest.param(ICMPv6ND_NA(tgt=GATEWAY), id="advertisement"),
    pytest.param(ICMPv6ND_RA(), id="router advertisement"),
    pytest.param(ICMPv6ND_RS(), id="router solicitation"),
    pytest.param(ICMPv6ND_Redirect(), id="redirect"),
]


@pytest.mark.parametrize("message", DISCOVERY)
def test_neighbour_discovery_of_the_link_enters(veth: Veth, message: Packet) -> None:
    veth.configure(ISOLATED)
    packet = IPv6(src=GATEWAY, dst=POD[6], hlim=255) / message
    assert veth.to_pod(packet).reason is ForwardReason.LINK


@pytest.mark.parametrize("message", DISCOVERY)
def test_neighbour_discovery_that_was_routed_does_not(veth: Veth, message: Packet) -> None:
    veth.configure(ISOLATED)
    packet = IPv6(src=OTHER[6], dst=POD[6], hlim=254) / message
    assert veth.to_pod(packet).reason is DropReason.POLICY_DENIED


SAID_BY = [
    pytest.param(PEER, True, id="by whom it was sent to"),
    pytest.param(ROUTER, True, id="by a router"),
    pytest.param(NODE, True, id="by the node"),
    pytest.param(OTHER, False, id="by another pod"),
    pytest.param(NOBODY, False, id="by an address of the pod ranges that nobody knows"),
]


@pytest.mark.parametrize(("sender", "passes"), SAID_BY)
def test_error_is_believed_of_who_can_know(
    veth: Veth, family: int, sender: dict[int, str], passes: bool
) -> None:
    cidrs = dict.fromkeys(POD_RANGES.values(), CidrEntry(9, CidrFlag.IN_CLUSTER))
    veth.configure(ISOLATED, cidrs=cidrs)
    sent = ip(family, POD, PEER) / udp()
    assert veth.from_pod(sent).passed
    quoted = Raw(bytes(sent)[: 28 if family == 4 else 48])
    for error in ERRORS[family]:
        answer = veth.to_pod(ip(family, sender, POD) / error / quoted, came_by=LOOPBACK)
        assert answer.passed is passes
        assert len(answer.events) == (0 if passes else 1)


def test_error_quotes_no_more_than_a_host_does(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    sent = ip(family, POD, PEER) / udp()
    assert veth.from_pod(sent).passed
    header = len(ip(family, PEER, POD) / ERRORS[family][0])
    room = (576 if family == 4 else 1280) - header
    for length, passes in ((room, True), (room + 1, False)):
        quoted = Raw(bytes(sent).ljust(length, b"x"))
        answer = veth.to_pod(ip(family, PEER, POD) / ERRORS[family][0] / quoted)
        assert answer.passed is passes


def test_fragments_of_an_error_are_no_error(veth: Veth) -> None:
    veth.configure(ISOLATED)
    sent = ip(4, POD, PEER) / udp()
    assert veth.from_pod(sent).passed
    error = bytes(ICMP(type=3, code=3) / Raw(bytes(sent)[:28]))
    first = IP(src=PEER[4], dst=POD[4], id=7, flags="MF", proto=1) / Raw(error[:32])
    later = IP(src=PEER[4], dst=POD[4], id=7, frag=4, proto=1) / Raw(bytes(8) + bytes(sent)[:28])
    assert veth.to_pod(first).reason is DropReason.POLICY_DENIED
    assert veth.to_pod(later).reason is DropReason.POLICY_DENIED
