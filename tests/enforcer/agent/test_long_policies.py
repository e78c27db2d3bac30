"""Long policies come and go by steps: on the way nobody is judged otherwise, and at the end all is
as if they had come at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.agent import backlog
from enforcer.agent.backlog import Backlog
from enforcer.compiler.compile import compile_tables
from enforcer.policy import prefixes
from enforcer.policy.changes import (
    NOTHING,
    BlocksChange,
    InputChange,
    Inputs,
    PolicyChange,
    between,
)
from enforcer.policy.tables import Table, Tables
from generators.cluster import Cluster
from generators.objects import IPBlock, Namespace, NetworkPolicy, Peer, Pod, PolicyPort, Rule
from tests.enforcer.clusters import EXTERNALS, clusters, policies
from tests.enforcer.compiler.test_sequences import (
    NODE,
    Enforcement,
    Event,
    Gone,
    Restart,
    World,
    events,
    meaning,
    named,
    packets,
    policy_keys,
)
from tests.enforcer.compiler.test_sequences import is_open as is_open_to

more_policies = st.one_of(policies, policies, st.builds(Gone, policy_keys), events)
histories = st.lists(
    st.lists(more_policies.filter(lambda event: not isinstance(event, Restart)), max_size=3),
    min_size=1,
    max_size=4,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever names a block is long, and each block is a step."""
    monkeypatch.setattr(backlog, "LONG", 0)
    monkeypatch.setattr(backlog, "STEP", 1)
    monkeypatch.setattr(prefixes, "LINGERS", 0)


def check_that_all_is_judged_as_before(before: Tables, after: Tables) -> None:
    before, after = named(before, after), named(after, before)
    peers = sorted({*before.addresses, *after.addresses, *EXTERNALS})
    for ifindex, endpoint in before.endpoints.items():
        for packet in packets(endpoint, peers):
            assert is_open_to(before, ifindex, packet) == is_open_to(after, ifindex, packet), packet


class Node:
    """An agent's loop without an agent: each turn is written before the next."""

    def __init__(self) -> None:
        self.kernel = Enforcement()
        self.backlog = Backlog(NODE, self.kernel.compiler)
        self._now = 0.0

    def turn(self, changes: Iterable[InputChange] = ()) -> tuple[InputChange, ...]:
        """What was taken in."""
        self._now += 10
        taken = self.backlog.admit(changes, self._now)
        if taken:
            before = self.kernel.maps
            self.kernel.compiler.apply(taken)
            self.kernel.write(fresh=False)
            if all(isinstance(change, BlocksChange) for change in taken):
                check_that_all_is_judged_as_before(before, self.kernel.maps)
        return taken


@pytest.mark.timeout(600)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(clusters(), histories)
def test_steps_change_no_verdict_and_end_where_one_change_would(
    cluster: Cluster, history: list[list[Event]]
) -> None:
    world, node = World(cluster), Node()
    before = counts = NOTHING
    for happened in ([], *history):
        for event in happened:
            world.happen(event)
        now = world.inputs()
        node.turn(between(before, now))
        before, counts = now, world.keeping_policies_of_the_dying(counts)
        while node.turn():
            pass
        fresh = compile_tables(counts.cluster, NODE, counts.interfaces)
        assert meaning(node.kernel.maps) == meaning(fresh)


POOL = ("0.0.0.0/0", "192.0.0.0/8", "192.0.2.0/24", "192.0.2.0/31", "192.0.2.1/32", "10.0.0.0/8")
some_blocks = st.lists(st.sampled_from(POOL), min_size=1, max_size=5, unique=True)
lists_of_blocks = st.builds(
    NetworkPolicy,
    namespace=st.just("n1"),
    name=st.sampled_from("abc"),
    ingress=st.lists(
        st.builds(
            Rule,
            peers=some_blocks.map(lambda cidrs: tuple(Peer(ip_block=IPBlock(c)) for c in cidrs)),
            ports=st.sampled_from(((PolicyPort("TCP", 80),), (PolicyPort("UDP", 81),))),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
)


@pytest.mark.timeout(600)
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(lists_of_blocks, st.sampled_from("abc")), min_size=1, max_size=8))
def test_lists_that_overlap_come_and_go_in_any_order(history: list[NetworkPolicy | str]) -> None:
    node, there = one_pod(), dict[str, NetworkPolicy]()
    for event in history:
        key = f"n1/{event}" if isinstance(event, str) else event.key
        policy = None if isinstance(event, str) else event
        there.pop(key, None)
        if policy is not None:
            there[key] = policy
        node.turn([PolicyChange(key, policy)])
        while node.turn():
            pass
        cluster = replace(ALONE, policies=tuple(there.values()))
        fresh = compile_tables(cluster, NODE, {INHABITANT.key: 5})
        assert meaning(node.kernel.maps) == meaning(fresh)
        check_that_all_is_judged_as_before(fresh, node.kernel.maps)


