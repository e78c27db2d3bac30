"""A pod whose state is not known is closed, whatever its policies will say."""

from __future__ import annotations

import pytest

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import EndpointFlag, Tables
from generators.reachability.verdicts import Verdict
from tests.bpf.veth import PEER, POD, READY, Veth, echo, ip, tcp, udp

pytestmark = pytest.mark.bpf


def test_interface_without_endpoint_is_closed_both_ways(veth: Veth, family: int) -> None:
    veth.put(Tables())
    inward = veth.to_pod(ip(family, PEER, POD) / tcp())
    outward = veth.from_pod(ip(family, POD, PEER) / tcp())
    assert (inward.passed, inward.reason) == (False, DropReason.DROP_EP_NOT_READY)
    assert (outward.passed, outward.reason) == (False, DropReason.DROP_EP_NOT_READY)
    assert inward.events[0].source == PEER[family]


def test_endpoint_that_is_not_ready_is_closed(veth: Veth, family: int) -> None:
    veth.configure(EndpointFlag(0))
    answer = veth.to_pod(ip(family, PEER, POD) / tcp())
    assert answer.reason is DropReason.DROP_EP_NOT_READY


@pytest.mark.parametrize("protocol", ["tcp", "udp", "echo"])
def test_ready_endpoint_without_policy_is_open(veth: Veth, family: int, protocol: str) -> None:
    payload = {"tcp": tcp(), "udp": udp(), "echo": echo(family)}[protocol]
    veth.configure(READY)
    inward = veth.to_pod(ip(family, PEER, POD) / payload)
    outward = veth.from_pod(ip(family, POD, PEER) / payload)
    assert (inward.passed, inward.reason) == (True, ForwardReason.NOT_ISOLATED)
    assert outward.passed


def test_first_packet_of_a_connection_is_news_and_the_next_is_not(veth: Veth, family: int) -> None:
    veth.configure(READY)
    first = veth.to_pod(ip(family, PEER, POD) / tcp("S"))
    second = veth.to_pod(ip(family, PEER, POD) / tcp("A"))
    assert [(e.verdict, e.destination_port) for e in first.events] == [(Verdict.FORWARDED, 80)]
    assert second.events == ()
