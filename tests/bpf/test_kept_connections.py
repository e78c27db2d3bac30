"""Endpoints whose policies say so keep their open connections; walls and endings count still."""

from __future__ import annotations

import pytest

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import EndpointFlag
from tests.bpf.veth import (
    ISOLATED_BOTH,
    OWN_TENANT,
    PEER,
    POD,
    RULE,
    Veth,
    inward,
    ip,
    outward,
    tcp,
    tcp_back,
)

pytestmark = pytest.mark.bpf
KEEP_IN = ISOLATED_BOTH | EndpointFlag.KEEP_INGRESS
KEEP_OUT = ISOLATED_BOTH | EndpointFlag.KEEP_EGRESS


def open_inward(veth: Veth, family: int, flags: EndpointFlag = KEEP_IN) -> None:
    veth.configure(flags, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    assert veth.from_pod(ip(family, POD, PEER) / tcp_back()).passed


def change(veth: Veth, flags: EndpointFlag) -> None:
    """Policies that let nothing through any more."""
    veth.generation += 1
    veth.configure(flags)


def test_open_connection_outlives_the_rule_that_let_it_in(veth: Veth, family: int) -> None:
    open_inward(veth, family)
    change(veth, KEEP_IN)
    answer = veth.to_pod(ip(family, PEER, POD) / tcp("A"))
    assert (answer.reason, answer.rule) == (ForwardReason.POLICY_ALLOWED, RULE)
    assert veth.from_pod(ip(family, POD, PEER) / tcp_back("A")).reason is ForwardReason.REPLY
    assert not veth.to_pod(ip(family, PEER, POD) / tcp(client_port=40001)).passed


def test_without_the_wish_it_is_cut_both_ways(veth: Veth, family: int) -> None:
    open_inward(veth, family, ISOLATED_BOTH)
    change(veth, ISOLATED_BOTH)
    assert not veth.from_pod(ip(family, POD, PEER) / tcp_back("A")).passed
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed


def test_wish_of_one_direction_is_none_of_the_other(veth: Veth, family: int) -> None:
    open_inward(veth, family)
    change(veth, KEEP_OUT)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed
    veth.configure(KEEP_OUT, outward((80, 6)))
    opened = ip(family, POD, PEER) / tcp(client_port=40002)
    assert veth.from_pod(opened).passed
    change(veth, KEEP_OUT)
    assert veth.from_pod(ip(family, POD, PEER) / tcp("A", client_port=40002)).passed


def test_what_was_cut_is_not_mended_by_a_later_wish(veth: Veth, family: int) -> None:
    open_inward(veth, family, ISOLATED_BOTH)
    change(veth, ISOLATED_BOTH)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed
    change(veth, KEEP_IN)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed


def test_tenant_wall_cuts_all_the_same(veth: Veth, family: int) -> None:
    walled = KEEP_IN | EndpointFlag.WALL
    veth.configure(walled, {**inward((80, 6)), **OWN_TENANT})
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    veth.generation += 1
    veth.configure(walled, OWN_TENANT)
    assert veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed
    change(veth, walled)
    assert veth.to_pod(ip(family, PEER, POD) / tcp("A")).reason is DropReason.TENANT_WALL


def test_new_connection_on_the_ports_of_an_ended_one_is_judged(veth: Veth, family: int) -> None:
    open_inward(veth, family)
    assert veth.to_pod(ip(family, PEER, POD) / tcp("R")).passed
    change(veth, KEEP_IN)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("S")).passed


def test_syn_on_the_ports_of_a_kept_connection_is_judged(veth: Veth, family: int) -> None:
    open_inward(veth, family)
    change(veth, KEEP_IN)
    for _ in range(2):
        assert not veth.to_pod(ip(family, PEER, POD) / tcp("S")).passed
        assert veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed
