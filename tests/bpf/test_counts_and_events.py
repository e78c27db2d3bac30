"""Counts are exact and independent of events; a full ring loses events and says how many."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP

from enforcer.datapath import kernel
from enforcer.datapath.flows import DropReason, EventFlag, ForwardReason
from enforcer.policy.tables import Dir, EndpointFlag
from generators.reachability.verdicts import Verdict
from tests.bpf.veth import (
    GROUP,
    ISOLATED,
    LOOPBACK,
    OTHER,
    PEER,
    PEER_IDENTITY,
    POD,
    RULE,
    TENANT,
    Veth,
    ethernet,
    inward,
    ip,
    tcp,
    tcp_back,
)

pytestmark = pytest.mark.bpf

MANY = 20_011


def test_every_packet_is_counted_under_its_rule_or_group(veth: Veth) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    frame = ethernet(ip(4, PEER, POD) / tcp("A"))
    denied = ethernet(ip(4, OTHER, POD) / tcp("S"))
    context = kernel.SkbContext(ifindex=LOOPBACK)
    with kernel.open_pin(veth.pins / "to_pod") as program:
        kernel.test_run(program.fd, frame, context, repeat=101)
        kernel.test_run(program.fd, denied, context, repeat=13)
    mine = {
        (s.reason, s.rule, s.group): (s.packets, s.octets)
        for s in veth.maps.statistics()
        if s.endpoint == veth.endpoint
    }
    assert mine == {
        (ForwardReason.POLICY_ALLOWED, RULE, 0): (101, 101 * len(frame)),
        (DropReason.POLICY_DENIED, 0, GROUP): (13, 13 * len(denied)),
    }


def test_full_ring_loses_events_but_no_counts(veth: Veth) -> None:
    veth.configure(ISOLATED)
    before = veth.maps.lost().events
    denied = ethernet(ip(4, OTHER, POD) / tcp("S"))
    with kernel.open_pin(veth.pins / "to_pod") as program:
        kernel.test_run(program.fd, denied, kernel.SkbContext(ifindex=LOOPBACK), repeat=MANY)
    told = 0
    while records := veth.reader.read(limit=1000):
        told += len(records)
    (count,) = [s.packets for s in veth.maps.statistics() if s.endpoint == veth.endpoint]
    lost = veth.maps.lost().events - before
    assert (count, told + lost) == (MANY, MANY)
    assert lost > 0


def test_nobodys_events_hide_those_of_others(veth: Veth, family: int) -> None:
    """A second may end in between: then a sender has its share twice."""
    share, flood = 10, 500
    veth.configure(ISOLATED)
    loud, quiet = (ethernet(ip(family, sender, POD) / tcp("S")) for sender in (OTHER, PEER))
    before = veth.maps.lost()
    veth.maps.share_events(share)
    try:
        with kernel.open_pin(veth.pins / "to_pod") as program:
            context = kernel.SkbContext(ifindex=LOOPBACK)
            kernel.test_run(program.fd, loud, context, repeat=flood)
            kernel.test_run(program.fd, quiet, context, repeat=share)
    finally:
        veth.maps.share_events(0)
    told = [event.source for event in veth.reader.read()]
    assert share <= told.count(OTHER[family]) <= 2 * share
    assert told.count(PEER[family]) == share
    after = veth.maps.lost()
    held_back = after.held_back - before.held_back
    assert held_back == after.events - before.events == flood + share - len(told)


def test_event_says_all_there_is_to_say(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    packet = ip(family, PEER, POD) / tcp("S", port=8080, client_port=40123)
    (event,) = veth.to_pod(packet).events
    assert (event.verdict, event.reason) == (Verdict.DROPPED, DropReason.POLICY_DENIED)
    assert (event.endpoint, event.ifindex, event.direction) == (
        veth.endpoint,
        LOOPBACK,
        Dir.INGRESS,
    )
    assert (event.source, event.source_port) == (PEER[family], 40123)
    assert (event.destination, event.destination_port) == (POD[family], 8080)
    assert (event.family, event.protocol, event.tcp_flags) == (family, 6, 2)
    assert (event.identity, event.tenant, event.group) == (PEER_IDENTITY, TENANT, GROUP)
    assert event.length == len(ethernet(packet))


def test_dropped_answer_is_marked_as_one(veth: Veth) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(4, PEER, POD) / tcp()).passed
    veth.generation += 1
    veth.configure(ISOLATED)
    (event,) = veth.from_pod(ip(4, POD, PEER) / tcp_back("A")).events
    assert EventFlag.REPLY in event.flags
    assert event.direction is Dir.EGRESS


def test_wait_ends_when_something_happens(veth: Veth) -> None:
    veth.configure(ISOLATED)
    assert not veth.reader.wait(0)
    context = kernel.SkbContext(ifindex=LOOPBACK)
    with kernel.open_pin(veth.pins / "to_pod") as program:
        kernel.test_run(program.fd, ethernet(IP(src=PEER[4], dst=POD[4]) / tcp()), context)
    assert veth.reader.wait(5)
    assert len(veth.reader.read()) == 1


def test_flags_of_an_endpoint_survive_the_kernel(veth: Veth) -> None:
    flags = EndpointFlag(0)
    for flag in EndpointFlag:
        flags |= flag
    veth.configure(flags)
    assert veth.maps.read().endpoints[LOOPBACK].flags == flags
