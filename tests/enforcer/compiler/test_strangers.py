"""A pod whose address finds no place is no outsider, whatever addresses the CNI gives."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from enforcer.compiler.addressing import FIRST_BLOCKS, MOST_BLOCKS, Strangers
from enforcer.compiler.compile import Compiler
from enforcer.policy.blocks import Net
from enforcer.policy.changes import NodesChange, PodChange
from enforcer.policy.interpret import Packet, judge
from enforcer.policy.tables import Dir, Table
from generators.objects import Pod
from generators.reachability.verdicts import Verdict
from tests.enforcer.writes.test_capacity import SMALL, inputs, pod

RANGES = ("10.0.0.0/16", "fd00::/48")


def blocks(*addresses: str, ranges: Iterable[str] = RANGES) -> tuple[str, ...]:
    found = Strangers()
    for address in addresses:
        found.put(address, waits=True)
    return found.around(ranges)


def test_only_what_waits_outside_of_the_ranges_is_surrounded() -> None:
    assert blocks() == ()
    assert blocks("10.0.7.1", "fd00::7") == ()
    assert blocks("192.168.3.4", "fd01:2:3:4::5") == ("192.168.3.0/24", "fd01:2:3:4::/64")
    found = Strangers()
    found.put("192.168.3.4", waits=True)
    found.put("192.168.3.5", waits=True)
    found.put("192.168.3.4", waits=False)
    assert found.around(RANGES) == ("192.168.3.0/24",)
    found.put("192.168.3.5", waits=False)
    found.put("192.168.3.5", waits=False)
    assert found.around(RANGES) == ()


@pytest.mark.parametrize("seed", range(5))
def test_there_are_few_blocks_and_each_address_is_in_one(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  the same each time
    addresses = [".".join(str(chance.randrange(1, 255)) for _ in range(4)) for _ in range(300)]
    addresses += [f"{chance.randrange(0x2000, 0xFFFF):x}::{n}" for n in range(1, 300)]
    beyond = [a for a in addresses if not any(Net.of(a).inside(Net.of(r)) for r in RANGES)]
    found = [Net.of(text) for text in blocks(*addresses)]
    assert all(any(Net.of(address).inside(net) for net in found) for address in beyond)
    for version in FIRST_BLOCKS:
        assert len([net for net in found if net.version == version]) <= MOST_BLOCKS


def beyond(of: Pod, number: int) -> Pod:
    """The pod with an address that no node's ranges hold."""
    return replace(of, ips=(f"172.20.{number}.9",))


def enters(compiler: Compiler, address: str, ifindex: int) -> bool:
    tables = compiler.tables()
    own = tables.endpoints[ifindex].ip4[0]
    packet = Packet(Dir.INGRESS, own, address, 6, 80)
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
    # Whoever is outside of the blocks around them is outside of the cluster as ever.
    assert enters(compiler, "203.0.113.7", ifindex)
    # With room for all, the blocks are outside again.
    compiler.apply([PodChange(p.key, None) for p in flood[2:]])
    assert enters(compiler, "172.20.8.77", ifindex)
    assert not enters(compiler, flood[0].ips[0], ifindex)


def test_ranges_that_nodes_name_later_take_the_place_of_the_blocks() -> None:
    small = {**SMALL, Table.ADDRESSES: 6}
    flood = [beyond(pod("other", f"p{n}", 20 + n, "there"), n) for n in range(9)]
    compiler = Compiler("here", limits=small)
    given = inputs(pods=(pod("app", "victim", 90), *flood))
    compiler.become(given)
    wide = {key.prefix for key in compiler.tables().cidrs}
    assert any(prefix.startswith("172.") for prefix in wide)
    compiler.apply([NodesChange(given.cluster.nodes, ("172.20.0.0/16",))])
    assert {key.prefix for key in compiler.tables().cidrs} == {"172.20.0.0/16"}
