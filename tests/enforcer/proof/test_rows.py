"""Deciding for all packets at once says what deciding each of them says, for both layers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from enforcer.datapath.engine import compile_nodes
from enforcer.policy.tables import Dir
from enforcer.proof import entries
from generators.addresses import Family, family
from generators.cluster import Cluster
from generators.objects import Pod
from generators.proof.ends import Ends
from generators.proof.letters import Alphabet, Cuts, cuts_of
from generators.proof.policies import PolicyRows
from generators.proof.rows import Row, members
from generators.reachability.classes import Classes
from generators.reachability.packets import Packet, Party
from generators.reachability.protocols import ECHO_REQUEST, ICMP
from generators.reachability.reference import Evaluator
from generators.reachability.verdicts import Verdict
from tests.enforcer.clusters import clusters

VERDICTS = (Verdict.DROPPED, Verdict.AUDIT, Verdict.REDIRECTED)


def everybody(row: Row) -> int:
    found = 0
    for part in row:
        assert not found & part.ends, "an end is in two parts"
        found |= part.ends
    return found


def verdict(row: Row, end: int, letter: int) -> Verdict:
    for part in row:
        if part.ends >> end & 1:
            named = zip(VERDICTS, part.masks, strict=True)
            return next((v for v, mask in named if mask >> letter & 1), Verdict.FORWARDED)
    raise AssertionError(f"end {end} is in no part")


def residents(cluster: Cluster, evaluator: Evaluator) -> Iterator[tuple[Pod, str]]:
    for address, pod in evaluator.owners.items():
        if address in pod.ips:
            yield pod, address


@pytest.mark.timeout(300)
@given(clusters())
def test_policies_decide_for_all_packets_as_for_each(cluster: Cluster) -> None:
    evaluator, classes = Evaluator(cluster), Classes(cluster)
    for of in Family:
        ends = Ends(evaluator, classes, of)
        alphabet = Alphabet.of(of, cuts_of(cluster, classes.bounds))
        policies = PolicyRows(evaluator, ends, alphabet)
        for pod, address in residents(cluster, evaluator):
            if family(address) is not of:
                continue
            into, out = policies.ingress(pod, address), policies.egress(pod)
            assert everybody(into) == everybody(out) == ends.everybody
            for number, end in enumerate(ends.all):
                for index, letter in enumerate(alphabet.letters):
                    protocol = alphabet.protocol_name(letter.number)
                    if protocol == ICMP and letter.first != ECHO_REQUEST[of]:
                        continue
                    itself = Party(pod.key, address, pod)
                    if not end.masked:
                        enters = Packet(end.party, itself, protocol, letter.first)
                        assert verdict(into, number, index) is evaluator.ingress(enters).verdict
                    leaves = Packet(itself, end.party, protocol, letter.last)
                    assert verdict(out, number, index) is evaluator.egress(leaves).verdict


@pytest.mark.timeout(300)
@given(clusters())
def test_compiled_entries_decide_for_all_packets_as_the_policies(cluster: Cluster) -> None:
    evaluator, classes = Evaluator(cluster), Classes(cluster)
    cuts = cuts_of(cluster, classes.bounds)
    nodes = compile_nodes(cluster)
    for of in Family:
        for name, node in nodes.items():
            alphabet = Alphabet.of(of, cuts | entries.cuts_of(node.tables))
            blocks = entries.blocks_of(node.tables)
            ends = Ends(evaluator, classes, of, node.tables.addresses, blocks)
            policies = PolicyRows(evaluator, ends, alphabet)
            held = entries.Entries(node.tables, ends, alphabet)
            for pod, address in residents(cluster, evaluator):
                if family(address) is not of or pod.node != name:
                    continue
                number = node.interfaces[pod.key]
                for direction, meant in (
                    (Dir.INGRESS, policies.ingress(pod, address)),
                    (Dir.EGRESS, policies.egress(pod)),
                ):
                    found = held.row(direction, pod, number)
                    assert everybody(found) == ends.everybody
                    # Policies are not asked who hides behind an address of an interface alone.
                    unnamed = ends.masked & ~ends.nodes
                    for part in meant:
                        for other in found:
                            for end in members(part.ends & other.ends & ~unnamed):
                                assert part.masks == other.masks, (
                                    direction,
                                    pod.key,
                                    ends.all[end],
                                )
                                break


def test_cuts_of_nothing_leave_whole_protocols() -> None:
    found = Alphabet.of(Family.IPV4, Cuts())
    assert [(each.number, each.first, each.last) for each in found.letters[:2]] == [
        (6, 0, 0),
        (6, 1, 65535),
    ]
