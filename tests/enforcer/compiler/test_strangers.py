"""A pod whose address finds no place is no outsider, whatever addresses the CNI gives."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from enforcer.compiler.addressing import MOST_BLOCKS, Strangers
from enforcer.compiler.compile import Compiler
from enforcer.policy.blocks import Net
from enforcer.policy.changes import NodesChange, PodChange
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import CidrFlag, Dir, Table
from generators.objects import Pod
from generators.reachability.verdicts import Verdict
from tests.enforcer.writes.test_capacity import SMALL, inputs, pod

RANGES = ("10.0.0.0/16", "fd00::/48")


def waiting(*addresses: str) -> Strangers:
    found = Strangers()
    for address in addresses:
        found.put(address, waits=True)
    return found


def blocks(*addresses: str) -> tuple[str, ...]:
    return waiting(*addresses).around(RANGES)


def test_only_what_waits_outside_of_the_ranges_is_meant() -> None:
    assert blocks() == ()
    assert blocks("10.0.7.1", "fd00::7") == ()
    assert blocks("192.168.3.4", "fd01::5", "10.0.7.1") == ("192.168.3.4/32", "fd01::5/128")
    found = waiting("192.168.3.4", "192.168.3.5", "192.168.3.5")
    found.put("192.168.3.4", waits=False)
    assert found.around(RANGES) == ("192.168.3.5/32",)
    assert found.around((*RANGES, "192.168.0.0/16")) == ()
    found.put("192.168.3.5", waits=False)
    found.put("192.168.3.5", waits=False)
    assert found.around(RANGES) == ()


@pytest.mark.parametrize("count", [MOST_BLOCKS // 2, MOST_BLOCKS, 1_000, 20_000])
def test_there_are_few_blocks_and_each_address_is_in_one(count: int) -> None:
    chance = random.Random(count)  # noqa: S311  the same each time
    numbers = [[chance.randrange(1, 255) for _ in range(4)] for _ in range(count // 2)]
    addresses = [".".join(map(str, four)) for four in numbers]
    addresses += [f"{chance.randrange(0x2000, 0xFC00):x}::{n:x}" for n in range(1, count // 2)]
    beyond = [a for a in addresses if not any(Net.of(a).inside(Net.of(r)) for r in RANGES)]
    found = {Net.of(text) for text in blocks(*addresses)}
    for address in beyond:
        net = Net.of(address)
        around = (net.shortened(n) for n in {f.length for f in found if f.length <= net.length})
        assert not found.isdisjoint(around), address
    for version in (4, 6):
        assert len([net for net in found if net.version == version]) <= MOST_BLOCKS
    if count <= MOST_BLOCKS:
        assert {net.text.partition("/")[0] for net in found} == set(beyond)


def beyond(of: Pod, number: int) -> Pod:
    """The pod with an address that no node's ranges hold."""
    return replace(of, ips=(f"172.20.{number}.9",))


def enters(compiler: Compiler, address: str, ifindex: int) -> bool:
    tables = compiler.tables()
    own = tables.endpoints[ifindex].ip4[0]
    packet = EndpointPacket(Dir.INGRESS, own, address, 6, 80)
    return judge(tables, ifindex, packet).verdict is Verdict.FORWARDED


def test_a_tenant_s_pods_without_a_place_do_not_enter_another_tenant() -> None:
    small = {**SMALL, Table.ADDRESSES: 6}
    flood = [beyond(pod("other", f"p{n}", 20 + n, "there"), n) for n in range(9)]
    victim = pod("app", "victim", 90)
    compiler = Compiler("here", limits=small)
    compiler.become(inputs(pods=(victim, *flood)))
    (ifindex,) = compiler.tables().endpoints
    known = compiler.tables().addresses
    assert len([p for p in flood if p.ips[0] not in known]) >= 3
    assert [p.ips[0] for p in flood if enters(compiler, p.ips[0], ifindex)] == []
    # That concerns nobody else: neighbours of theirs are outside of the cluster as ever.
    assert all(enters(compiler, f"172.20.{n}.10", ifindex) for n in range(9))
    # With room for all it is over.
    compiler.apply([PodChange(p.key, None) for p in flood[2:]])
    assert enters(compiler, flood[8].ips[0], ifindex)
    assert not enters(compiler, flood[0].ips[0], ifindex)


def test_ranges_that_nodes_name_later_take_the_place_of_the_blocks() -> None:
    small = {**SMALL, Table.ADDRESSES: 6}
    flood = [beyond(pod("other", f"p{n}", 20 + n, "there"), n) for n in range(9)]
    compiler = Compiler("here", limits=small)
    given = inputs(pods=(pod("app", "victim", 90), *flood))
    compiler.become(given)
    found = compiler.tables().cidrs
    assert {e.flags for k, e in found.items() if k.prefix.startswith("172.")} == {CidrFlag.CROWDED}
    compiler.apply([NodesChange(given.cluster.nodes, ("172.20.0.0/16",))])
    ((key, entry),) = compiler.tables().cidrs.items()
    assert (key.prefix, entry.flags) == ("172.20.0.0/16", CidrFlag.IN_CLUSTER)
