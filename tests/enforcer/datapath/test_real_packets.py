"""Real packets between pods: what is allowed arrives, what is not does not and says why."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from enforcer.datapath import attach, kernel
from enforcer.datapath.flows import DropReason, FlowReader, ForwardReason
from enforcer.datapath.maps import Maps
from enforcer.policy.tables import PEER_TENANT, Dir, EndpointFlag, PolicyKey
from generators.reachability.verdicts import Verdict
from lab.netns import inside
from tests.enforcer.datapath.pods import (
    FAMILIES,
    NODE,
    PORT,
    Cluster,
    Pod,
    calling,
    command,
    connected,
    give,
    identity,
    listen,
    wait_for_event,
)
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.bpf

ISOLATED = EndpointFlag.ISOLATED_INGRESS
TENANT, OTHER_TENANT = 7, 8


def lets_in(client: Pod, server: Pod, port: int = PORT) -> dict[PolicyKey, int]:
    """One entry of the server's policy group."""
    return {PolicyKey(server.number, identity(client), port, 6, Dir.INGRESS): 1}


def reaches(client: Pod, server: Pod, family: int) -> bool:
    with (
        listen(server.namespace, family, socket.SOCK_STREAM),
        calling(client.namespace, family, server.address[family]) as call,
    ):
        return connected(call)


def refused(
    events: FlowReader, client: Pod, server: Pod, family: int
) -> DropReason | ForwardReason:
    """The reason of the drop that a connection attempt meets; the attempt itself never succeeds."""
    with (
        listen(server.namespace, family, socket.SOCK_STREAM),
        calling(client.namespace, family, server.address[family]) as call,
    ):
        record = wait_for_event(
            events,
            lambda r: r.verdict is Verdict.DROPPED and r.destination == server.address[family],
            "a drop",
        )
        assert not connected(call, timeout=0)
    return record.reason


def test_pod_without_state_is_closed(
    client: Pod, server: Pod, family: int, events: FlowReader
) -> None:
    """It does not even answer its neighbours: the first drop is one of their questions."""
    with calling(client.namespace, family, server.address[family]) as call:
        record = wait_for_event(events, lambda r: r.ifindex == server.ifindex, "a drop")
        assert record.reason is DropReason.DROP_EP_NOT_READY
        assert not connected(call, timeout=0)


def test_allowed_client_connects_and_a_stranger_does_not(
    cluster: Cluster, client: Pod, server: Pod, family: int, events: FlowReader
) -> None:
    stranger = cluster.pod()
    cluster.enforce({server.number: ISOLATED}, lets_in(client, server))
    assert reaches(client, server, family)
    assert refused(events, stranger, server, family) is DropReason.POLICY_DENIED


def test_udp_is_judged_and_answered(
    cluster: Cluster, client: Pod, server: Pod, family: int
) -> None:
    both = EndpointFlag.ISOLATED_INGRESS | EndpointFlag.ISOLATED_EGRESS
    entry = {PolicyKey(server.number, identity(client), PORT, 17, Dir.INGRESS): 1}
    cluster.enforce({server.number: both}, entry)
    with (
        listen(server.namespace, family, socket.SOCK_DGRAM) as answering,
        listen(client.namespace, family, socket.SOCK_DGRAM, 0) as asking,
    ):
        asking.settimeout(patience(10))
        answering.settimeout(patience(10))
        asking.sendto(b"question", (server.address[family], PORT))
        question, sender = answering.recvfrom(100)
        answering.sendto(b"answer", sender)
        assert (question, asking.recv(100)) == (b"question", b"answer")


def test_the_wall_keeps_another_tenant_out(
    cluster: Cluster, client: Pod, server: Pod, family: int, events: FlowReader
) -> None:
    other = cluster.pod()
    own = {PolicyKey(server.number, PEER_TENANT | TENANT, 0, 0, Dir.INGRESS): 1}
    tenants = {client.number: TENANT, server.number: TENANT, other.number: OTHER_TENANT}
    cluster.enforce({server.number: EndpointFlag.WALL}, own, tenants)
    assert reaches(client, server, family)
    assert refused(events, other, server, family) is DropReason.TENANT_WALL


def test_answers_arrive_after_isolation(
    cluster: Cluster, client: Pod, server: Pod, family: int
) -> None:
    cluster.enforce({server.number: EndpointFlag(0)})
    with (
        listen(client.namespace, family, socket.SOCK_STREAM) as listening,
        calling(server.namespace, family, client.address[family]) as call,
    ):
        assert connected(call)
        accepted, _ = listening.accept()
        cluster.enforce({server.number: ISOLATED})
        with accepted:
            accepted.sendall(b"late answer")
            call.settimeout(patience(10))
            assert call.recv(100) == b"late answer"


