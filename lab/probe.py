"""`lab probe`: the questions of `ringfence matrix`, answered by real connections.

The verdict comes from the packets. Reason, rule and policies come from the kernel's own flow events
about exactly these packets, found by their addresses and ports; without a running agent the events
are not read, and the cells say null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from generators.addresses import Family, family
from generators.cluster import from_objects
from generators.reachability.ends import BadQuestion
from generators.reachability.grid import Style, grid_text, table_of
from generators.reachability.matrix import PortProtocol, judgement_document, questions
from generators.reachability.packets import Question
from generators.reachability.verdicts import Cell, Judgement, Reason, Verdict
from lab import prober
from lab.evidence import Connection, Evidence, Witness, flow_witness
from lab.pods import Running
from lab.prober import SILENCE_SECONDS, Outcome, Probe
from lab.responder import TYPES
from lab.view import View

ENGINE = "packets"
BATCH = 800
"""Questions between two looks at the agent's flows, of which it remembers a few thousand."""
SELF = Judgement(Verdict.FORWARDED, Reason.SELF)

UNSEEN = Judgement(Verdict.FORWARDED, Reason.NOT_ISOLATED)
"""A table's cell for a direction without an event; tables show no such reasons."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answered question; a judgement is None without a flow event."""

    question: Question
    verdict: Verdict
    egress: Judgement | None
    ingress: Judgement | None

    def document(self) -> dict[str, object]:
        """The cell as `probe -o json` prints it."""
        question = self.question
        return {
            "source": question.source,
            "destination": question.destination,
            "protocol": question.protocol,
            "port": question.port,
            "family": str(question.family),
            "verdict": self.verdict.value,
            "egress": None if self.egress is None else judgement_document(self.egress),
            "ingress": None if self.ingress is None else judgement_document(self.ingress),
        }

    def cell(self) -> Cell:
        """The same for the table of `ringfence matrix`."""
        question = self.question
        return Cell(
            question.source,
            question.destination,
            question.protocol,
            question.port,
            question.family,
            self.verdict,
            self.egress or UNSEEN,
            self.ingress or UNSEEN,
        )


def askable(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Those that the prober can ask: TCP and UDP."""
    return tuple(question for question in questions if question.protocol in TYPES)


def ask(
    pods: Sequence[Running],
    questions: Sequence[Question],
    witness: Witness,
    silence: float = SILENCE_SECONDS,
) -> Iterator[Finding]:
    """The answers, in the order of the questions."""
    by_name = {item.pod.key: item for item in pods}
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        probes = [_probe(by_name, question) for question in batch]
        outcomes = prober.run(probes, silence)
        connections = [_connection(*pair) for pair in zip(probes, outcomes, strict=True)]
        seen = witness([c for q, c in zip(batch, connections, strict=True) if not _is_self(q)])
        for question, connection, outcome in zip(batch, connections, outcomes, strict=True):
            yield _finding(question, outcome, seen.get(connection, Evidence()))


def _finding(question: Question, outcome: Outcome, evidence: Evidence) -> Finding:
    if _is_self(question):
        evidence = Evidence(SELF, SELF)
    verdict = Verdict.FORWARDED if outcome.arrived else Verdict.DROPPED
    audited = {j.verdict for j in (evidence.egress, evidence.ingress) if j is not None}
    if outcome.arrived and Verdict.AUDIT in audited:
        verdict = Verdict.AUDIT
    return Finding(question, verdict, evidence.egress, evidence.ingress)


def _probe(pods: Mapping[str, Running], question: Question) -> Probe:
    source, destination = pods[question.source], pods[question.destination]
    return Probe(
        source.netns,
        destination.site(),
        _address(destination, question.family),
        question.protocol,
        question.port,
    )


def _connection(probe: Probe, outcome: Outcome) -> Connection:
    return Connection(
        probe.protocol,
        outcome.source_address,
        outcome.source_port,
        probe.address,
        probe.port,
    )


def _address(item: Running, wanted: Family) -> str:
    return next(ip for ip in item.pod.ips if family(ip) is wanted)


def _is_self(question: Question) -> bool:
    return question.source == question.destination


def matrix(
    view: View,
    ports: Sequence[str] = (),
    source: str | None = None,
    destination: str | None = None,
    silence: float = SILENCE_SECONDS,
) -> tuple[tuple[Finding, ...], int]:
    """Answers to the questions of `ringfence matrix`, and how many the prober cannot ask."""
    cluster = from_objects(view.documents)
    wanted = [PortProtocol.parse(port) for port in ports]
    asked = tuple(questions(cluster, wanted, (), source, destination))
    pods = view.pods
    strangers = {name for q in asked for name in (q.source, q.destination)}
    strangers -= {item.pod.key for item in pods}
    if strangers:
        raise BadQuestion(
            f"{min(strangers)} is no running pod of this lab, and the prober asks from pod to pod; "
            "`ringfence lab exec NS/POD -- COMMAND` can try anything else"
        )
    chosen = askable(asked)
    agents = [home.places.enforcer_run for home in view.homes]
    findings = ask(pods, chosen, flow_witness(agents), silence)
    return tuple(findings), len(asked) - len(chosen)


def document(findings: Sequence[Finding]) -> dict[str, object]:
    """As `probe -o json` prints it."""
    return {"engine": ENGINE, "cells": [finding.document() for finding in findings]}


def table(findings: Sequence[Finding], style: Style, encoding: str) -> str:
    """The same grids that `ringfence matrix` draws."""
    return "".join(grid_text(table_of(finding.cell() for finding in findings), style, encoding))
