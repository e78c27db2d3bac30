"""What a pod opens across a wall lets nobody in, and what had an address is gone with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.packet import Packet

from enforcer.datapath.flows import DropReason
from enforcer.policy.tables import (
    PEER_TENANT,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    CidrFlag,
    Dir,
    EndpointFlag,
    PolicyKey,
)
from generators.reachability.services import Backend, ServiceKey
from tests.bpf.veth import (
    ADDRESSES,
    ISOLATED,
    OTHER,
    OTHER_IDENTITY,
    OTHER_TENANT,
    OWN_TENANT,
    PEER,
    POD,
    REACH,
    RULE,
    WALLED,
    WORLD,
    Veth,
    echo,
    echo_reply,
    ip,
    tcp,
    tcp_back,
    udp,
)

pytestmark = pytest.mark.bpf

REACHING = WALLED | EndpointFlag.REACH
CLUSTER = {
    "10.9.0.0/16": CidrEntry(1, CidrFlag.IN_CLUSTER),
    "fd09::/64": CidrEntry(2, CidrFlag.IN_CLUSTER),
}
STRANGER = AddressEntry(OTHER_IDENTITY, OTHER_TENANT)

EXCHANGES = [
    pytest.param(lambda family: (udp(), udp(port=40000, client_port=53)), id="UDP"),
    pytest.param(lambda family: (tcp(), tcp_back()), id="TCP"),
    pytest.param(lambda family: (tcp("A"), tcp_back("A")), id="TCP in mid-stream"),
    pytest.param(lambda family: (echo(family), echo_reply(family)), id="echo"),
]
Said = Callable[[int], tuple[Packet, Packet]]
"""What opens, and what answers it, in a family."""


def held(veth: Veth) -> int:
    """How many connections the pod has."""
    return sum(c.endpoint == veth.endpoint for c in veth.maps.connections())


@pytest.mark.parametrize("said", EXCHANGES)
def test_what_the_wall_at_the_other_end_keeps_out_opens_nothing(
    veth: Veth, family: int, said: Said
) -> None:
    """Two pods of two tenants that send to each other at the same moment meet two closed walls."""
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER)
    asked, answered = said(family)
    assert veth.from_pod(ip(family, POD, OTHER) / asked).passed  # to be dropped over there
    assert held(veth) == 0
    answer = veth.to_pod(ip(family, OTHER, POD) / answered)
    assert (answer.passed, answer.reason) == (False, DropReason.TENANT_WALL)


@pytest.mark.parametrize("said", EXCHANGES)
def test_the_own_tenant_answers(veth: Veth, family: int, said: Said) -> None:
    veth.configure(REACHING | ISOLATED, OWN_TENANT, cidrs=CLUSTER)
    asked, answered = said(family)
    assert veth.from_pod(ip(family, POD, PEER) / asked).passed
    assert veth.to_pod(ip(family, PEER, POD) / answered).passed


def test_who_is_granted_something_gets_answers_to_just_that(veth: Veth, family: int) -> None:
    grant = {PolicyKey(REACH, PEER_TENANT | OTHER_TENANT, 53, 17, Dir.EGRESS): RULE}
    veth.configure(REACHING, OWN_TENANT | grant, cidrs=CLUSTER)
    there, back = ip(family, POD, OTHER), ip(family, OTHER, POD)
    assert veth.from_pod(there / udp(53)).passed
    assert veth.to_pod(back / udp(port=40000, client_port=53)).passed
    assert veth.from_pod(there / udp(54)).passed
    assert not veth.to_pod(back / udp(port=40000, client_port=54)).passed


def test_a_wall_that_only_reports_keeps_no_answer_back(veth: Veth, family: int) -> None:
    reporting = AddressEntry(OTHER_IDENTITY, OTHER_TENANT, AddressFlag.AUDIT)
    known = ADDRESSES | {OTHER[family]: reporting}
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER, addresses=known)
    assert veth.from_pod(ip(family, POD, OTHER) / udp()).passed
    assert veth.to_pod(ip(family, OTHER, POD) / udp(port=40000, client_port=53)).passed


@pytest.mark.parametrize("flag", [CidrFlag.CROWDED, CidrFlag.IN_CLUSTER])
def test_who_is_called_where_pods_found_no_place_answers(
    veth: Veth, family: int, flag: CidrFlag
) -> None:
    """It may be somebody outside of the cluster; in the pod ranges it is a pod."""
    nobody = {4: "10.9.0.99", 6: "fd09::99"}
    around = {prefix: CidrEntry(entry.cidr, flag) for prefix, entry in CLUSTER.items()}
    veth.configure(REACHING | ISOLATED, OWN_TENANT, cidrs=around)
    assert veth.from_pod(ip(family, POD, nobody) / udp()).passed
    answer = veth.to_pod(ip(family, nobody, POD) / udp(port=40000, client_port=53))
    assert answer.passed is (flag is CidrFlag.CROWDED)


def test_outside_the_cluster_everybody_answers(veth: Veth, family: int) -> None:
    veth.configure(REACHING | ISOLATED, OWN_TENANT, cidrs=CLUSTER)
    assert veth.from_pod(ip(family, POD, WORLD) / udp()).passed
    assert veth.to_pod(ip(family, WORLD, POD) / udp(port=40000, client_port=53)).passed


def test_an_address_that_is_nobodys_yet_opens_nothing(veth: Veth, family: int) -> None:
    known = {a: e for a, e in ADDRESSES.items() if a != PEER[family]}
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER, addresses=known)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    answer = veth.to_pod(ip(family, PEER, POD) / udp(port=40000, client_port=53))
    assert (answer.passed, answer.reason) == (False, DropReason.UNKNOWN_SENDER)


def test_a_pod_looks_for_few_that_are_nobody(veth: Veth, family: int) -> None:
    """A node that forwards it looks for a neighbour, in a table that all pods share."""
    quota, tries = 32, 200
    known = {a: e for a, e in ADDRESSES.items() if a != PEER[family]}
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER, addresses=known)
    answers = [veth.from_pod(ip(family, POD, PEER) / udp(port=n)) for n in range(1, tries)]
    assert quota <= sum(answer.passed for answer in answers) < tries / 2
    assert {a.reason for a in answers if not a.passed} == {DropReason.DROP_RATE_LIMITED}
    others = [veth.from_pod(ip(family, POD, WORLD) / udp(port=n)) for n in range(1, tries)]
    assert all(answer.passed for answer in others)


@pytest.mark.parametrize("said", EXCHANGES)
@pytest.mark.parametrize("opener", Dir, ids=["it was called", "it called"])
@pytest.mark.parametrize("meanwhile", [False, True], ids=["silent", "keeps sending"])
def test_a_stranger_on_the_address_of_a_friend_is_a_stranger(
    veth: Veth, family: int, said: Said, opener: Dir, meanwhile: bool
) -> None:
    """An address is given back, is nobody's for a moment, and comes to another tenant's pod."""
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER)
    asked, answered = said(family)
    ways = [(veth.from_pod, ip(family, POD, PEER)), (veth.to_pod, ip(family, PEER, POD))]
    (first, there), (second, back) = ways if opener is Dir.EGRESS else ways[::-1]
    assert first(there / asked).passed
    assert second(back / answered).passed
    sends, receives = (asked, answered) if opener is Dir.EGRESS else (answered, asked)
    for entry in (None, STRANGER):
        known = {a: e for a, e in ADDRESSES.items() if a != PEER[family]}
        veth.configure(
            REACHING,
            OWN_TENANT,
            cidrs=CLUSTER,
            addresses=known | ({PEER[family]: entry} if entry else {}),
        )
        if meanwhile:
            veth.from_pod(ip(family, POD, PEER) / sends)
        assert not veth.to_pod(ip(family, PEER, POD) / receives).passed


def test_a_friend_who_stays_keeps_its_connections_when_others_leave(
    veth: Veth, family: int
) -> None:
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    known = {a: e for a, e in ADDRESSES.items() if a != OTHER[family]}
    veth.configure(REACHING, OWN_TENANT, cidrs=CLUSTER, addresses=known)
    answer = veth.to_pod(ip(family, PEER, POD) / udp(port=40000, client_port=53))
    assert answer.passed
    assert not answer.events  # not even judged again


def test_a_service_before_a_walled_backend_opens_nothing(veth: Veth, family: int) -> None:
    services = {
        ServiceKey(WORLD[family], 53, "UDP"): (Backend(OTHER[family], 53),),
        ServiceKey(WORLD[family], 54, "UDP"): (Backend(PEER[family], 53),),
    }
    veth.configure(REACHING | ISOLATED, OWN_TENANT, cidrs=CLUSTER, services=services)
    there, back = ip(family, POD, WORLD), ip(family, WORLD, POD)
    for port, answers in ((53, False), (54, True)):
        assert veth.from_pod(there / udp(port)).passed
        assert veth.to_pod(back / udp(port=40000, client_port=port)).passed is answers
