"""Rules that deny, where maps have no room or a write fails: nobody enters who would be denied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import PodChange
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import Dir, MapWrite, Tables
from generators.cluster import Cluster
from generators.objects import IPBlock, NetworkPolicy, Peer, Pod, PolicyKind, Rule, Selector
from generators.reachability.verdicts import Reason
from generators.selectors import labels_selector
from tests.enforcer.clusters import EXTERNALS, clusters
from tests.enforcer.compiler.test_sequences import (
    Enforcement,
    Event,
    World,
    named,
    packets,
    steps,
    written,
)
from tests.enforcer.writes.test_capacity import PEER, WEB, pod, ports, started
from tests.enforcer.writes.test_overflow import passes

OPEN = Rule(name="ingress[0]")
LATE = {"app": "guest", "tier": "new"}
GUEST = pod("app", "guest", 3, "there")
TO_WEB = EndpointPacket(Dir.INGRESS, WEB.ips[0], GUEST.ips[0], 6, 80)


def denying(*peers: Peer) -> NetworkPolicy:
    """Everybody enters the namespace's pods, but for these."""
    rules = (Rule(peers, deny=True, name="ingressDeny[0]"), OPEN)
    return NetworkPolicy("app", "deny", ingress=rules, kind=PolicyKind.CILIUM)


def everywhere(pods: Iterable[Pod]) -> Iterable[Peer]:
    return (Peer(labels_selector(p.labels), Selector()) for p in pods)


def test_a_policy_that_denies_and_finds_no_room_takes_one_entry_whomever_others_name() -> None:
    many = [pod("free", f"p{i}", 20 + i, "there") for i in range(30)]
    blocks = tuple(f"100.{i}.0.0/16" for i in range(30))
    compiler = started(
        denying(Peer(ip_block=IPBlock("100.0.0.0/8", blocks, outside=True))),
        NetworkPolicy("app", "many", ingress=(Rule(tuple(everywhere(many))),)),
        ports(3, "small", "other"),
        pods=(WEB, PEER, *many),
    )
    tables = compiler.tables()
    mine, theirs = (tables.endpoints[ifindex].group for ifindex in (5, 6))
    assert [key for key, _ in compiler.allotment.refused] == ["app/cnp:deny"]
    assert len([key for key in tables.policy if key.group == mine]) == 1
    assert len([key for key in tables.policy if key.group == theirs]) == 3
    assert judge(tables, 5, replace(TO_WEB, peer="198.51.100.1")).reason is Reason.POLICY_DENY


def after(tables: Tables, writes: Iterable[MapWrite], desired: Tables) -> Tables:
    for change in writes:
        tables = named(written(tables, change), desired)
    return tables


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(GUEST, labels=LATE), id="other labels that are denied too"),
        pytest.param(replace(GUEST, name="late", labels=LATE, ips=("10.0.0.4",)), id="another pod"),
    ],
)
def test_who_is_denied_does_not_enter_while_the_entry_that_says_so_finds_no_room(
    changed: Pod,
) -> None:
    entering = replace(TO_WEB, peer=changed.ips[0])
    beside = Peer(labels_selector({"tier": "new"}))
    compiler = started(
        denying(Peer(labels_selector({"app": "guest"})), beside), pods=(WEB, PEER, GUEST)
    )
    before = compiler.tables()
    assert not passes(before, 5, entering)
    compiler.apply([PodChange(changed.key, changed)])
    compiler.plan()
    moment = after(before, compiler.urgent(), compiler.tables())
    assert not passes(moment, 5, entering)
    assert passes(moment, 6, EndpointPacket(Dir.INGRESS, PEER.ips[0], "198.51.100.1", 6, 80))


@pytest.mark.timeout(600)
@settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(clusters(), steps)
def test_what_is_written_after_a_failure_lets_nobody_in_whom_neither_side_does(
    cluster: Cluster, history: list[list[Event]]
) -> None:
    world, node = World(cluster), Enforcement()
    node.compiler.become(world.inputs())
    node.write(fresh=False)
    for happened in history:
        for event in happened:
            world.happen(event)
        node.compiler.become(world.inputs())
        check_a_failure(node.compiler, node.maps)
        node.write(fresh=True)


def check_a_failure(compiler: Compiler, before: Tables) -> None:
    compiler.plan()
    desired = compiler.tables()
    sides = (named(before, desired), named(desired, before))
    moment = after(sides[0], compiler.urgent(), desired)
    peers = sorted({*before.addresses, *desired.addresses, *EXTERNALS})
    for ifindex, endpoint in moment.endpoints.items():
        for packet in packets(endpoint, peers):
            if passes(moment, ifindex, packet):
                assert any(passes(side, ifindex, packet) for side in sides), packet
