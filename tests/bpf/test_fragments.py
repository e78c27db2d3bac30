"""Fragments: later ones have no ports and are judged by those of the first."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from enforcer.datapath.flows import DropReason, ForwardReason
from tests.bpf.veth import (
    ISOLATED,
    PEER,
    POD,
    READY,
    Veth,
    inward,
    ip,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf

UDP_PROTOCOL = 17


def first(family: int, payload: Packet, identifier: int = 9) -> Packet:
    """The first fragment of a datagram of the peer."""
    if family == 4:
        return IP(src=PEER[4], dst=POD[4], id=identifier, flags="MF") / payload / Raw(bytes(64))
    header = IPv6(src=PEER[6], dst=POD[6]) / IPv6ExtHdrFragment(id=identifier, m=1, offset=0)
    return header / payload / Raw(bytes(64))


def later(
    family: int, identifier: int = 9, offset: int = 9, protocol: int = UDP_PROTOCOL
) -> Packet:
    """A later fragment; its bytes would be port 53 for who reads ports there."""
    body = Raw(bytes(UDP(sport=40000, dport=53)) * 4)
    if family == 4:
        return IP(src=PEER[4], dst=POD[4], id=identifier, frag=offset, proto=protocol) / body
    return (
        IPv6(src=PEER[6], dst=POD[6])
        / IPv6ExtHdrFragment(id=identifier, m=0, offset=offset, nh=protocol)
        / body
    )


def test_later_fragment_follows_the_first(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((53, 17)))
    assert veth.to_pod(first(family, udp())).passed
    assert veth.to_pod(later(family)).passed


def test_later_fragment_of_a_refused_datagram_is_refused(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((53, 17)))
    assert veth.to_pod(first(family, udp(port=54))).reason is DropReason.POLICY_DENIED
    assert veth.to_pod(later(family)).reason is DropReason.POLICY_DENIED


def test_later_fragment_without_its_first_is_refused(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((53, 17)))
    answer = veth.to_pod(later(family))
    assert answer.reason is DropReason.FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND


def test_later_fragment_of_another_datagram_is_refused(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((53, 17)))
    assert veth.to_pod(first(family, udp(), identifier=9)).passed
    assert not veth.to_pod(later(family, identifier=10)).passed


def test_fragments_pass_where_nothing_could_refuse(veth: Veth, family: int) -> None:
    veth.configure(READY)
    assert veth.to_pod(later(family)).reason is ForwardReason.NOT_ISOLATED


def test_fragments_of_an_answer_pass(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    answer = first(family, UDP(sport=53, dport=40000))
    assert veth.to_pod(answer).reason is ForwardReason.REPLY
    assert veth.to_pod(later(family)).reason is ForwardReason.REPLY


def test_fragment_that_rewrites_tcp_flags_is_refused(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(first(family, tcp())).passed
    answer = veth.to_pod(later(family, offset=1, protocol=6))
    assert answer.reason is DropReason.IP_FRAGMENTATION_NOT_SUPPORTED


def test_first_fragment_too_short_for_its_ports_is_refused(veth: Veth) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    tiny = IP(src=PEER[4], dst=POD[4], flags="MF", proto=6) / Raw(bytes(TCP(dport=80))[:8])
    assert veth.to_pod(tiny).reason is DropReason.INVALID_PACKET_DROPPED


def test_atomic_fragment_is_a_whole_packet(veth: Veth) -> None:
    veth.configure(ISOLATED, inward((53, 17)))
    header = IPv6(src=PEER[6], dst=POD[6]) / IPv6ExtHdrFragment(id=1, m=0, offset=0)
    assert veth.to_pod(header / udp()).passed
    assert not veth.to_pod(header / udp(port=54)).passed
