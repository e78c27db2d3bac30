"""IPv4 options, IPv6 extension headers, odd transports: ports are found, or it stays out."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, IPOption_NOP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

from enforcer.datapath.flows import DropReason
from tests.bpf.veth import (
    ISOLATED,
    PEER,
    PEER_IDENTITY,
    POD,
    READY,
    Veth,
    inward,
    ip,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf

OPTIONS = [
    pytest.param([IPOption_NOP()] * 4, id="4 bytes"),
    pytest.param([IPOption_RR()], id="record route"),
    pytest.param([IPOption_Timestamp()], id="timestamp"),
    pytest.param([IPOption_NOP()] * 40, id="40 bytes"),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_ports_behind_ipv4_options(veth: Veth, options: list[Packet]) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    header = IP(src=PEER[4], dst=POD[4], options=options)
    assert veth.to_pod(header / tcp()).passed
    assert veth.to_pod(header / tcp(port=81)).reason is DropReason.POLICY_DENIED


def authentication(following: int) -> Packet:
    """An AH header of 24 bytes; it counts its length in words of 4."""
    return Raw(bytes([following, 4]) + bytes(22))


CHAINS = [
    pytest.param([IPv6ExtHdrHopByHop()], id="hop by hop"),
    pytest.param([IPv6ExtHdrDestOpt()], id="destination options"),
    pytest.param([IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()], id="both"),
    pytest.param([IPv6ExtHdrDestOpt()] * 7, id="seven"),
    pytest.param([IPv6ExtHdrRouting(addresses=[], segleft=0)], id="finished routing header"),
]


def chained(headers: list[Packet], payload: Packet) -> Packet:
    packet = IPv6(src=PEER[6], dst=POD[6])
    for header in headers:
        packet = packet / header.copy()
    return packet / payload


@pytest.mark.parametrize("headers", CHAINS)
def test_ports_behind_ipv6_extension_headers(veth: Veth, headers: list[Packet]) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(chained(headers, tcp())).passed
    assert veth.to_pod(chained(headers, tcp(port=81))).reason is DropReason.POLICY_DENIED


NO_EXTENSIONS = [
    pytest.param(51, authentication(6), id="AH"),
    pytest.param(135, Raw(bytes([6, 0]) + bytes(6)), id="Mobility"),
    pytest.param(139, Raw(bytes([6, 0, 1, 1]) + bytes(4)), id="HIP"),
    pytest.param(140, Raw(bytes([6, 0, 1]) + bytes(5)), id="Shim6"),
]


@pytest.mark.parametrize(("protocol", "header"), NO_EXTENSIONS)
def test_what_a_host_does_not_walk_through_is_the_protocol(
    veth: Veth, protocol: int, header: Packet
) -> None:
    veth.configure(ISOLATED, inward((80, 6), (0, 17)))
    packet = IPv6(src=PEER[6], dst=POD[6], nh=protocol) / header / bytes(tcp())
    assert veth.to_pod(packet).reason is DropReason.UNKNOWN_L4_PROTOCOL
    veth.configure(ISOLATED, inward((0, protocol)))
    assert veth.to_pod(packet).passed


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([IPv6ExtHdrDestOpt()] * 9, id="nine headers"),
        pytest.param([IPv6ExtHdrRouting(addresses=["fd09::3"], segleft=1)], id="segments left"),
    ],
)
def test_chain_that_cannot_be_trusted(veth: Veth, headers: list[Packet]) -> None:
    veth.configure(ISOLATED, inward((0, 0)))
    answer = veth.to_pod(chained(headers, tcp()))
    assert answer.reason is DropReason.INVALID_IPV6_EXTENSION_HEADER
    veth.configure(READY)
    assert veth.to_pod(chained(headers, tcp())).passed


def test_chain_that_ends_in_the_middle(veth: Veth) -> None:
    veth.configure(ISOLATED, inward((0, 0)))
    cut = IPv6(src=PEER[6], dst=POD[6], nh=60) / Raw(b"\x3c\x00\x00\x00")
    assert veth.to_pod(cut).reason is DropReason.INVALID_IPV6_EXTENSION_HEADER
    beyond = IPv6(src=PEER[6], dst=POD[6], nh=60) / Raw(b"\x06\xff" + bytes(30))
    assert veth.to_pod(beyond).reason is DropReason.INVALID_PACKET_DROPPED


def test_sctp_has_ports(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((3868, 132)))
    association = SCTP(sport=40000, dport=3868) / SCTPChunkInit()
    assert veth.to_pod(ip(family, PEER, POD) / association).passed
    other = SCTP(sport=40000, dport=3869) / SCTPChunkInit()
    assert veth.to_pod(ip(family, PEER, POD) / other).reason is DropReason.POLICY_DENIED


PROTOCOLS = [
    pytest.param(47, id="GRE"),
    pytest.param(4, id="IP in IP"),
    pytest.param(50, id="ESP"),
    pytest.param(136, id="UDP-Lite"),
    pytest.param(253, id="experimental"),
]


def bare(family: int, protocol: int) -> Packet:
    if family == 4:
        return IP(src=PEER[4], dst=POD[4], proto=protocol) / Raw(bytes(udp(port=80)))
    return IPv6(src=PEER[6], dst=POD[6], nh=protocol) / Raw(bytes(udp(port=80)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unknown_protocol_needs_a_rule_without_ports(
    veth: Veth, family: int, protocol: int
) -> None:
    veth.configure(ISOLATED, inward((80, 6), (80, 17), (80, 132), (0, 6), (0, 17)))
    refused = veth.to_pod(bare(family, protocol))
    assert refused.reason is DropReason.UNKNOWN_L4_PROTOCOL
    assert refused.events[0].identity == PEER_IDENTITY
    veth.configure(ISOLATED, inward((0, 0)))
    assert veth.to_pod(bare(family, protocol)).passed
