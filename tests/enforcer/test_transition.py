"""While maps are written entry by entry, every packet meets the old policy or the new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.compile import compile_tables
from enforcer.endpoints import is_local
from enforcer.identity import Registry
from enforcer.interpret import Packet, judge
from enforcer.tables import Dir, Tables
from enforcer.transition import between
from generators.cluster import Cluster
from generators.objects import NetworkPolicy
from tests.enforcer.clusters import EXTERNALS, PORTS, clusters, policies

ONE_NODE = "here"


def on_one_node(cluster: Cluster) -> Cluster:
    return replace(cluster, pods=tuple(replace(p, node=ONE_NODE) for p in cluster.pods))


def interfaces(cluster: Cluster) -> Mapping[str, int]:
    local = sorted(p.key for p in cluster.pods if is_local(p, ONE_NODE))
    return {key: index for index, key in enumerate(local, start=2)}


def steps(previous: Tables, desired: Tables, registry: Registry) -> Iterator[Tables]:
    """Every moment of the switch: additions, addresses, endpoints, addresses, then the rest."""
    middle = between(previous, desired, registry.identities.of)
    now = replace(previous, policy=middle.policy, ranges=middle.ranges, cidrs=middle.cidrs)
    now = replace(
        now,
        rules=middle.rules,
        isolating={**previous.isolating, **desired.isolating},
        walls={**previous.walls, **desired.walls},
    )
    yield now
    for key, backends in middle.services.items():
        now = replace(now, services={**now.services, key: backends})
        yield now
    for address, entry in middle.addresses.items():
        now = replace(now, addresses={**now.addresses, address: entry})
        yield now
    for ifindex, endpoint in desired.endpoints.items():
        now = replace(now, endpoints={**now.endpoints, ifindex: endpoint})
        yield now
    for key, backends in desired.services.items():
        now = replace(now, services={**now.services, key: backends})
        yield now
    for address, entry in desired.addresses.items():
        now = replace(now, addresses={**now.addresses, address: entry})
        yield now
    for prefix in set(middle.cidrs) - set(desired.cidrs):
        now = replace(now, cidrs={p: c for p, c in now.cidrs.items() if p != prefix})
        yield now
    yield desired


def packets(cluster: Cluster, address: str) -> Iterator[Packet]:
    peers = [a for p in cluster.pods for a in p.ips] + list(EXTERNALS)
    peers += [a for s in cluster.services for a in s.cluster_ips]
    for peer in peers:
        if (":" in peer) == (":" in address):
            for direction in Dir:
                for port in PORTS[:3]:
                    yield Packet(direction, address, peer, 6, port)


@pytest.mark.timeout(300)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters().map(on_one_node), st.lists(policies, max_size=5, unique_by=lambda p: p.key))
def test_each_packet_meets_the_old_or_the_new_policy(
    cluster: Cluster, others: list[NetworkPolicy]
) -> None:
    registry, ifindexes = Registry(), interfaces(cluster)
    old = compile_tables(cluster, ONE_NODE, ifindexes, registry)
    changed = replace(cluster, policies=tuple(others))
    new = compile_tables(changed, ONE_NODE, ifindexes, registry, old)
    asked = [
        (ifindex, packet, {judge(t, ifindex, packet).verdict for t in (old, new)})
        for ifindex, endpoint in new.endpoints.items()
        for address in (*endpoint.ip4, *endpoint.ip6)
        for packet in packets(cluster, address)
    ]
    for moment in steps(old, new, registry):
        for ifindex, packet, verdicts in asked:
            assert judge(moment, ifindex, packet).verdict in verdicts, packet
