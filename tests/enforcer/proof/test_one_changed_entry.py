"""One entry of a node's maps is not as it should be: it is noticed, and the kernel agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import pytest

from enforcer.answers.datapath import differences
from enforcer.datapath import testrun
from enforcer.datapath.engine import CompiledNode, compile_node
from enforcer.policy.interpret import EndpointPacket
from enforcer.policy.tables import (
    PEER_TENANT,
    AddressEntry,
    Dir,
    EndpointFlag,
    PolicyKey,
)
from enforcer.proof.prove import ENTRIES, MAPS, Counterexample, Flaw, Proof, Prover
from generators.reachability.verdicts import Verdict
from tests.enforcer.proof.mutations import HERE, cluster, mutated

A_THOUSAND = 1000


@cache
def compiled() -> CompiledNode:
    return compile_node(cluster(), HERE)


@cache
def changes() -> tuple[tuple[str, CompiledNode], ...]:
    """A thousand of them, of every kind."""
    every = list(mutated(compiled()))
    assert len(every) >= A_THOUSAND
    step = len(every) / A_THOUSAND
    return tuple(every[int(index * step)] for index in range(A_THOUSAND))


def proven(held: CompiledNode) -> Proof:
    prover = Prover(cluster())
    prover.decide(HERE, {ENTRIES: compiled(), MAPS: held})
    return prover.proof()


@pytest.fixture(scope="module")
def kernel() -> Iterator[testrun.TestRuns]:
    with testrun.loaded() as found:
        yield found


def test_what_was_compiled_keeps_tenants_apart() -> None:
    found = proven(compiled())
    assert (found.apart, found.agrees, found.counterexamples) == (True, True, ())
    assert found.classes > A_THOUSAND


@pytest.mark.timeout(600)
def test_any_of_a_thousand_changed_entries_is_noticed() -> None:
    drifted = [what for what, held in changes() if differences(held.tables, compiled().tables)]
    assert len(drifted) == A_THOUSAND
    # Not every entry decides about a packet by itself: others may say the same.
    disputed = sum(not proven(held).agrees for _, held in changes()[::4])
    assert disputed > A_THOUSAND / 4 / 3


@pytest.mark.bpf
@pytest.mark.timeout(600)
def test_the_kernel_says_of_each_counterexample_what_the_proof_says(
    kernel: testrun.TestRuns,
) -> None:
    """And where the proof finds no packet, the kernel judges none of a sample otherwise."""
    seen = 0
    for what, held in changes()[::10]:
        found = proven(held)
        for example in found.counterexamples:
            verdict = replayed(kernel, held, example)
            if verdict is not None:
                assert verdict is dict(example.said)[MAPS], (what, example)
                seen += 1
        if found.agrees:
            for subject, packet in sample():
                number = held.interfaces[subject]
                wanted = kernel.verdict(compiled().tables, number, packet)
                assert kernel.verdict(held.tables, number, packet) is wanted, (what, packet)
    assert seen > 50


def replayed(
    kernel: testrun.TestRuns, held: CompiledNode, example: Counterexample
) -> Verdict | None:
    """None for what cannot be made: test runs send pings alone of ICMP."""
    ping = {1: 256 | 8, 58: 256 | 128}
    if example.packet.protocol in ping and example.packet.port != ping[example.packet.protocol]:
        return None
    return kernel.verdict(held.tables, held.interfaces[example.subject], example.packet)


def sample() -> Iterator[tuple[str, EndpointPacket]]:
    """Every pod of the node and every pod, either way, to some ports."""
    pods = cluster().pods
    for pod in pods:
        for other in pods:
            if pod.node != HERE or pod is other:
                continue
            for port in (80, 8080, 5432):
                for direction in Dir:
                    yield pod.key, EndpointPacket(direction, pod.ips[0], other.ips[0], 6, port)


def with_hole(groups: Sequence[int], peer: int, port: int) -> CompiledNode:
    """One more entry in each of these groups of green."""
    node = compiled()
    more = {PolicyKey(group, peer, port, 6, Dir.INGRESS): 1 for group in groups}
    return replace(node, tables=replace(node.tables, policy={**node.tables.policy, **more}))


def number_of(tenant: str) -> int:
    return next(n for n, name in compiled().tables.tenants.items() if name == tenant)


def smallest(held: CompiledNode) -> Counterexample:
    found = proven(held)
    assert not found.apart
    return found.counterexamples[0]


def test_a_hole_in_a_wall_alone_opens_nothing_while_a_policy_isolates() -> None:
    green = compiled().tables.endpoints[compiled().interfaces["green/web"]]
    blue = PEER_TENANT | number_of("blue")
    assert proven(with_hole([green.wall], blue, 7777)).agrees
    assert proven(with_hole([green.group], blue, 7777)).agrees


def test_a_hole_in_wall_and_policies_is_the_smallest_packet_through_it() -> None:
    green = compiled().tables.endpoints[compiled().interfaces["green/web"]]
    found = smallest(with_hole([green.wall, green.group], PEER_TENANT | number_of("blue"), 7777))
    assert (found.source, found.destination) == ("blue/api", "green/web")
    assert (found.protocol, found.port, found.family) == ("TCP", 7777, "IPv4")
    assert dict(found.said) == {
        "policies": Verdict.DROPPED,
        "entries": Verdict.DROPPED,
        "maps": Verdict.FORWARDED,
    }


def test_an_address_that_became_another_tenants_opens_both() -> None:
    node = compiled()
    thief = next(pod for pod in cluster().pods if pod.key == "blue/api")
    victim = next(pod for pod in cluster().pods if pod.key == "green/api")
    entry = node.tables.addresses[victim.ips[0]]
    assert isinstance(entry, AddressEntry)
    addresses = {**node.tables.addresses, thief.ips[0]: entry}
    found = smallest(replace(node, tables=replace(node.tables, addresses=addresses)))
    assert (found.source, found.destination, found.kind) == ("blue/api", "green/web", Flaw.OPEN)


def test_a_wall_that_is_off_lets_everybody_in() -> None:
    node = compiled()
    number = node.interfaces["blue/web"]
    entry = node.tables.endpoints[number]
    bare = replace(entry, flags=entry.flags & ~(EndpointFlag.WALL | EndpointFlag.ISOLATED_INGRESS))
    endpoints = {**node.tables.endpoints, number: bare}
    found = proven(replace(node, tables=replace(node.tables, endpoints=endpoints)))
    open_to = {each.source_tenant for each in found.counterexamples if each.kind is Flaw.OPEN}
    assert open_to == {"red", "green", None}


def test_an_endpoint_that_is_gone_is_closed_and_disputed() -> None:
    node = compiled()
    number = node.interfaces["blue/web"]
    rest = {k: v for k, v in node.tables.endpoints.items() if k != number}
    found = proven(replace(node, tables=replace(node.tables, endpoints=rest)))
    assert found.apart
    assert not found.agrees
