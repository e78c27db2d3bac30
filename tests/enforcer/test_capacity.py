"""What finds no room is refused as a whole, before anything is written, and names the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enforcer.capacity import PolicyOverflow
from enforcer.changes import Inputs, PodChange, PolicyChange
from enforcer.compile import Compiler, compile_tables
from enforcer.maps import CAPACITY, MapOverflow, Table
from generators.cluster import Cluster
from generators.objects import (
    IPBlock,
    Namespace,
    NetworkPolicy,
    Operator,
    Peer,
    Pod,
    PolicyPort,
    Requirement,
    Rule,
    Selector,
)

WEB = Pod("app", "web", {"app": "web"}, ips=("10.0.0.1",), node="here")
SMALL = {**CAPACITY, Table.POLICY: 10, Table.CIDRS: 10, Table.ADDRESSES: 3}


def ports(count: int, name: str = "big") -> NetworkPolicy:
    """One rule for each of the first ports."""
    rules = tuple(Rule((), (PolicyPort("TCP", port),)) for port in range(1, count + 1))
    return NetworkPolicy("app", name, ingress=rules)


def blocks(count: int) -> NetworkPolicy:
    """One block with so many excepts."""
    excepts = tuple(f"10.{i >> 8}.{i & 255}.0/24" for i in range(count))
    peer = Peer(ip_block=IPBlock("10.0.0.0/8", excepts))
    return NetworkPolicy("app", "blocks", ingress=(Rule((peer,)),))


def inputs(*policies: NetworkPolicy) -> Inputs:
    given = Cluster({"app": Namespace("app")}, (WEB,), policies, pod_cidrs=("10.0.0.0/8",))
    return Inputs(given, {WEB.key: 5})


@pytest.mark.parametrize(
    ("policy", "table", "needed", "entries"),
    [
        pytest.param(ports(11), Table.POLICY, 12, 11, id="ports"),
        pytest.param(blocks(20), Table.CIDRS, 21, 21, id="blocks"),
    ],
)
def test_a_policy_too_large_is_refused_by_name_and_number(
    policy: NetworkPolicy, table: Table, needed: int, entries: int
) -> None:
    compiler = Compiler("here", limits=SMALL)
    compiler.become(inputs(ports(1, "small")))
    compiler.plan()
    compiler.commit()
    compiler.apply([PolicyChange(policy.key, policy)])
    with pytest.raises(
        PolicyOverflow, match=rf"NetworkPolicy {policy.key} needs .* {entries}:"
    ) as e:
        compiler.plan()
    assert (e.value.table, e.value.policy, e.value.entries) == (table, policy.key, entries)
    assert e.value.needed >= needed


def test_what_was_refused_is_written_with_the_change_that_makes_room() -> None:
    compiler = Compiler("here", limits=SMALL)
    compiler.become(inputs(ports(1, "small")))
    compiler.plan()
    compiler.commit()
    compiler.apply([PolicyChange("app/big", ports(11))])
    with pytest.raises(MapOverflow):
        compiler.plan()
    more = replace(WEB, name="more", ips=("10.0.0.2",), node="there")
    compiler.apply([PodChange(more.key, more)])
    with pytest.raises(MapOverflow):
        compiler.plan()
    compiler.apply([PolicyChange("app/big", ports(3))])
    assert {w.table for w in compiler.plan()} >= {Table.POLICY, Table.ADDRESSES, Table.ENDPOINTS}
    compiler.commit()
    assert compiler.plan() == ()


def test_pods_that_find_no_room_are_nobody_s_policy() -> None:
    compiler = Compiler("here", limits=SMALL)
    pods = [replace(WEB, name=f"p{i}", ips=(f"10.0.1.{i}",), node="there") for i in range(4)]
    compiler.apply([PodChange(pod.key, pod) for pod in pods])
    with pytest.raises(MapOverflow, match=r"addr_map .* would need 4 entries and holds 3"):
        compiler.plan()


def test_the_room_that_both_sides_need_during_the_switch_counts() -> None:
    compiler = Compiler("here", limits=SMALL)
    compiler.become(inputs(ports(6)))
    compiler.plan()
    compiler.commit()
    compiler.apply([PolicyChange("app/big", ports(7))])
    with pytest.raises(PolicyOverflow, match="would need 13 entries and holds 10"):
        compiler.plan()


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        pytest.param(ports(10_000), 10_000, id="ten thousand rules"),
        pytest.param(blocks(1_000), 1, id="a thousand excepts"),
    ],
)
def test_a_policy_of_great_size_becomes_its_entries(policy: NetworkPolicy, size: int) -> None:
    given = inputs(policy)
    tables = compile_tables(given.cluster, "here", given.interfaces)
    assert len(tables.policy) == size


def test_a_selector_of_a_thousand_expressions_selects() -> None:
    wanted = tuple(Requirement(f"key-{i}", Operator.NOT_IN, ("a", "b")) for i in range(1000))
    peer = Peer(pod_selector=Selector(wanted))
    policy = NetworkPolicy("app", "p", ingress=(Rule((peer,)),))
    given = inputs(policy)
    assert len(compile_tables(given.cluster, "here", given.interfaces).policy) == 1
