"""The compiled entries say what the reference evaluator says, down to the rule that decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings

from enforcer.datapath import testrun
from enforcer.datapath.engine import Judge, answer, compile_nodes, maps
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import Dir
from generators.addresses import family
from generators.cluster import Cluster
from generators.reachability import packets
from generators.reachability.classes import evaluate
from generators.reachability.packets import Route
from generators.reachability.protocols import WITH_PORTS
from generators.reachability.reference import Evaluator
from generators.reachability.verdicts import Reason, of_backends
from tests.enforcer.clusters import PORTS, clusters, questions


@pytest.mark.timeout(300)  # shrinking a failure takes a while
@given(clusters())
def test_compiled_entries_answer_every_question_as_the_evaluator_does(cluster: Cluster) -> None:
    asked = questions(cluster)
    expected = evaluate(cluster, asked)
    answers = maps(cluster, asked)
    for wanted, found in zip(expected, answers, strict=True):
        assert found == wanted


def calls(cluster: Cluster) -> Iterator[tuple[str, EndpointPacket, Sequence[packets.Packet]]]:
    """Every pod's call to every Service: as its node's programs see it, and at each backend."""
    names = Evaluator(cluster)
    for key in names.services:
        called = names.at_address("called", key.address)
        for pod in cluster.pods:
            for address in pod.ips:
                caller = names.at_address(pod.key, address)
                if caller.pod is not pod or family(address) is not family(key.address):
                    continue
                question = packets.Packet(caller, called, key.protocol, key.port)
                found = [
                    replace(
                        question,
                        destination=names.at_address("backend", backend.address),
                        port=backend.port,
                        route=Route.SERVICE,
                    )
                    for backend in names.backends(question)
                ]
                number = WITH_PORTS[key.protocol]
                seen = EndpointPacket(Dir.EGRESS, address, key.address, number, key.port)
                yield pod.key, seen, found or [question]


def check_calls(cluster: Cluster, judge_packet: Judge) -> None:
    """At the client's hook a Service is the first of its backends that fares worst."""
    names, nodes = Evaluator(cluster), compile_nodes(cluster)
    for pod, seen, backends in calls(cluster):
        answers = [names.egress(packet) for packet in backends]
        wanted = of_backends(answers)
        node = nodes[names.pods[pod].node]
        found = judge_packet(node.tables, node.interfaces[pod], seen)
        # Nothing of an endpoint that is not isolated is looked up, so its own node goes unnamed.
        unnamed = found.reason is Reason.NOT_ISOLATED and wanted.reason is Reason.HOST
        assert found == wanted or unnamed, (pod, seen)


@pytest.mark.timeout(300)
@given(clusters())
def test_a_call_to_a_service_is_judged_by_its_backends_before_one_is_chosen(
    cluster: Cluster,
) -> None:
    check_calls(cluster, judge)


@pytest.fixture(scope="module")
def kernel_judge() -> Iterator[Judge]:
    with testrun.loaded() as judge:
        yield judge


@pytest.mark.bpf
@pytest.mark.timeout(300)
@settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking on the kernel takes minutes
)
@given(cluster=clusters())
def test_the_kernel_answers_every_question_as_the_evaluator_does(
    kernel_judge: Judge, cluster: Cluster
) -> None:
    asked = questions(cluster, PORTS[:4])
    expected = evaluate(cluster, asked)
    answers = answer(cluster, asked, kernel_judge)
    for wanted, found in zip(expected, answers, strict=True):
        assert found == wanted


@pytest.mark.bpf
@pytest.mark.timeout(300)
@settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(cluster=clusters())
def test_the_kernel_judges_a_call_to_a_service_by_its_backends(
    kernel_judge: Judge, cluster: Cluster
) -> None:
    check_calls(cluster, kernel_judge)
