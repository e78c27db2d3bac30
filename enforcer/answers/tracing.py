"""`ringfence trace --live`: one packet by what the agent wants, and by what the kernel's maps hold.

The maps are read and interpreted as the programs would, no packet is sent; and a disagreement of
both is the answer that matters most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enforcer.agent.state import NodeState
from enforcer.answers.control import Request
from enforcer.answers.datapath import named
from enforcer.answers.request import Json, NotHere
from enforcer.datapath.engine import asked_of
from enforcer.datapath.maps import Maps
from enforcer.policy.interpret import EndpointPacket, judge
from enforcer.policy.tables import Tables
from generators.commands.trace import document, lines
from generators.documents.json import shown
from generators.reachability.explain import trace
from generators.reachability.matrix import PortProtocol, judgement_document, single_question
from generators.reachability.reference import Evaluator
from generators.reachability.requests import judge as judge_request
from generators.reachability.requests import parse_request
from generators.reachability.verdicts import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class DirectionTrace:
    """One direction at one endpoint of this node."""

    pod: str
    ifindex: int
    packet: EndpointPacket
    wanted: Judgement
    held: Judgement | None
    """None if the maps hold numbers that the agent has no name for."""

    @property
    def agrees(self) -> bool:
        """Whether the kernel does what is wanted."""
        return self.held is not None and (self.wanted.verdict, self.wanted.reason) == (
            self.held.verdict,
            self.held.reason,
        )


def live_trace(request: Request, state: NodeState, maps: Maps, node: str) -> Json:
    """The trace of the agent's own inputs, and what the kernel would do at each end here."""
    cluster = state.cluster()
    if cluster is None:
        raise NotHere("the agent has not read its inputs yet")
    port = PortProtocol.parse(shown(request, "port"))
    question = single_question(
        cluster,
        shown(request, "source"),
        shown(request, "destination"),
        port,
        shown(request, "family") or None,
    )
    evaluator = Evaluator(cluster)
    found = trace(evaluator, question)
    judged = None
    if http := shown(request, "http"):
        headers = [line for line in shown(request, "headers").split("\n") if line]
        asked_for = parse_request(http, headers, shown(request, "host"), port.protocol)
        judged = judge_request(found.cell, asked_for)
    kernel = named(maps.read(), state)
    interfaces = {pod.key: ifindex for ifindex, pod in state.pods.items()}
    checks = [
        DirectionTrace(
            asked.pod,
            ifindex,
            asked.packet,
            judge(state.tables, ifindex, asked.packet),
            _held(kernel, ifindex, asked.packet),
        )
        for asked in asked_of(evaluator, question)
        if (ifindex := interfaces.get(asked.pod)) in state.tables.endpoints and ifindex is not None
    ]
    return {
        **document(found, judged),
        "live": [_document(check) for check in checks],
        "agrees": all(check.agrees for check in checks),
        "text": [*lines(found, judged), "", *_lines(checks, node)],
    }


def _held(kernel: Tables, ifindex: int, packet: EndpointPacket) -> Judgement | None:
    try:
        return judge(kernel, ifindex, packet)
    except KeyError:  # a number that the agent has not given: drift
        return None


def _document(check: DirectionTrace) -> Json:
    return {
        "pod": check.pod,
        "ifindex": check.ifindex,
        "direction": check.packet.direction.name,
        "wanted": judgement_document(check.wanted),
        "kernel": judgement_document(check.held) if check.held is not None else None,
        "agrees": check.agrees,
    }


def _lines(checks: list[DirectionTrace], node: str) -> Iterator[str]:
    if not checks:
        yield f"Neither end is an endpoint of node {node}: ask the agents of their nodes"
        return
    yield f"On node {node}, by its maps:"
    for check in checks:
        told = _words(check.held) if check.held is not None else "unknown numbers"
        yield f"  {check.packet.direction.name.lower()} at {check.pod}: {told}"
        if not check.agrees:
            yield f"  DISAGREEMENT: the agent wants {_words(check.wanted)};"
            yield "  see `ringfence bpf policy list --diff`"


def _words(judgement: Judgement) -> str:
    who = judgement.rule
    if who is None and judgement.verdict is not Verdict.FORWARDED:
        who = ", ".join(judgement.policies) or None
    return f"{judgement.verdict.value} ({judgement.reason.value}{f', {who}' if who else ''})"
