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
from enforcer.tables import Dir, Tables
from generators import reachability
from generators.cluster import Cluster
from generators.protocols import number
from generators.reachability import Evaluator, Question, is_hairpin, worst
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


Place = tuple[int, int]
"""Index of a question, and of its packet: to a Service there is one for each backend."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One direction of one packet, at the pod whose side it is."""

    node: str
    pod: str
    place: Place
    packet: Packet


def answer(
    cluster: Cluster, questions: Iterable[Question], judge_packet: Judge
) -> tuple[Cell, ...]:
    """The answers of any judge that reads tables; names of ends mean what the evaluator says."""
    listed = tuple(questions)
    names = Evaluator(cluster)
    packets = [names.packets(question) for question in listed]
    nodes = compile_nodes(cluster)
    said: dict[tuple[Place, Dir], Judgement] = {}
    # Node by node and pod by pod, because a judge that fills real maps does not like to switch.
    for asked in sorted(_asked(names, listed, packets), key=lambda a: (a.node, a.pod)):
        node = nodes[asked.node]
        found = judge_packet(node.tables, node.interfaces[asked.pod], asked.packet)
        said[asked.place, asked.packet.direction] = found
    return tuple(
        worst(
            _cell(
                question,
                said.get(((index, packet), Dir.EGRESS), NOT_ON_POD_NETWORK),
                said.get(((index, packet), Dir.INGRESS), NOT_ON_POD_NETWORK),
            )
            for packet in range(len(packets[index]))
        )
        for index, question in enumerate(listed)
    )


def _asked(
    names: Evaluator,
    questions: Sequence[Question],
    packets: Sequence[Sequence[reachability.Packet]],
) -> Iterable[_Asked]:
    for index, question in enumerate(questions):
        for place, found in enumerate(packets[index]):
            hairpin = is_hairpin(found)
            for direction, subject, peer in (
                (Dir.EGRESS, found.source, found.destination),
                (Dir.INGRESS, found.destination, names.arriving(found).source),
            ):
                if subject.pod is None:
                    continue
                packet = Packet(
                    direction,
                    subject.address,
                    peer.address,
                    number(question.protocol, question.family),
                    found.port,
                    # A node's address means the node itself here, not what hides behind it.
                    from_socket=not hairpin,
                )
                yield _Asked(subject.pod.node, subject.pod.key, (index, place), packet)


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
