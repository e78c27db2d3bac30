"""What is packed in packets stays in the pod as far as nodes are concerned, in every mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import AddressEntry, EndpointFlag
from tests.bpf.veth import ADDRESSES, ISOLATED_BOTH, NODE, PEER, POD, READY, Veth, ip, udp

pytestmark = pytest.mark.bpf

REMOTE = {4: "10.9.255.2", 6: "fd09::fe"}
GROUP = {4: "239.1.1.1", 6: "ff05::1"}
LINK = {4: "255.255.255.255", 6: "fe80::1"}
NODES = {**ADDRESSES, **{REMOTE[f]: AddressEntry(6) for f in (4, 6)}}
PROTOCOLS = (4, 41, 47, 50, 51, 97, 115)
PROHIBITED = DropReason.ENCAP_PROHIBITED
TOWARDS = [
    pytest.param(NODE, True, id="its node"),
    pytest.param(REMOTE, True, id="another node"),
    pytest.param(GROUP, True, id="a group"),
    pytest.param(LINK, True, id="the link"),
    pytest.param(PEER, False, id="a pod"),
]


@pytest.fixture
def tunnel(veth: Veth) -> int:
    """A port at which nodes unpack what they get."""
    veth.maps.lead_to_tunnels([8472])
    return 8472


@pytest.mark.parametrize(("towards", "refused"), TOWARDS)
@pytest.mark.parametrize("flags", [READY, READY | EndpointFlag.AUDIT], ids=["free", "audit"])
def test_pod_sends_nothing_encapsulated_to_nodes(
    veth: Veth,
    family: int,
    tunnel: int,
    towards: dict[int, str],
    refused: bool,
    flags: EndpointFlag,
) -> None:
    veth.configure(flags, addresses=NODES)
    packets = [ip(family, POD, towards) / udp(port=tunnel)]
    for number in PROTOCOLS:
        header = ip(family, POD, towards)
        setattr(header, "proto" if family == 4 else "nh", number)
        packets.append(header / Raw(bytes(40)))
    for packet in packets:
        answer = veth.from_pod(packet)
        assert (answer.reason is PROHIBITED) is refused
        assert answer.passed is not refused
    assert veth.from_pod(ip(family, POD, towards) / udp(port=tunnel + 1)).passed


def test_namespace_of_the_tenant_file_may_send_it(veth: Veth, family: int, tunnel: int) -> None:
    veth.configure(READY | EndpointFlag.ENCAPSULATES)
    answer = veth.from_pod(ip(family, POD, NODE) / udp(port=tunnel))
    assert answer.reason is ForwardReason.HOST


def test_answers_from_a_tunnels_port_are_not_meant(veth: Veth, family: int, tunnel: int) -> None:
    veth.configure(READY)
    assert veth.from_pod(ip(family, POD, NODE) / udp(port=53, client_port=tunnel)).passed


def test_what_cannot_be_read_does_not_reach_nodes(veth: Veth, tunnel: int) -> None:
    chain = IPv6(src=POD[6], dst=NODE[6])
    for _ in range(9):
        chain /= IPv6ExtHdrDestOpt()
    veth.configure(READY)
    refused = veth.from_pod(chain / udp(port=tunnel))
    assert refused.reason is DropReason.INVALID_IPV6_EXTENSION_HEADER
    later = IP(src=POD[4], dst=NODE[4], id=9, frag=8, proto=17) / Raw(bytes(64))
    assert not veth.from_pod(later).passed
    chain.dst = PEER[6]
    assert veth.from_pod(chain / udp(port=tunnel)).passed


def test_fragments_follow_the_port_of_the_first(veth: Veth, tunnel: int) -> None:
    veth.configure(ISOLATED_BOTH)
    first = IP(src=POD[4], dst=NODE[4], id=9, flags="MF", proto=17) / Raw(bytes(udp(port=tunnel)))
    later = IP(src=POD[4], dst=NODE[4], id=9, frag=2, proto=17) / Raw(bytes(64))
    assert veth.from_pod(first).reason is PROHIBITED
    assert veth.from_pod(later).reason is PROHIBITED


def test_ports_of_tunnels_that_are_gone_are_ports_again(veth: Veth, family: int) -> None:
    veth.configure(READY)
    for port in (0, 63, 64, 65535):
        veth.maps.lead_to_tunnels([port])
        assert veth.from_pod(ip(family, POD, NODE) / udp(port=port)).reason is PROHIBITED
    veth.maps.lead_to_tunnels([])
    assert veth.from_pod(ip(family, POD, NODE) / udp(port=65535)).passed


def test_unknown_address_of_nobody_is_no_node(veth: Veth, family: int, tunnel: int) -> None:
    known = {k: replace(v, identity=256) for k, v in NODES.items()}
    veth.configure(READY, addresses=known)
    assert veth.from_pod(ip(family, POD, NODE) / udp(port=tunnel)).passed
