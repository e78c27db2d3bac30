"""At the client's veth the destination still is the ClusterIP: it is judged by its backends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from scapy.packet import Packet

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import (
    PEER_CIDR,
    SERVICE_BACKENDS,
    AddressEntry,
    CidrEntry,
    Dir,
    EndpointFlag,
    PolicyKey,
)
from generators.reachability.services import Backend, ServiceKey
from tests.bpf.veth import (
    ADDRESSES,
    GROUP,
    ISOLATED,
    ISOLATED_BOTH,
    NODE,
    OTHER,
    OTHER_IDENTITY,
    PEER,
    POD,
    READY,
    RULE,
    WORLD,
    Veth,
    echo,
    ip,
    outward,
    tcp,
    tcp_back,
    udp,
)

pytestmark = pytest.mark.bpf

CLUSTER_IP = {4: "10.96.0.7", 6: "fd96::7"}
ANYWHERE = {"0.0.0.0/0": CidrEntry(5), "::/0": CidrEntry(5)}
TO_ANYWHERE = {PolicyKey(GROUP, PEER_CIDR | 5, 0, 0, Dir.EGRESS): RULE + 50}


def service(
    family: int, *backends: tuple[Mapping[int, str], int], port: int = 80
) -> dict[ServiceKey, tuple[Backend, ...]]:
    """A Service on port 80/TCP with these backends."""
    found = tuple(Backend(address[family], number) for address, number in backends)
    return {ServiceKey(CLUSTER_IP[family], port, "TCP"): found}


def call(family: int, segment: Packet | None = None) -> Packet:
    """The client calls the Service."""
    return ip(family, POD, CLUSTER_IP) / (segment if segment is not None else tcp())


@pytest.mark.parametrize(
    ("entry", "passes"),
    [
        pytest.param((8080, 6), True, id="the port of the backend"),
        pytest.param((80, 6), False, id="the port of the Service only"),
        pytest.param((8080, 17), False, id="another protocol"),
    ],
)
def test_rule_about_a_backend_decides(
    veth: Veth, family: int, entry: tuple[int, int], passes: bool
) -> None:
    veth.configure(ISOLATED_BOTH, outward(entry), services=service(family, (PEER, 8080)))
    answer = veth.from_pod(call(family))
    assert answer.reason is (ForwardReason.POLICY_ALLOWED if passes else DropReason.POLICY_DENIED)
    assert answer.rule == (RULE if passes else 0)


def test_every_backend_must_be_allowed(veth: Veth, family: int) -> None:
    behind = service(family, (PEER, 8080), (OTHER, 8080))
    veth.configure(ISOLATED_BOTH, outward((8080, 6)), services=behind)
    assert veth.from_pod(call(family)).reason is DropReason.POLICY_DENIED
    both = {**outward((8080, 6)), **outward((8080, 6), peer=OTHER_IDENTITY)}
    veth.configure(ISOLATED_BOTH, both, services=behind)
    assert veth.from_pod(call(family)).passed


def test_the_last_backend_of_a_full_entry_counts(veth: Veth) -> None:
    pods = {f"10.9.1.{i}": AddressEntry(300 + i) for i in range(SERVICE_BACKENDS)}
    behind = {
        ServiceKey(CLUSTER_IP[4], 80, "TCP"): tuple(Backend(a, 8080) for a in pods),
    }
    opened: dict[PolicyKey, int] = {}
    for entry in pods.values():
        opened |= outward((8080, 6), peer=entry.identity)
    addresses = {**ADDRESSES, **pods}
    veth.configure(ISOLATED_BOTH, opened, addresses=addresses, services=behind)
    assert veth.from_pod(call(4)).passed
    last = outward((8080, 6), peer=300 + SERVICE_BACKENDS - 1)
    without = {k: r for k, r in opened.items() if k not in last}
    veth.configure(ISOLATED_BOTH, without, addresses=addresses, services=behind)
    assert not veth.from_pod(call(4, tcp(client_port=40001))).passed


def test_service_without_room_for_its_backends_is_closed(veth: Veth, family: int) -> None:
    flags = ISOLATED_BOTH | EndpointFlag.USES_CIDR
    closed = {ServiceKey(CLUSTER_IP[family], 80, "TCP"): ()}
    veth.configure(flags, TO_ANYWHERE, cidrs=ANYWHERE, services=closed)
    assert veth.from_pod(call(family)).reason is DropReason.POLICY_DENIED
    veth.configure(flags, TO_ANYWHERE, cidrs=ANYWHERE)
    assert veth.from_pod(call(family)).passed


def test_block_that_holds_only_the_cluster_ip_does_not_open_the_service(veth: Veth) -> None:
    virtual = {"10.96.0.0/16": CidrEntry(5)}
    flags = ISOLATED_BOTH | EndpointFlag.USES_CIDR
    veth.configure(flags, TO_ANYWHERE, cidrs=virtual, services=service(4, (PEER, 8080)))
    assert not veth.from_pod(call(4)).passed
    assert veth.from_pod(call(4, tcp(port=81))).passed  # no Service there: an address like others


def test_backend_outside_the_cluster_is_judged_by_its_block(veth: Veth) -> None:
    world = {"192.0.2.0/24": CidrEntry(5)}
    flags = ISOLATED_BOTH | EndpointFlag.USES_CIDR
    veth.configure(flags, TO_ANYWHERE, cidrs=world, services=service(4, (WORLD, 8080)))
    assert veth.from_pod(call(4)).rule == RULE + 50


def test_backend_on_the_own_node_is_the_node(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED_BOTH, services=service(family, (NODE, 6443)))
    assert veth.from_pod(call(family)).reason is ForwardReason.HOST


def test_pod_behind_its_own_service_is_subject_to_policy(veth: Veth, family: int) -> None:
    behind = service(family, (POD, 8080))
    own = {**ADDRESSES, **{POD[f]: AddressEntry(OTHER_IDENTITY) for f in (4, 6)}}
    veth.configure(ISOLATED_BOTH, addresses=own, services=behind)
    assert not veth.from_pod(call(family)).passed
    opened = outward((8080, 6), peer=OTHER_IDENTITY)
    veth.configure(ISOLATED_BOTH, opened, addresses=own, services=behind)
    assert veth.from_pod(call(family)).passed


def test_pod_whose_egress_is_free_may_call_anything(veth: Veth, family: int) -> None:
    for flags in (READY, ISOLATED):
        veth.configure(flags, services={ServiceKey(CLUSTER_IP[family], 80, "TCP"): ()})
        assert veth.from_pod(call(family)).reason is ForwardReason.NOT_ISOLATED


def test_answer_of_the_service_passes_an_isolated_client(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED_BOTH, outward((8080, 6)), services=service(family, (PEER, 8080)))
    back = ip(family, CLUSTER_IP, POD) / tcp_back()
    assert not veth.to_pod(back).passed  # nobody asked yet
    assert veth.from_pod(call(family)).passed
    assert veth.to_pod(back).reason is ForwardReason.REPLY


@pytest.mark.parametrize("payload", ["datagram", "ping"])
def test_only_the_services_protocol_and_port_are_the_service(
    veth: Veth, family: int, payload: str
) -> None:
    veth.configure(ISOLATED_BOTH, outward((0, 0)), services=service(family, (PEER, 8080)))
    assert veth.from_pod(call(family)).passed
    other = udp(port=80) if payload == "datagram" else echo(family)
    assert not veth.from_pod(call(family, other)).passed


def test_policy_that_refuses_a_backend_cuts_the_open_call(veth: Veth, family: int) -> None:
    behind = service(family, (PEER, 8080))
    veth.configure(ISOLATED_BOTH, outward((8080, 6)), services=behind)
    assert veth.from_pod(call(family)).passed
    veth.generation += 1
    veth.configure(ISOLATED_BOTH, services=behind)
    assert not veth.from_pod(call(family, tcp("A"))).passed
    assert not veth.to_pod(ip(family, CLUSTER_IP, POD) / tcp_back("A")).passed
