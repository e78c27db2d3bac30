"""The engine `maps` of `ringfence matrix`: the reference's questions put to compiled entries.

Each direction is asked on the node of its own pod, as in a real cluster, so a cluster of several
nodes is compiled once for each. Registered under the entry-point group `ringfence.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from enforcer.compile import compile_tables
from enforcer.endpoints import is_local
from enforcer.identity import Registry
from enforcer.interpret import Packet, judge
from enforcer.ports import PROTOCOLS
from enforcer.tables import Dir, Tables
from generators.cluster import Cluster
from generators.reachability import Evaluator, Party, Question
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


def compile_nodes(cluster: Cluster, first_interface: int = 1) -> Mapping[str, CompiledNode]:
    """Every node of the cluster (also "", where pods are that no node has yet), by name."""
    nodes = sorted({pod.node for pod in cluster.pods})
    return {node: _compile_node(cluster, node, first_interface) for node in nodes}


def _compile_node(cluster: Cluster, node: str, first_interface: int) -> CompiledNode:
    keys = sorted(pod.key for pod in cluster.pods if is_local(pod, node))
    interfaces = {key: index for index, key in enumerate(keys, start=first_interface)}
    return CompiledNode(compile_tables(cluster, node, interfaces, Registry()), interfaces)


def maps(cluster: Cluster, questions: Iterable[Question]) -> tuple[Cell, ...]:
    """The engine: an answer for each question, in order."""
    return answer(cluster, questions, compile_nodes(cluster), judge)


def answer(
    cluster: Cluster,
    questions: Iterable[Question],
    nodes: Mapping[str, CompiledNode],
    judge_packet: Judge,
) -> tuple[Cell, ...]:
    """The answers of any judge that reads tables; names of ends mean what the evaluator says."""
    names = Evaluator(cluster)

    def ask(subject: Party, peer: Party, direction: Dir, question: Question) -> Judgement:
        if subject.pod is None:
            return NOT_ON_POD_NETWORK
        node = nodes[subject.pod.node]
        packet = Packet(
            direction,
            subject.address,
            peer.address,
            PROTOCOLS[question.protocol],
            question.port,
            # A node's address in a question stands for the node itself, not for what hides behind.
            from_socket=True,
        )
        return judge_packet(node.tables, node.interfaces[subject.pod.key], packet)

    def cell(question: Question) -> Cell:
        source = names.party(question.source, question.family)
        destination = names.party(question.destination, question.family)
        egress = ask(source, destination, Dir.EGRESS, question)
        ingress = ask(destination, source, Dir.INGRESS, question)
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

    return tuple(cell(question) for question in questions)
