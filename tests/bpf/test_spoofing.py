"""A pod sends from its own addresses only, whatever its policies allow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from enforcer.datapath.flows import DropReason, ForwardReason
from tests.bpf.veth import (
    LOCAL,
    NODE,
    OTHER,
    PEER,
    POD,
    READY,
    WORLD,
    Veth,
    echo,
    ip,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf

MAPPED = "::ffff:10.9.0.2"


@pytest.mark.parametrize(
    "source", [OTHER, PEER, NODE, WORLD], ids=["other", "peer", "node", "world"]
)
@pytest.mark.parametrize("kind", ["tcp", "udp", "echo"])
def test_foreign_source_is_refused(
    veth: Veth, family: int, source: dict[int, str], kind: str
) -> None:
    payload = {"tcp": tcp(), "udp": udp(), "echo": echo(family)}[kind]
    veth.configure(READY)
    refused = veth.from_pod(ip(family, source, PEER) / payload)
    assert refused.reason is DropReason.INVALID_SOURCE_IP
    assert refused.events[0].source == source[family]
    assert veth.from_pod(ip(family, POD, PEER) / payload).passed


@pytest.mark.parametrize("source", ["0.1.2.3", "127.0.0.1", "255.255.255.255", "224.0.0.1"])
def test_special_ipv4_sources_are_refused(veth: Veth, source: str) -> None:
    veth.configure(READY)
    answer = veth.from_pod(IP(src=source, dst=PEER[4]) / udp())
    assert answer.reason is DropReason.INVALID_SOURCE_IP


@pytest.mark.parametrize("source", ["::", "::1", "fe80::5", "ff02::1"])
def test_special_ipv6_sources_are_refused(veth: Veth, source: str) -> None:
    veth.configure(READY)
    answer = veth.from_pod(IPv6(src=source, dst=PEER[6]) / tcp())
    assert answer.reason is DropReason.INVALID_SOURCE_IP


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(IPv6(src=MAPPED, dst=POD[6]) / tcp(), id="source"),
        pytest.param(IPv6(src=PEER[6], dst="::ffff:10.9.0.1") / tcp(), id="destination"),
        pytest.param(IPv6(src=MAPPED, dst="::ffff:10.9.0.1") / tcp(), id="both"),
    ],
)
def test_ipv4_in_disguise_is_refused_even_without_policy(veth: Veth, packet: Packet) -> None:
    veth.configure(READY)
    assert veth.to_pod(packet).reason is DropReason.INVALID_SOURCE_IP


def test_dhcpv6_stays_on_the_link(veth: Veth) -> None:
    veth.configure(READY)
    client = udp(port=547, client_port=546)
    request = IPv6(src=LOCAL, dst="ff02::1:2") / client
    assert veth.from_pod(request).reason is ForwardReason.LINK
    for refused in (
        IPv6(src="fe80::5", dst="ff02::1:2") / client,
        IPv6(src=LOCAL, dst=PEER[6]) / client,
        IPv6(src=LOCAL, dst="ff02::1") / client,
        IPv6(src=LOCAL, dst="ff02::1:2") / udp(port=546, client_port=547),
        IPv6(src=LOCAL, dst="ff02::1:2") / udp(port=547, client_port=53),
    ):
        assert veth.from_pod(refused).reason is DropReason.INVALID_SOURCE_IP
    answer = IPv6(src="fe80::9", dst=LOCAL) / udp(port=546, client_port=547)
    assert veth.to_pod(answer).reason is ForwardReason.LINK
    for refused in (request, IPv6(src="fe80::9", dst="ff02::1") / answer.payload):
        assert veth.to_pod(refused).reason is DropReason.INVALID_DESTINATION_IP


def test_pod_without_address_of_a_family_sends_none_of_it(veth: Veth) -> None:
    veth.configure(READY)
    tables = veth.maps.read()
    ifindex, entry = next(iter(tables.endpoints.items()))
    veth.put(replace(tables, endpoints={ifindex: replace(entry, ip6=())}))
    assert veth.from_pod(ip(4, POD, PEER) / tcp()).passed
    assert not veth.from_pod(ip(6, POD, PEER) / tcp()).passed
    assert not veth.from_pod(IPv6(src="::", dst=PEER[6]) / tcp()).passed
