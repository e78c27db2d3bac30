"""The link: a pod sends IPv4, IPv6 and ARP of its own, and gets what is for it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import (
    ICMPv6MLQuery,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import EndpointFlag
from tests.bpf.veth import (
    ISOLATED,
    ISOLATED_BOTH,
    LOCAL,
    LOOPBACK,
    MAC,
    NODE,
    OTHER,
    OTHER_MAC,
    OWN_TENANT,
    PEER,
    POD,
    READY,
    WALLED,
    WORLD,
    Veth,
    ethernet,
    inward,
    ip,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf

FRAMES = [
    pytest.param(
        Ether(src=MAC, dst=OTHER_MAC) / Dot1Q(vlan=5) / ip(4, PEER, POD) / tcp(),
        DropReason.UNSUPPORTED_L2_PROTOCOL,
        id="VLAN",
    ),
    pytest.param(
        Ether(src=MAC, dst=OTHER_MAC) / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip(6, PEER, POD) / tcp(),
        DropReason.UNSUPPORTED_L2_PROTOCOL,
        id="VLAN in VLAN",
    ),
    pytest.param(
        Dot3(src=MAC, dst=OTHER_MAC) / LLC() / Raw(bytes(60)),
        DropReason.UNSUPPORTED_L2_PROTOCOL,
        id="802.3",
    ),
    pytest.param(
        Ether(src=MAC, dst=OTHER_MAC, type=0x8847) / Raw(bytes(60)),
        DropReason.UNSUPPORTED_L3_PROTOCOL,
        id="MPLS",
    ),
    pytest.param(
        Ether(src=MAC, dst=OTHER_MAC, type=0x88CC) / Raw(bytes(60)),
        DropReason.UNSUPPORTED_L3_PROTOCOL,
        id="LLDP",
    ),
]


@pytest.mark.parametrize(("frame", "reason"), FRAMES)
def test_confined_pod_is_out_of_reach(veth: Veth, frame: Packet, reason: DropReason) -> None:
    veth.configure(ISOLATED, inward((0, 0)))
    assert veth.to_pod(bytes(frame)).reason is reason
    assert veth.from_pod(bytes(frame)).reason is reason


@pytest.mark.parametrize(("frame", "reason"), FRAMES)
def test_the_wall_confines_too(veth: Veth, frame: Packet, reason: DropReason) -> None:
    veth.configure(WALLED, OWN_TENANT)
    assert veth.to_pod(bytes(frame)).reason is reason


@pytest.mark.parametrize(("frame", "reason"), FRAMES)
def test_free_pod_gets_it_but_never_sends_it(veth: Veth, frame: Packet, reason: DropReason) -> None:
    for flags in (READY, READY | EndpointFlag.AUDIT):
        veth.configure(flags)
        assert veth.to_pod(bytes(frame)).reason is ForwardReason.NOT_ISOLATED
        assert veth.from_pod(bytes(frame)).reason is reason


def test_pod_sends_from_its_own_mac_only(veth: Veth, family: int) -> None:
    veth.configure(READY)
    packet = ip(family, POD, PEER) / udp()
    assert veth.from_pod(bytes(Ether(src=MAC, dst=OTHER_MAC) / packet)).passed
    forged = Ether(src=OTHER_MAC, dst=MAC) / packet
    assert veth.from_pod(bytes(forged)).reason is DropReason.INVALID_SOURCE_MAC
    asks = Ether(src=OTHER_MAC, dst=MAC) / ARP(hwsrc=OTHER_MAC, psrc=POD[4], pdst=PEER[4])
    assert veth.from_pod(bytes(asks)).reason is DropReason.INVALID_SOURCE_MAC


def test_nothing_follows_the_ip_packet(veth: Veth, family: int) -> None:
    veth.configure(READY)
    frame = ethernet(ip(family, POD, PEER) / udp(port=80))
    filled = frame.ljust(60, b"\0")
    assert veth.from_pod(filled).passed
    assert veth.from_pod(filled + b"x").reason is DropReason.INVALID_PACKET_DROPPED


IP_SOURCE, SPOOFED = DropReason.INVALID_SOURCE_IP, DropReason.INVALID_SOURCE_MAC
MALFORMED, LINK = DropReason.INVALID_PACKET_DROPPED, ForwardReason.LINK
ZERO = "0.0.0.0"  # noqa: S104 the sender of an ARP probe
ARPS = [
    pytest.param({}, b"", LINK, id="asks"),
    pytest.param({"op": 2}, b"", LINK, id="answers"),
    pytest.param({"psrc": ZERO}, b"", LINK, id="probes"),
    pytest.param({}, bytes(18), LINK, id="filled up"),
    pytest.param({"psrc": ZERO, "op": 2}, b"", IP_SOURCE, id="answers for nobody"),
    pytest.param({"psrc": OTHER[4]}, b"", IP_SOURCE, id="for another pod"),
    pytest.param({"psrc": NODE[4], "op": 2}, b"", IP_SOURCE, id="for the node"),
    pytest.param({"hwsrc": OTHER_MAC}, b"", SPOOFED, id="says another MAC"),
    pytest.param({"op": 3}, b"", MALFORMED, id="reverse"),
    pytest.param({"hwtype": 6}, b"", MALFORMED, id="of another hardware"),
    pytest.param({"ptype": 0x86DD}, b"", MALFORMED, id="of another protocol"),
    pytest.param({}, b"MARK", MALFORMED, id="with four bytes behind it"),
    pytest.param({}, b"x".ljust(18, b"\0"), MALFORMED, id="filled up with something"),
    pytest.param({}, b"x" * 800, MALFORMED, id="with 800 bytes behind it"),
]


@pytest.mark.parametrize(("fields", "behind", "reason"), ARPS)
def test_pod_speaks_arp_for_itself_only(
    veth: Veth, fields: dict[str, object], behind: bytes, reason: DropReason
) -> None:
    veth.configure(READY)
    message = ARP(hwsrc=MAC, psrc=POD[4], pdst="169.254.1.1", op=1)
    for name, value in fields.items():
        setattr(message, name, value)
    frame = bytes(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / message)
    assert veth.from_pod(frame + behind).reason is reason


SOURCE_MAC = ICMPv6NDOptSrcLLAddr(lladdr=MAC)
TARGET_MAC = ICMPv6NDOptDstLLAddr(lladdr=MAC)
GATEWAY, ROUTERS, EVERYBODY = "fe80::1", "ff02::2", "ff02::1"
OTHERS_GROUP, OWN_GROUP, LOCAL_GROUP = "ff02::1:ff00:3", "ff02::1:ff00:1", "ff02::1:ff00:1"
NONCE = Raw(b"\x0e\x01nonce!")


def says(source: str, destination: str, *layers: Packet) -> Packet:
    packet = IPv6(src=source, dst=destination, hlim=255)
    for layer in layers:
        packet /= layer.copy()
    return packet


SOLICITED = ICMPv6ND_NS(tgt=OTHER[6])
ADVERTISED = ICMPv6ND_NA(tgt=POD[6], R=0)
DISCOVERY = [
    pytest.param(says(POD[6], OTHERS_GROUP, SOLICITED, SOURCE_MAC), LINK, id="asks"),
    pytest.param(says(LOCAL, OTHERS_GROUP, SOLICITED, SOURCE_MAC), LINK, id="asks by link"),
    pytest.param(says(POD[6], OTHER[6], SOLICITED), LINK, id="asks again"),
    pytest.param(says("::", OWN_GROUP, ICMPv6ND_NS(tgt=POD[6])), LINK, id="probes"),
    pytest.param(says("::", LOCAL_GROUP, ICMPv6ND_NS(tgt=LOCAL), NONCE), LINK, id="probes by link"),
    pytest.param(says(POD[6], GATEWAY, ADVERTISED, TARGET_MAC), LINK, id="answers"),
    pytest.param(says(LOCAL, EVERYBODY, ADVERTISED, TARGET_MAC), LINK, id="announces"),
    pytest.param(says(POD[6], GATEWAY, ICMPv6ND_NA(tgt=LOCAL, R=0)), LINK, id="answers by link"),
    pytest.param(says(LOCAL, ROUTERS, ICMPv6ND_RS(), SOURCE_MAC), LINK, id="asks for routers"),
    pytest.param(says("::", ROUTERS, ICMPv6ND_RS()), LINK, id="asks for routers without address"),
    pytest.param(says(OTHER[6], OTHERS_GROUP, SOLICITED), IP_SOURCE, id="in a pod's name"),
    pytest.param(says(GATEWAY, OTHERS_GROUP, SOLICITED), IP_SOURCE, id="in the gateway's name"),
    pytest.param(says("fe80::5", OTHERS_GROUP, SOLICITED), IP_SOURCE, id="another link address"),
    pytest.param(says("fd09::bad:1", ROUTERS, ICMPv6ND_RS()), IP_SOURCE, id="a router's neighbour"),
    pytest.param(says("::", OTHERS_GROUP, SOLICITED), IP_SOURCE, id="probes for another"),
    pytest.param(says("::", EVERYBODY, ADVERTISED), IP_SOURCE, id="answers from nowhere"),
    pytest.param(says(POD[6], EVERYBODY, ICMPv6ND_NA(tgt=OTHER[6])), IP_SOURCE, id="for a pod"),
    pytest.param(
        says(POD[6], EVERYBODY, ICMPv6ND_NA(tgt=GATEWAY)), IP_SOURCE, id="for the gateway"
    ),
    pytest.param(says(LOCAL, EVERYBODY, ICMPv6ND_RA()), IP_SOURCE, id="plays router"),
    pytest.param(says(LOCAL, POD[6], ICMPv6ND_Redirect()), IP_SOURCE, id="redirects"),
    pytest.param(says(POD[6], WORLD[6], SOLICITED), MALFORMED, id="asks elsewhere"),
    pytest.param(says(POD[6], EVERYBODY, SOLICITED), MALFORMED, id="asks everybody"),
    pytest.param(says(POD[6], "ff02::5", ADVERTISED), MALFORMED, id="answers another group"),
    pytest.param(says(LOCAL, WORLD[6], ICMPv6ND_RS()), MALFORMED, id="asks a routed router"),
    pytest.param(says(POD[6], OTHER[6], SOLICITED, Raw(b"x" * 1200)), MALFORMED, id="payload"),
    pytest.param(
        says(POD[6], OTHER[6], SOLICITED, *[SOURCE_MAC] * 9), MALFORMED, id="many options"
    ),
    pytest.param(
        says(POD[6], OTHER[6], SOLICITED, ICMPv6NDOptSrcLLAddr(lladdr=OTHER_MAC)),
        MALFORMED,
        id="asks with another MAC",
    ),
    pytest.param(says(POD[6], OTHER[6], SOLICITED, NONCE), MALFORMED, id="asks with a nonce"),
    pytest.param(
        says(POD[6], OTHER[6], ICMPv6ND_NS(tgt=OTHER[6], res=0xDADA)), MALFORMED, id="says more"
    ),
    pytest.param(
        says(POD[6], GATEWAY, ICMPv6ND_NA(tgt=POD[6], res=0xDA)), MALFORMED, id="and more"
    ),
    pytest.param(
        says(POD[6], OTHERS_GROUP, IPv6ExtHdrDestOpt(), SOLICITED), MALFORMED, id="behind a header"
    ),
]


@pytest.mark.parametrize(("packet", "reason"), DISCOVERY)
def test_pod_speaks_neighbour_discovery_for_itself_only(
    veth: Veth, packet: Packet, reason: DropReason
) -> None:
    for flags in (READY, ISOLATED_BOTH):
        veth.configure(flags)
        assert veth.from_pod(packet).reason is reason


def test_pod_reports_what_it_listens_to_and_hears_of_no_one_elses(veth: Veth) -> None:
    veth.configure(ISOLATED_BOTH)
    header = IPv6(src=LOCAL, dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop()
    report = header / ICMPv6MLReport2()
    assert veth.from_pod(report).reason is LINK
    assert veth.to_pod(report).reason is DropReason.INVALID_DESTINATION_IP
    assert veth.from_pod(header / ICMPv6MLQuery()).reason is IP_SOURCE
    header.src = "fe80::5"
    assert veth.from_pod(header / ICMPv6MLReport2()).reason is IP_SOURCE


ELSEWHERE = DropReason.INVALID_DESTINATION_IP
DESTINATIONS = [
    pytest.param(4, OTHER[4], ELSEWHERE, id="another pod"),
    pytest.param(4, WORLD[4], ELSEWHERE, id="the world"),
    pytest.param(4, "10.9.0.255", ELSEWHERE, id="a subnet"),
    pytest.param(4, POD[4], None, id="the pod"),
    pytest.param(4, "224.0.0.251", None, id="a group"),
    pytest.param(4, "255.255.255.255", None, id="everybody"),
    pytest.param(6, OTHER[6], ELSEWHERE, id="another pod"),
    pytest.param(6, WORLD[6], ELSEWHERE, id="the world"),
    pytest.param(6, "::1", ELSEWHERE, id="loopback"),
    pytest.param(6, POD[6], None, id="the pod"),
    pytest.param(6, LOCAL, None, id="its link address"),
    pytest.param(6, "ff02::fb", None, id="a group"),
]


@pytest.mark.parametrize(("version", "destination", "reason"), DESTINATIONS)
def test_what_enters_is_for_the_pod(
    veth: Veth, version: int, destination: str, reason: DropReason | None
) -> None:
    for flags in (READY, READY | EndpointFlag.AUDIT):
        veth.configure(flags)
        header = IP(src=PEER[4]) if version == 4 else IPv6(src=PEER[6])
        header.dst = destination
        assert veth.to_pod(header / udp()).reason is (reason or ForwardReason.NOT_ISOLATED)


CLAIMS = [
    pytest.param(ARP(op=2, psrc=POD[4], pdst=POD[4]), False, id="ARP for the pod"),
    pytest.param(ARP(op=2, psrc=NODE[4], pdst=POD[4]), False, id="ARP for the node"),
    pytest.param(ARP(op=1, psrc=OTHER[4], pdst=POD[4]), True, id="ARP of a neighbour"),
    pytest.param(says("::", OWN_GROUP, ICMPv6ND_NS(tgt=POD[6])), False, id="probe for the pod"),
    pytest.param(says("::", OTHERS_GROUP, SOLICITED), True, id="probe for another"),
    pytest.param(says(POD[6], POD[6], ICMPv6ND_NS(tgt=POD[6])), False, id="as the pod"),
    pytest.param(says(NODE[6], POD[6], ICMPv6ND_NS(tgt=POD[6])), False, id="as the node"),
    pytest.param(says(OTHER[6], POD[6], ICMPv6ND_NS(tgt=POD[6])), True, id="of a neighbour"),
    pytest.param(says(OTHER[6], POD[6], ICMPv6ND_NA(tgt=POD[6])), False, id="for the pod"),
    pytest.param(says(OTHER[6], POD[6], ICMPv6ND_NA(tgt=LOCAL)), False, id="for its link address"),
    pytest.param(says(OTHER[6], POD[6], ICMPv6ND_NA(tgt=NODE[6])), False, id="for the node"),
    pytest.param(says(OTHER[6], POD[6], ICMPv6ND_NA(tgt=OTHER[6])), True, id="for itself"),
]


@pytest.mark.parametrize(("packet", "passes"), CLAIMS)
def test_nobody_on_the_link_claims_the_pods_address_or_the_nodes(
    veth: Veth, packet: Packet, passes: bool
) -> None:
    veth.configure(READY)
    answer = veth.to_pod(packet, came_by=LOOPBACK)
    assert answer.reason is (LINK if passes else IP_SOURCE)


def test_arp_enters(veth: Veth) -> None:
    veth.configure(ISOLATED_BOTH)
    assert veth.to_pod(ARP(psrc="169.254.1.1", pdst=POD[4])).reason is LINK
