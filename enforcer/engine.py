"""The engine `maps` of `ringfence matrix`: the reference's questions put to compiled entries.

Each direction is asked on the node of its own pod, as in a real cluster, so a cluster of several
nodes is compiled once for each. Registered under the entry-point group `ringfence.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from enforcer.compile import compile_tables
from enforcer.endpoints import is_local
from enforcer.identity import Registry
from enforcer.interpret import Packet, judge
from enforcer.ports import PROTOCOLS
from enforcer.tables import Dir, Tables
from generators.cluster import Cluster
from generators.reachability import Evaluator, Question
from generators.verdicts import Cell, Judgement, Reason, Verdict

NOT_ON_POD_NETWORK = Judgement(Verdict.FORWARDED, Reason.NOT_ISOLATED)
WORST_FIRST = (Verdict.DROPPED, Verdict.AUDIT, Verdict.FORWARDED)

Judge = Callable[[Tables, int, Packet], Judgement]
"""Tables of a node, the interface that is asked, the packet."""


@dataclass(frozen=True, slots=True)
class CompiledNode:
    """The tables of one node, with the interfaces that its pods have for this purpose."""

    tables: Tables
    interfaces: Mapping[str, int]


def compile_nodes(cluster: Cluster) -> Mapping[str, CompiledNode]:
    """Every node of the cluster (also "", where pods are that no node has yet), by name."""
    nodes = sorted({pod.node for pod in cluster.pods})
    return {node: _compile_node(cluster, node) for node in nodes}


def _compile_node(cluster: Cluster, node: str) -> CompiledNode:
    keys = sorted(pod.key for pod in cluster.pods if is_local(pod, node))
    interfaces = {key: index for index, key in enumerate(keys, start=1)}
    return CompiledNode(compile_tables(cluster, node, interfaces, Registry()), interfaces)


def maps(cluster: Cluster, questions: Iterable[Question]) -> tuple[Cell, ...]:
    """The engine `maps`: an answer for each question, in order."""
    return answer(cluster, questions, judge)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One direction of one question, at the pod whose side it is."""

    node: str
    pod: str
    number: int
    packet: Packet


def answer(
    cluster: Cluster, questions: Iterable[Question], judge_packet: Judge
) -> tuple[Cell, ...]:
    """The answers of any judge that reads tables; names of ends mean what the evaluator says."""
    listed = tuple(questions)
    nodes = compile_nodes(cluster)
    said: dict[tuple[int, Dir], Judgement] = {}
    # Node by node and pod by pod, because a judge that fills real maps does not like to switch.
    for asked in sorted(_asked(cluster, listed), key=lambda a: (a.node, a.pod)):
        node = nodes[asked.node]
        found = judge_packet(node.tables, node.interfaces[asked.pod], asked.packet)
        said[asked.number, asked.packet.direction] = found
    return tuple(
        _cell(
            question,
            said.get((number, Dir.EGRESS), NOT_ON_POD_NETWORK),
            said.get((number, Dir.INGRESS), NOT_ON_POD_NETWORK),
        )
        for number, question in enumerate(listed)
    )


def _asked(cluster: Cluster, questions: Sequence[Question]) -> Iterable[_Asked]:
    names = Evaluator(cluster)
    for number, question in enumerate(questions):
        source = names.party(question.source, question.family)
        destination = names.party(question.destination, question.family)
        for direction, subject, peer in (
            (Dir.EGRESS, source, destination),
            (Dir.INGRESS, destination, source),
        ):
            if subject.pod is not None:
                packet = Packet(
                    direction,
                    subject.address,
                    peer.address,
                    PROTOCOLS[question.protocol],
                    question.port,
                    # A node's address means the node itself here, not what hides behind it.
                    from_socket=True,
                )
                yield _Asked(subject.pod.node, subject.pod.key, number, packet)


def _cell(question: Question, egress: Judgement, ingress: Judgement) -> Cell:
    return Cell(
        question.source,
        question.destination,
        question.protocol,
        question.port,
        question.family,
        next(v for v in WORST_FIRST if v in (egress.verdict, ingress.verdict)),
        egress,
        ingress,
    )
