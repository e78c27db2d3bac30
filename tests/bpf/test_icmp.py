"""ICMP: errors pass when they are about a living connection, discovery stays on the link."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from enforcer.flows import DropReason, ForwardReason
from tests.bpf.veth import (
    ISOLATED,
    ISOLATED_BOTH,
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


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        pytest.param(ICMPv6ND_NS(tgt=GATEWAY), True, id="asks for the gateway"),
        pytest.param(ICMPv6ND_RS(), True, id="asks for routers"),
        pytest.param(ICMPv6ND_NA(tgt=POD[6]), True, id="answers for itself"),
        pytest.param(ICMPv6ND_NA(tgt="fe80::5"), True, id="answers for its link address"),
        pytest.param(ICMPv6ND_NA(tgt=OTHER[6]), False, id="answers for another pod"),
        pytest.param(ICMPv6ND_RA(), False, id="plays router"),
        pytest.param(ICMPv6ND_Redirect(), False, id="redirects"),
    ],
)
def test_pod_speaks_neighbour_discovery_for_itself_only(
    veth: Veth, message: Packet, passes: bool
) -> None:
    veth.configure(ISOLATED_BOTH)
    answer = veth.from_pod(IPv6(src="fe80::5", dst="ff02::1", hlim=255) / message)
    assert answer.reason is (ForwardReason.LINK if passes else DropReason.INVALID_SOURCE_IP)


@pytest.mark.parametrize(
    ("sender", "passes"),
    [
        pytest.param(POD[4], True, id="for itself"),
        pytest.param("0.0.0.0", True, id="probe"),  # noqa: S104 the sender of an ARP probe
        pytest.param(OTHER[4], False, id="for another pod"),
        pytest.param("10.9.255.1", False, id="for the node"),
    ],
)
def test_pod_speaks_arp_for_itself_only(veth: Veth, sender: str, passes: bool) -> None:
    veth.configure(ISOLATED_BOTH)
    for operation in (1, 2):
        answer = veth.from_pod(ARP(op=operation, psrc=sender, pdst="169.254.1.1"))
        assert answer.passed is passes


def test_arp_enters(veth: Veth) -> None:
    veth.configure(ISOLATED)
    assert veth.to_pod(ARP(psrc="169.254.1.1", pdst=POD[4])).reason is ForwardReason.LINK


def test_multicast_listener_report_leaves(veth: Veth) -> None:
    veth.configure(ISOLATED_BOTH)
    header = IPv6(src="fe80::5", dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop()
    assert veth.from_pod(header / ICMPv6MLReport2()).reason is ForwardReason.LINK
