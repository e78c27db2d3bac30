"""Who reaches whom: the questions of a matrix, and its answer as a document.

`ringfence matrix`, the lab's `probe` and the engines share it, so that all of them answer the same
questions.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from generators.addresses import Family
from generators.cluster import Cluster
from generators.objects import Pod
from generators.reachability.ends import (
    BadQuestion,
    Families,
    ends,
    external,
    named_ends,
    one_end,
)
from generators.reachability.packets import Question
from generators.reachability.protocols import NO_PORT, port_text, portless
from generators.reachability.services import SERVICE_PREFIX, selects, target_number
from generators.reachability.verdicts import Cell, Judgement, for_packets

ENGINES = "ringfence.engines"
"""Entry-point group: name -> callable(cluster, questions) that answers every question, in order."""
EVALUATE = "evaluate"

Engine = Callable[[Cluster, Iterable[Question]], Iterable[Cell]]

_PORT = re.compile(r"([0-9]{1,5})(?:/(TCP|UDP|SCTP))?", re.IGNORECASE)
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True, order=True)
class PortProtocol:
    """A destination port: `80/TCP`; or a protocol that has none, with port 0: `ICMP`, `IP/47`."""

    port: int
    protocol: str

    @classmethod
    def parse(cls, text: str) -> PortProtocol:
        """`80/TCP`, `80` (TCP), `ICMP`, `IP/47`."""
        alone = portless(text)
        if alone is not None:
            return cls(NO_PORT, alone)
        found = _PORT.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= _HIGHEST_PORT:
            raise BadQuestion(
                f'"{text}" is no port; write PORT/TCP, PORT/UDP or PORT/SCTP, and of protocols '
                "without ports ICMP, or IP/NUMBER for any other"
            )
        return cls(int(found[1]), (found[2] or "TCP").upper())

    def __str__(self) -> str:
        return port_text(self.port, self.protocol)


def declared_ports(cluster: Cluster, of: Iterable[Pod] | None = None) -> tuple[PortProtocol, ...]:
    """Every port and protocol that pods declare, or that a Service leads to; `of`: at these."""
    pods = cluster.pods if of is None else tuple(of)
    found = {PortProtocol(p.port, p.protocol) for pod in pods for p in pod.ports}
    near: dict[str, list[Pod]] = {}
    for pod in pods if cluster.services else ():
        near.setdefault(pod.namespace, []).append(pod)
    for service in cluster.services:
        backends = [pod for pod in near.get(service.namespace, ()) if selects(service, pod)]
        for port in service.ports:
            numbers = {target_number(pod, port) for pod in backends}
            found |= {PortProtocol(n, port.protocol) for n in numbers if n is not None}
    return tuple(sorted(found))


def service_ports(cluster: Cluster, names: Iterable[str]) -> tuple[PortProtocol, ...]:
    """The ports of the Services among these ends: what a client of them calls."""
    wanted = frozenset(names)
    services = [s for s in cluster.services if SERVICE_PREFIX + s.key in wanted]
    return tuple(PortProtocol(port.port, port.protocol) for s in services for port in s.ports)


@dataclass(frozen=True, slots=True)
class Questions:
    """One question for each ordered pair of ends, port and common family.

    They are made as they are taken, in the order of the cells: all of them at once would not fit.
    """

    sources: Mapping[str, frozenset[Family]]
    destinations: Mapping[str, frozenset[Family]]
    pods: frozenset[str]
    ports: tuple[PortProtocol, ...]

    def __iter__(self) -> Iterator[Question]:
        for source, from_families in self.sources.items():
            for destination, to_families in self.destinations.items():
                if self.is_asked(source, destination):
                    common = sorted(from_families & to_families)
                    for wanted in self.ports:
                        for of in common:
                            yield Question(source, destination, wanted.protocol, wanted.port, of)

    def __len__(self) -> int:
        """How many questions there are."""
        return (
            len(self.ports)
            * sum(
                count * there
                for families, count in Counter(self.sources.values()).items()
                for others, there in Counter(self.destinations.values()).items()
                for _ in families & others
            )
            - self._between_strangers()
        )

    def _between_strangers(self) -> int:
        outside = [self.sources.keys() - self.pods, self.destinations.keys() - self.pods]
        return len(self.ports) * sum(
            len(self.sources[source] & self.destinations[destination])
            for source in outside[0]
            for destination in outside[1]
        )

    def is_asked(self, source: str, destination: str) -> bool:
        """Whether one of the two is a pod: between others, nothing is enforced."""
        return source in self.pods or destination in self.pods


def questions(
    cluster: Cluster,
    ports: Sequence[PortProtocol] = (),
    externals: Sequence[str] = (),
    source: str | None = None,
    destination: str | None = None,
) -> Questions:
    """What a matrix asks.

    Without `ports` every declared one, or those of a Service that is asked about. `source` and
    `destination` narrow the pairs to the ends that they name.
    """
    everyone = ends(cluster)
    pods = frozenset(everyone)
    for address in externals:
        everyone.update(named_ends(cluster, external(address)))
    sources: Families = everyone if source is None else named_ends(cluster, source)
    destinations: Families = everyone if destination is None else named_ends(cluster, destination)
    wanted = set(ports) or service_ports(cluster, destinations) or declared_ports(cluster)
    return Questions(
        sources=dict(sorted(sources.items())),
        destinations=dict(sorted(destinations.items())),
        pods=pods,
        ports=tuple(sorted(wanted, key=lambda port: (port.protocol, port.port))),
    )


def single_question(
    cluster: Cluster, source: str, destination: str, wanted: PortProtocol, of: str | None = None
) -> Question:
    """One question; the family is `of`, or IPv4 where both ends have it."""
    (a, from_families), (b, to_families) = one_end(cluster, source), one_end(cluster, destination)
    common = sorted(from_families & to_families)
    if of is not None and of not in common:
        raise BadQuestion(f"{a} and {b} do not both have an {of} address")
    if not common:
        raise BadQuestion(f"{a} and {b} have no address family in common")
    return Question(a, b, wanted.protocol, wanted.port, Family(of) if of else common[0])


def answer(engine: str, cluster: Cluster, asked: Iterable[Question]) -> Iterable[Cell]:
    """The cells that an engine gives; BadQuestion when it is not installed.

    `evaluate` makes them as they are taken.
    """
    for point in entry_points(group=ENGINES, name=engine):
        found: Engine = point.load()
        return found(cluster, asked)
    raise BadQuestion(
        f'engine "{engine}" is not installed; install the enforcer, or use --engine {EVALUATE}'
    )


def cell_document(cell: Cell) -> dict[str, object]:
    """One cell as `matrix -o json` prints it."""
    return {
        "source": cell.source,
        "destination": cell.destination,
        "protocol": cell.protocol,
        "port": cell.port,
        "family": str(cell.family),
        "verdict": for_packets(cell.verdict).value,
        "egress": judgement_document(cell.egress),
        "ingress": judgement_document(cell.ingress),
    }


def judgement_document(judgement: Judgement) -> dict[str, object]:
    """One direction of a cell."""
    http = judgement.http
    return {
        "verdict": for_packets(judgement.verdict).value,
        "reason": judgement.reason.value,
        "rule": judgement.rule,
        "policies": list(judgement.policies),
        **({"http": [name for name, _ in http.rules]} if http is not None else {}),
    }


def matrix_text(engine: str, assumed: Sequence[str], cells: Iterable[Cell]) -> Iterator[str]:
    """The whole answer of `matrix -o json`, piece by piece; the cells come in their order."""
    yield '{\n  "engine": ' + json.dumps(engine) + ',\n  "assumptions": '
    yield _indented(list(assumed)) + ',\n  "cells": ['
    tails: dict[tuple[object, ...], tuple[Cell, str]] = {}
    mark = "\n"
    for cell in cells:
        # Most cells of a large cluster share their judgements, which are most of the text.
        key = (id(cell.egress), id(cell.ingress), cell.protocol, cell.port, cell.family)
        if key not in tails:
            tails[key] = cell, _tail(cell)
        yield (
            f'{mark}    {{\n      "source": "{cell.source}",\n'
            f'      "destination": "{cell.destination}",{tails[key][1]}'
        )
        mark = ",\n"
    yield "]\n}\n" if mark == "\n" else "\n  ]\n}\n"


def _tail(cell: Cell) -> str:
    """A cell's text from `protocol` on."""
    document = cell_document(cell)
    del document["source"], document["destination"]
    return _indented(document, "    ").removeprefix("{")


def _indented(document: object, by: str = "  ") -> str:
    return json.dumps(document, indent=2, ensure_ascii=False).replace("\n", f"\n{by}")
