"""Packets that lie about themselves or end too early: refused where anything could refuse."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from enforcer.datapath.flows import DropReason
from tests.bpf.veth import ISOLATED, PEER, POD, READY, Veth, ethernet, inward, ip, tcp

pytestmark = pytest.mark.bpf


STUMPS = [
    pytest.param(
        IP(src=PEER[4], dst=POD[4], proto=6) / Raw(bytes(tcp())[:19]), id="TCP header cut"
    ),
    pytest.param(IP(src=PEER[4], dst=POD[4], proto=6), id="no TCP header"),
    pytest.param(
        IP(src=PEER[4], dst=POD[4], proto=17) / Raw(bytes(UDP(dport=80))[:7]), id="UDP header cut"
    ),
    pytest.param(IP(src=PEER[4], dst=POD[4], proto=132) / Raw(bytes(11)), id="SCTP header cut"),
    pytest.param(IP(src=PEER[4], dst=POD[4], proto=1) / Raw(bytes(7)), id="ICMP header cut"),
    pytest.param(
        IP(src=PEER[4], dst=POD[4]) / TCP(dport=80, dataofs=4),
        id="TCP header shorter than it can be",
    ),
    pytest.param(
        IP(src=PEER[4], dst=POD[4]) / TCP(dport=80, dataofs=15),
        id="TCP header longer than the packet",
    ),
    pytest.param(IP(src=PEER[4], dst=POD[4], ihl=4) / tcp(), id="IP header shorter than it can be"),
    pytest.param(
        IP(src=PEER[4], dst=POD[4], ihl=15) / tcp(), id="IP header longer than the packet"
    ),
    pytest.param(IP(src=PEER[4], dst=POD[4], version=5) / tcp(), id="IPv5"),
    pytest.param(IP(src=PEER[4], dst=POD[4], len=19) / tcp(), id="length smaller than the header"),
    pytest.param(IP(src=PEER[4], dst=POD[4], len=1000) / tcp(), id="length larger than the packet"),
    pytest.param(IP(src=PEER[4], dst=POD[4], len=30) / tcp(), id="TCP header beyond the length"),
    pytest.param(
        IPv6(src=PEER[6], dst=POD[6], nh=6) / Raw(bytes(tcp())[:19]), id="TCP header cut, IPv6"
    ),
    pytest.param(
        IPv6(src=PEER[6], dst=POD[6], plen=1000) / tcp(), id="length larger than the packet, IPv6"
    ),
    pytest.param(
        IPv6(src=PEER[6], dst=POD[6], plen=10) / tcp(), id="TCP header beyond the length, IPv6"
    ),
    pytest.param(IPv6(src=PEER[6], dst=POD[6], version=4) / tcp(), id="IPv4 in the type of IPv6"),
]


@pytest.mark.parametrize("packet", STUMPS)
def test_isolated_pod_does_not_get_it(veth: Veth, packet: Packet) -> None:
    veth.configure(ISOLATED, inward((0, 0)))
    answer = veth.to_pod(packet)
    assert answer.reason is DropReason.INVALID_PACKET_DROPPED
    assert answer.events[0].reason is DropReason.INVALID_PACKET_DROPPED


@pytest.mark.parametrize("packet", STUMPS)
def test_free_pod_is_left_to_its_kernel(veth: Veth, packet: Packet) -> None:
    veth.configure(READY)
    assert veth.to_pod(packet).passed


def test_padding_of_short_frames_is_no_header(veth: Veth) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    padded = IP(src=PEER[4], dst=POD[4], len=24, proto=6) / Raw(bytes(tcp()))
    assert veth.to_pod(padded).reason is DropReason.INVALID_PACKET_DROPPED
    assert veth.to_pod(ethernet(ip(4, PEER, POD) / tcp()) + bytes(6)).passed