BLOCKS = 40
INHABITANT = Pod("n1", "x", ips=("10.0.0.1",), node=NODE)
ALONE = Cluster({"n1": Namespace("n1")}, (INHABITANT,), pod_cidrs=("10.0.0.0/8",))


def listed(name: str, first: int) -> NetworkPolicy:
    cidrs = (f"100.64.{first + n}.0/24" for n in range(BLOCKS))
    return NetworkPolicy(
        "n1", name, ingress=(Rule(tuple(Peer(ip_block=IPBlock(cidr)) for cidr in cidrs)),)
    )


def one_pod() -> Node:
    node = Node()
    node.turn(between(NOTHING, Inputs(ALONE, {INHABITANT.key: 5})))
    return node


def prefixes_in_force(node: Node) -> int:
    return sum(key.prefix.startswith("100.") for key in node.kernel.maps.cidrs)


def test_a_policy_is_in_force_with_one_write_for_a_number_of_blocks_that_are_there() -> None:
    node, policy = one_pod(), listed("a", 0)
    node.turn([PolicyChange(policy.key, policy)])
    there = prefixes_in_force(node)
    while PolicyChange(policy.key, policy) not in node.turn():
        there += 1
        assert prefixes_in_force(node) == there
        assert not node.kernel.maps.isolating
    assert there == BLOCKS
    numbers = {e.cidr for k, e in node.kernel.maps.cidrs.items() if k.prefix.startswith("100.")}
    assert len(numbers) == 1


def test_a_policy_that_is_gone_is_out_of_force_at_once_and_its_blocks_go_by_steps() -> None:
    node, policy = one_pod(), listed("a", 0)
    node.turn([PolicyChange(policy.key, policy)])
    while node.turn():
        pass
    node.turn([PolicyChange(policy.key, None)])
    assert not node.kernel.maps.isolating
    left = prefixes_in_force(node)
    assert left == BLOCKS
    while node.turn():
        assert prefixes_in_force(node) == left - 1
        left -= 1
    assert not left


def test_a_policy_that_says_something_else_before_all_its_blocks_came_leaves_none() -> None:
    node = one_pod()
    for first in (0, 100):
        policy = listed("a", first)
        node.turn([PolicyChange(policy.key, policy)])
        node.turn()
        node.turn()
    while node.turn():
        pass
    assert prefixes_in_force(node) == BLOCKS
    assert {key.prefix for key in node.kernel.maps.cidrs} >= {"100.64.100.0/24", "100.64.139.0/24"}


def test_a_policy_that_would_find_no_room_brings_no_block() -> None:
    node = one_pod()
    node.kernel.compiler.allotment.room[Table.CIDRS] = BLOCKS // 2
    policy = listed("a", 0)
    node.turn([PolicyChange(policy.key, policy)])
    while node.turn():
        assert not prefixes_in_force(node)
    assert node.kernel.compiler.allotment.refused


def test_nothing_lingers_where_nobody_asks_for_steps() -> None:
    kernel, policy = Enforcement(), listed("a", 0)
    Backlog(NODE, kernel.compiler)
    kernel.compiler.apply(between(NOTHING, Inputs(ALONE, {INHABITANT.key: 5})))
    kernel.compiler.apply([PolicyChange(policy.key, policy)])
    kernel.write(fresh=False)
    kernel.compiler.apply([PolicyChange(policy.key, None)])
    kernel.write(fresh=False)
    assert not [key for key in kernel.maps.cidrs if key.prefix.startswith("100.")]
