"""Connection tracking: answers pass, beginnings are judged, and a changed policy is asked again."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping

import pytest

from enforcer.datapath import kernel, layout
from enforcer.datapath.connections import ConnectionFlag, TrackedConnection
from enforcer.datapath.flows import DropReason, EventFlag, ForwardReason
from enforcer.policy.tables import Dir, EndpointFlag, PolicyKey
from tests.bpf.veth import (
    ISOLATED,
    ISOLATED_BOTH,
    LOOPBACK,
    NODE,
    OTHER,
    OWN_TENANT,
    PEER,
    POD,
    READY,
    RULE,
    WALLED,
    Veth,
    echo,
    echo_reply,
    inward,
    ip,
    outward,
    tcp,
    tcp_back,
    udp,
)

pytestmark = pytest.mark.bpf

SECOND = 1_000_000_000


def age(veth: Veth, seconds: float) -> None:
    """Make every connection of the pod look idle for that long, be it since before the boot."""
    with kernel.open_pin(veth.pins / "ct_map") as handle:
        info = kernel.map_info(handle.fd)
        for key, value in kernel.map_dump(handle.fd, info):
            if layout.ConnectionKey.from_buffer_copy(key).endpoint != veth.endpoint:
                continue
            entry = layout.ConnectionValue.from_buffer_copy(value)
            entry.last = entry.last - int(seconds * SECOND)
            kernel.map_update(handle.fd, key, bytes(entry))


def own_connections(veth: Veth) -> list[TrackedConnection]:
    return [c for c in veth.maps.connections() if c.endpoint == veth.endpoint]


def bump(veth: Veth, flags: EndpointFlag, policy: Mapping[PolicyKey, int] | None = None) -> None:
    """Change the policy as the agent does: with a new generation."""
    veth.generation += 1
    veth.configure(flags, policy)


def test_answers_to_what_was_let_in_leave_an_isolated_pod(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED_BOTH, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    answer = veth.from_pod(ip(family, POD, PEER) / tcp_back())
    assert (answer.reason, answer.rule) == (ForwardReason.REPLY, RULE)


def test_answers_to_what_the_pod_opened_enter_it(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    back = ip(family, PEER, POD) / udp(port=40000, client_port=53)
    assert veth.to_pod(back).reason is ForwardReason.REPLY


def test_answers_come_from_whom_was_asked(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    elsewhere = ip(family, OTHER, POD) / udp(port=40000, client_port=53)
    assert veth.to_pod(elsewhere).reason is DropReason.POLICY_DENIED
    other_port = ip(family, PEER, POD) / udp(port=40001, client_port=53)
    assert veth.to_pod(other_port).reason is DropReason.POLICY_DENIED


def test_beginning_is_no_answer_even_where_the_ports_fit(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / tcp()).passed
    assert veth.to_pod(ip(family, PEER, POD) / tcp_back("S")).reason is DropReason.POLICY_DENIED
    assert veth.to_pod(ip(family, PEER, POD) / tcp_back("SA")).reason is ForwardReason.REPLY


def test_echo_request_is_no_answer_to_an_echo_request(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / echo(family)).passed
    assert veth.to_pod(ip(family, PEER, POD) / echo(family)).reason is DropReason.POLICY_DENIED
    assert veth.to_pod(ip(family, PEER, POD) / echo_reply(family)).reason is ForwardReason.REPLY
    foreign = ip(family, PEER, POD) / echo_reply(family, identifier=78)
    assert veth.to_pod(foreign).reason is DropReason.POLICY_DENIED


def test_echo_reply_that_nobody_asked_for_opens_nothing(veth: Veth, family: int) -> None:
    veth.configure(READY)
    assert veth.to_pod(ip(family, PEER, POD) / echo_reply(family)).passed
    assert own_connections(veth) == []


def test_entry_of_one_endpoint_opens_no_other(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    old, veth.endpoint = veth.endpoint, veth.endpoint + 100_000
    veth.configure(ISOLATED)
    back = ip(family, PEER, POD) / udp(port=40000, client_port=53)
    assert veth.to_pod(back).reason is DropReason.POLICY_DENIED
    veth.maps.forget([old])


def test_forgotten_endpoint_leaves_no_connection(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(family, POD, PEER) / udp()).passed
    veth.maps.forget([veth.endpoint])
    assert own_connections(veth) == []
    back = ip(family, PEER, POD) / udp(port=40000, client_port=53)
    assert veth.to_pod(back).reason is DropReason.POLICY_DENIED


def test_changed_policy_cuts_an_open_connection_both_ways(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED_BOTH, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    assert veth.from_pod(ip(family, POD, PEER) / tcp_back()).passed
    bump(veth, ISOLATED_BOTH)
    cut = veth.to_pod(ip(family, PEER, POD) / tcp("A"))
    assert cut.reason is DropReason.POLICY_DENIED
    assert EventFlag.REJUDGED in cut.events[0].flags
    assert not veth.from_pod(ip(family, POD, PEER) / tcp_back("A")).passed
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed


def test_cut_works_when_the_server_speaks_first(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    bump(veth, ISOLATED)
    assert not veth.from_pod(ip(family, POD, PEER) / tcp_back("PA")).passed
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed


def test_wall_raised_later_cuts_too(veth: Veth, family: int) -> None:
    veth.configure(READY)
    assert veth.to_pod(ip(family, OTHER, POD) / tcp()).passed
    bump(veth, WALLED, OWN_TENANT)
    assert veth.to_pod(ip(family, OTHER, POD) / tcp("A")).reason is DropReason.TENANT_WALL
    assert not veth.from_pod(ip(family, POD, OTHER) / tcp_back("A")).passed


def test_connection_that_is_still_allowed_goes_on_under_its_new_rule(
    veth: Veth, family: int
) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).rule == RULE
    bump(veth, ISOLATED, inward((81, 6), (80, 6)))
    again = veth.to_pod(ip(family, PEER, POD) / tcp("A"))
    assert (again.passed, again.rule) == (True, RULE + 1)
    assert EventFlag.REJUDGED in again.events[0].flags
    assert veth.to_pod(ip(family, PEER, POD) / tcp("A")).events == ()


def test_cut_connection_revives_when_the_policy_comes_back(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    bump(veth, ISOLATED)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed
    bump(veth, ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp("A")).passed
    assert veth.from_pod(ip(family, POD, PEER) / tcp_back("A")).reason is ForwardReason.REPLY


def test_replies_go_on_when_isolation_comes_later(veth: Veth, family: int) -> None:
    veth.configure(READY)
    assert veth.from_pod(ip(family, POD, PEER) / tcp()).passed
    bump(veth, ISOLATED)
    assert veth.to_pod(ip(family, PEER, POD) / tcp_back()).reason is ForwardReason.REPLY


TIMEOUTS = [
    pytest.param("syn", 20, id="SYN sent"),
    pytest.param("established", 8000, id="established"),
    pytest.param("fin", 30, id="both FINs seen"),
    pytest.param("rst", 40, id="reset"),
    pytest.param("udp", 60, id="UDP"),
    pytest.param("answered", 180, id="UDP, answered"),
    pytest.param("icmp", 5, id="ICMP"),
]


@pytest.mark.parametrize(("kind", "timeout"), TIMEOUTS)
@pytest.mark.parametrize("late", [False, True], ids=["in time", "too late"])
def test_entries_live_as_long_as_their_state_says(
    veth: Veth, family: int, kind: str, timeout: int, late: bool
) -> None:
    veth.configure(WALLED, OWN_TENANT)  # the wall does not believe in answers without an entry
    there, back = ip(family, POD, OTHER), ip(family, OTHER, POD)
    dialogue = {
        "syn": ([tcp()], []),
        "established": ([tcp(), tcp("A")], [tcp_back()]),
        "fin": ([tcp(), tcp("FA")], [tcp_back(), tcp_back("FA")]),
        "rst": ([tcp()], [tcp_back("RA")]),
        "udp": ([udp()], []),
        "answered": ([udp()], [udp(port=40000, client_port=53)]),
        "icmp": ([echo(family)], []),
    }
    sent, received = dialogue[kind]
    assert veth.from_pod(there / sent[0]).passed
    for segment in received:
        assert veth.to_pod(back / segment).passed
    for segment in sent[1:]:
        assert veth.from_pod(there / segment).passed
    age(veth, timeout + (2 if late else -2))
    datagram = udp(port=40000, client_port=53)
    last = {"udp": datagram, "answered": datagram, "icmp": echo_reply(family)}
    answer = veth.to_pod(back / last.get(kind, tcp_back("A")))
    assert answer.passed is not late


@pytest.fixture
def idle_tcp(veth: Veth) -> Iterator[int]:
    """The agent was told another age."""
    before = veth.maps.idle_tcp
    veth.maps.idle_tcp = 100
    yield 100
    veth.maps.idle_tcp = before


@pytest.mark.parametrize("late", [False, True], ids=["in time", "too late"])
def test_how_long_tcp_may_rest_is_the_agents_to_say(
    veth: Veth, family: int, idle_tcp: int, late: bool
) -> None:
    veth.configure(WALLED, OWN_TENANT)
    assert veth.from_pod(ip(family, POD, OTHER) / tcp()).passed
    assert veth.to_pod(ip(family, OTHER, POD) / tcp_back()).passed
    age(veth, idle_tcp + (2 if late else -2))
    assert [entry.ended for entry in own_connections(veth)] == [late]
    assert veth.to_pod(ip(family, OTHER, POD) / tcp_back("PA")).passed is not late


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_either_direction_keeps_an_entry_alive(veth: Veth, family: int, kind: str) -> None:
    veth.configure(WALLED, OWN_TENANT)
    there, back = ip(family, POD, OTHER), ip(family, OTHER, POD)
    opening, said, answered, allowed = {
        "tcp": (tcp(), tcp("A"), tcp_back("A"), 8000),
        "udp": (udp(), udp(), udp(port=40000, client_port=53), 180),
    }[kind]
    assert veth.from_pod(there / opening).passed
    assert veth.to_pod(back / (tcp_back() if kind == "tcp" else answered)).passed
    for _ in range(2):
        age(veth, allowed - 10)
        assert veth.to_pod(back / answered).passed, "the server, which waits for nothing"
        age(veth, allowed - 10)
        assert veth.from_pod(there / said).passed
    age(veth, allowed - 10)
    assert veth.to_pod(back / answered).reason is ForwardReason.REPLY


def test_an_entry_from_before_the_boot_has_ended(veth: Veth, family: int) -> None:
    """The clock begins at the boot: on a machine of any age an hour ago may be below its zero."""
    veth.configure(WALLED, OWN_TENANT)
    assert veth.from_pod(ip(family, POD, OTHER) / tcp()).passed
    age(veth, time.monotonic() + 3600)
    assert not veth.to_pod(ip(family, OTHER, POD) / tcp_back("A")).passed
    assert [entry.ended for entry in own_connections(veth)] == [True]
    veth.maps.collect()
    assert own_connections(veth) == []


@pytest.mark.parametrize("late", [False, True], ids=["in time", "too late"])
def test_collecting_removes_what_has_ended(veth: Veth, family: int, late: bool) -> None:
    veth.configure(READY)
    assert veth.to_pod(ip(family, PEER, POD) / udp()).passed
    age(veth, 62 if late else 58)
    (entry,) = own_connections(veth)
    assert entry.ended is late
    veth.maps.collect()
    assert bool(own_connections(veth)) is not late


def test_new_syn_on_a_closed_connection_is_a_new_connection(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).events
    assert veth.from_pod(ip(family, POD, PEER) / tcp_back("RA")).passed
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).events


def test_mid_stream_answer_of_the_pods_own_connection_is_adopted(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED | EndpointFlag.GRACE)
    answer = veth.to_pod(ip(family, PEER, POD) / tcp_back("A"))
    assert answer.reason is ForwardReason.REPLY
    assert EventFlag.MID_STREAM in answer.events[0].flags
    (entry,) = own_connections(veth)
    assert (entry.opener, entry.flags) == (
        Dir.EGRESS,
        ConnectionFlag.REPLIED | ConnectionFlag.ADOPTED,
    )


def test_mid_stream_is_refused_where_the_pod_could_not_have_asked(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED_BOTH | EndpointFlag.GRACE, outward((443, 6)))
    refused = veth.to_pod(ip(family, PEER, POD) / tcp_back("A"))
    assert refused.reason is DropReason.POLICY_DENIED
    assert veth.to_pod(ip(family, PEER, POD) / tcp_back("A", port=443)).passed


@pytest.mark.parametrize("flags", ["A", "PA", "", "F", "SA", "R"])
def test_mid_stream_answers_nothing_once_the_pod_is_known(
    veth: Veth, family: int, flags: str
) -> None:
    veth.configure(READY | EndpointFlag.ISOLATED_EGRESS)
    refused = veth.from_pod(ip(family, POD, PEER) / tcp_back(flags))
    assert refused.reason is DropReason.POLICY_DENIED
    assert not own_connections(veth)


@pytest.mark.parametrize("reset", [False, True], ids=["silent", "answered by a reset"])
def test_closed_connection_only_ages_whatever_arrives(veth: Veth, family: int, reset: bool) -> None:
    veth.configure(ISOLATED)
    there, back = ip(family, POD, PEER), ip(family, PEER, POD)
    assert veth.from_pod(there / tcp()).passed
    assert veth.to_pod(back / tcp_back("FA")).passed
    assert veth.from_pod(there / tcp("FA")).passed
    age(veth, 20)
    assert veth.to_pod(back / tcp_back("A")).passed
    if reset:
        assert veth.from_pod(there / tcp("R")).passed
    age(veth, 12)
    assert not veth.to_pod(back / tcp_back("A")).passed


def test_mid_stream_does_not_climb_the_wall(veth: Veth, family: int) -> None:
    veth.configure(WALLED, OWN_TENANT)
    refused = veth.to_pod(ip(family, OTHER, POD) / tcp_back("A"))
    assert refused.reason is DropReason.TENANT_WALL


def test_syn_ack_without_beginning_is_refused_but_for_grace(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp_back("SA")).passed
    veth.configure(ISOLATED | EndpointFlag.GRACE)
    assert veth.to_pod(ip(family, PEER, POD) / tcp_back("SA")).reason is ForwardReason.REPLY


def test_grace_admits_answers_but_no_beginnings(veth: Veth, family: int) -> None:
    veth.configure(WALLED | EndpointFlag.GRACE, OWN_TENANT)
    assert not veth.to_pod(ip(family, OTHER, POD) / tcp("S")).passed
    assert not veth.to_pod(ip(family, OTHER, POD) / echo(family)).passed
    assert veth.to_pod(ip(family, OTHER, POD) / tcp_back("A")).reason is ForwardReason.REPLY


def test_grace_admits_no_datagram_for_none_shows_that_it_answers(veth: Veth, family: int) -> None:
    veth.configure(WALLED | EndpointFlag.GRACE, OWN_TENANT)
    back = ip(family, OTHER, POD) / udp(port=40000, client_port=53)
    assert veth.to_pod(back).reason is DropReason.TENANT_WALL


def test_grace_ends_by_itself_and_rewriting_does_not_prolong_it(veth: Veth) -> None:
    veth.configure(WALLED | EndpointFlag.GRACE, OWN_TENANT)
    with kernel.open_pin(veth.pins / "ep_map") as handle:
        key = LOOPBACK.to_bytes(4, "little")
        stored = kernel.map_lookup(handle.fd, key, ctypes.sizeof(layout.Endpoint))
        assert stored is not None
        entry = layout.Endpoint.from_buffer_copy(stored)
        entry.grace_until = 1
        kernel.map_update(handle.fd, key, bytes(entry))
    bump(veth, WALLED | EndpointFlag.GRACE, OWN_TENANT)
    assert not veth.to_pod(ip(4, OTHER, POD) / tcp_back("SA")).passed


def test_pods_answers_to_its_node_open_nothing(veth: Veth, family: int) -> None:
    veth.configure(WALLED, OWN_TENANT)
    assert veth.from_pod(ip(family, POD, NODE) / tcp_back()).reason is ForwardReason.HOST
    assert own_connections(veth) == []
