"""What is neither IPv4, IPv6 nor ARP cannot be judged: a confined pod neither gets nor sends it."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from enforcer.flows import DropReason, ForwardReason
from tests.bpf.veth import ISOLATED, OWN_TENANT, PEER, POD, READY, WALLED, Veth, inward, ip, tcp

pytestmark = pytest.mark.bpf

SOURCE, DESTINATION = "02:00:00:00:00:01", "02:00:00:00:00:02"
FRAMES = [
    pytest.param(
        Ether(src=SOURCE, dst=DESTINATION) / Dot1Q(vlan=5) / ip(4, PEER, POD) / tcp(),
        DropReason.UNSUPPORTED_L2_PROTOCOL,
        id="VLAN",
    ),
    pytest.param(
        Ether(src=SOURCE, dst=DESTINATION)
        / Dot1AD(vlan=5)
        / Dot1Q(vlan=6)
        / ip(6, PEER, POD)
        / tcp(),
        DropReason.UNSUPPORTED_L2_PROTOCOL,
        id="VLAN in VLAN",
    ),
    pytest.param(
        Dot3(src=SOURCE, dst=DESTINATION) / LLC() / Raw(bytes(60)),
        DropReason.UNSUPPORTED_L2_PROTOCOL,
        id="802.3",
    ),
    pytest.param(
        Ether(src=SOURCE, dst=DESTINATION, type=0x8847) / Raw(bytes(60)),
        DropReason.UNSUPPORTED_L3_PROTOCOL,
        id="MPLS",
    ),
    pytest.param(
        Ether(src=SOURCE, dst=DESTINATION, type=0x88CC) / Raw(bytes(60)),
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
def test_free_pod_is_left_alone(veth: Veth, frame: Packet, reason: DropReason) -> None:
    del reason
    veth.configure(READY)
    assert veth.to_pod(bytes(frame)).reason is ForwardReason.NOT_ISOLATED
