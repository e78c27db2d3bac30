"""The engine `maps` of `ringfence matrix`: the reference's questions put to compiled entries.

Each direction is asked on the node of its own pod, as in a real cluster, so a cluster of several
nodes is compiled once for each. Registered under the entry-point group `ringfence.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from enforcer.compiler.compile import compile_tables
from enforcer.datapath.maps import UNLIMITED
from enforcer.policy.changes import is_local
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import ICMP_PORT, Dir, Tables, sizes
from enforcer.writes.capacity import refuse_overflow
from generators.cluster import Cluster
from generators.reachability.packets import Packet, Question
from generators.reachability.protocols import ECHO_REQUEST, ICMP, number
from generators.reachability.reference import Evaluator, cell_of
from generators.reachability.verdicts import Cell, Judgement, Reason, Verdict, worst

NOT_ON_POD_NETWORK = Judgement(Verdict.FORWARDED, Reason.NOT_ISOLATED)

Judge = Callable[[Tables, int, EndpointPacket], Judgement]
"""Tables of a node, the interface that is asked, the packet."""


@dataclass(frozen=True, slots=True)
class CompiledNode:
    """The tables of one node, with the interfaces that its pods have for this purpose."""

    tables: Tables
    interfaces: Mapping[str, int]


def compile_nodes(cluster: Cluster) -> Mapping[str, CompiledNode]:
    """Every node of the cluster (also "", where pods are that no node has yet), by name.

    MapOverflow where one of its maps had no room for all of it: every engine refuses the same.
    """
    nodes = sorted({pod.node for pod in cluster.pods})
    return {node: compile_node(cluster, node) for node in nodes}


def compile_node(cluster: Cluster, node: str) -> CompiledNode:
    """One of them."""
    keys = sorted(pod.key for pod in cluster.pods if is_local(pod, node))
    interfaces = {key: index for index, key in enumerate(keys, start=1)}
    tables = compile_tables(cluster, node, interfaces, limits=UNLIMITED)
    refuse_overflow(sizes(replace(tables, endpoints={})))  # one at a time is asked about
    return CompiledNode(tables, interfaces)


def maps(cluster: Cluster, questions: Iterable[Question]) -> tuple[Cell, ...]:
    """The engine `maps`: an answer for each question, in order."""
    return answer(cluster, questions, judge)


Place = tuple[int, int]
"""Index of a question, and of its packet: to a Service there is one for each backend."""


@dataclass(frozen=True, slots=True)
class PacketSide:
    """One direction of one packet, at the pod whose side it is."""

    node: str
    pod: str
    place: Place
    packet: EndpointPacket


def answer(
    cluster: Cluster, questions: Iterable[Question], judge_packet: Judge
) -> tuple[Cell, ...]:
    """The answers of any judge that reads tables; names of ends mean what they mean to the
    evaluator."""
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
        cell_of(
            question,
            said.get(((index, 0), Dir.EGRESS), NOT_ON_POD_NETWORK),
            worst(
                said.get(((index, packet), Dir.INGRESS), NOT_ON_POD_NETWORK)
                for packet in range(len(packets[index]))
            ),
        )
        for index, question in enumerate(listed)
    )


def asked_of(names: Evaluator, question: Question) -> Iterable[PacketSide]:
    """What each end of one question is asked."""
    return _asked(names, (question,), (names.packets(question),))


def _asked(
    names: Evaluator,
    questions: Sequence[Question],
    packets: Sequence[Sequence[Packet]],
) -> Iterable[PacketSide]:
    """The source's side is asked about what leaves it, a Service's address where one is called."""
    for index, question in enumerate(questions):
        leaving = names.leaving(question)
        if leaving.source.pod is not None:
            yield PacketSide(
                leaving.source.pod.node,
                leaving.source.pod.key,
                (index, 0),
                _packet(Dir.EGRESS, question, leaving),
            )
        for place, found in enumerate(packets[index]):
            if found.destination.pod is not None:
                yield PacketSide(
                    found.destination.pod.node,
                    found.destination.pod.key,
                    (index, place),
                    _arriving(names, question, found),
                )


def _arriving(names: Evaluator, question: Question, found: Packet) -> EndpointPacket:
    arrived = names.arriving(found)
    # A node's address means the node itself here, unless the packet was masqueraded on the way.
    return replace(_packet(Dir.INGRESS, question, arrived), from_socket=arrived is found)


def _packet(direction: Dir, question: Question, found: Packet) -> EndpointPacket:
    ingress = direction is Dir.INGRESS
    own, peer = found.source.address, found.destination.address
    ping = question.protocol == ICMP
    port = ICMP_PORT | ECHO_REQUEST[question.family] if ping else found.port
    return EndpointPacket(
        direction,
        peer if ingress else own,
        own if ingress else peer,
        number(question.protocol, question.family),
        port,
    )