def test_changed_policy_cuts_an_open_connection(
    cluster: Cluster, client: Pod, server: Pod, family: int, events: FlowReader
) -> None:
    cluster.enforce({server.number: ISOLATED}, lets_in(client, server))
    with (
        listen(server.namespace, family, socket.SOCK_STREAM) as listening,
        calling(client.namespace, family, server.address[family]) as call,
    ):
        assert connected(call)
        accepted, _ = listening.accept()
        accepted.setblocking(False)
        cluster.enforce({server.number: ISOLATED})
        with accepted:
            call.sendall(b"too late")
            accepted.send(b"this too")
            seen: set[Dir] = set()
            while seen != set(Dir):
                record = wait_for_event(
                    events, lambda r: r.reason is DropReason.POLICY_DENIED, "drops both ways"
                )
                seen.add(record.direction)
            with pytest.raises(BlockingIOError):
                accepted.recv(100)


def test_node_reaches_its_pods_from_a_local_socket(
    cluster: Cluster, server: Pod, family: int
) -> None:
    both = EndpointFlag.ISOLATED_INGRESS | EndpointFlag.ISOLATED_EGRESS | EndpointFlag.WALL
    cluster.enforce({server.number: both})
    with (
        listen(server.namespace, family, socket.SOCK_STREAM),
        calling(cluster.node, family, server.address[family]) as probe,
    ):
        assert connected(probe)


def test_pod_reaches_its_node(cluster: Cluster, server: Pod, family: int) -> None:
    cluster.enforce({server.number: EndpointFlag.ISOLATED_EGRESS | EndpointFlag.WALL})
    with (
        listen(cluster.node, family, socket.SOCK_STREAM),
        calling(server.namespace, family, NODE[family]) as call,
    ):
        assert connected(call)


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.parametrize("masked_may_enter", [False, True], ids=["closed", "allowMasked"])
def test_masked_source_is_not_the_node(
    cluster: Cluster,
    client: Pod,
    server: Pod,
    family: int,
    events: FlowReader,
    masked_may_enter: bool,
) -> None:
    flags = EndpointFlag.WALL
    if masked_may_enter:
        flags |= EndpointFlag.ALLOW_MASKED
    cluster.enforce({server.number: flags}, {}, {server.number: TENANT})
    name = "ip" if family == 4 else "ip6"
    rules = f"""table {name} rft {{
        chain out {{
            type nat hook postrouting priority 100
            oifname {server.interface} {name} saddr {client.address[family]} snat to {NODE[family]}
        }}
    }}"""
    with inside(cluster.node):
        command("nft", rules)
    if masked_may_enter:
        assert reaches(client, server, family)
        return
    assert refused(events, client, server, family) is DropReason.UNKNOWN_SENDER


def test_forged_source_does_not_leave_the_pod(
    cluster: Cluster, client: Pod, server: Pod, family: int, events: FlowReader
) -> None:
    cluster.enforce({server.number: EndpointFlag(0)})
    forged = {4: "10.9.0.99", 6: "fd09::99"}[family]
    give(server.namespace, "eth0", forged)
    with inside(server.namespace):
        forger = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    with forger:
        forger.bind((forged, 0))
        forger.sendto(b"from another", (client.address[family], PORT))
        record = wait_for_event(events, lambda r: r.source == forged, "a forged source")
    assert record.reason is DropReason.INVALID_SOURCE_IP


def test_frame_that_ends_within_the_ip_header_is_malformed(
    cluster: Cluster, server: Pod, events: FlowReader
) -> None:
    """Only a real interface takes such a frame; a test run refuses it."""
    cluster.enforce({server.number: ISOLATED})
    for length in (15, 20, 33):
        with inside(cluster.node):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with raw:
            raw.bind((server.interface, 0))
            with pytest.raises(OSError, match="buffer space"):  # how a drop looks to the sender
                raw.send((bytes(12) + b"\x08\x00" + b"\x45" + bytes(40))[:length])
        record = wait_for_event(events, lambda r: r.ethertype == 0x0800, "a stump")
        assert record.reason is DropReason.INVALID_PACKET_DROPPED


def test_counts_of_a_connection_are_exact(
    cluster: Cluster, client: Pod, server: Pod, datapath_pins: Path
) -> None:
    cluster.enforce({server.number: ISOLATED}, lets_in(client, server))
    with Maps.open(datapath_pins) as maps:
        maps.forget([server.number])
        assert reaches(client, server, 4)

        def both_ways() -> bool:
            counted = {(s.direction, s.reason) for s in maps.statistics() if s.rule == 1}
            return counted >= {
                (Dir.INGRESS, ForwardReason.POLICY_ALLOWED),
                (Dir.EGRESS, ForwardReason.REPLY),
            }

        eventually(both_ways, "counts of both directions")


def test_program_is_found_by_its_id(cluster: Cluster, server: Pod) -> None:
    with inside(cluster.node):
        mode = attach.attached(cluster.pins, server.interface)
        hooks = [kernel.hook_programs(server.ifindex, hook) for hook in kernel.Hook]
    assert mode is attach.AttachMode.TCX
    assert [len(programs) for programs in hooks] == [1, 1]
