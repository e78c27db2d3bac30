"""What Cilium's engine and ours say of the same policies.

The engine is a program outside of this repository that reads a question a line and answers a line:
`{"id", "objects", "external", "ports"}` -> `{"valid", "errors", "cells"}`. What may surprise: of
several policies one that is invalid makes the whole case invalid there, as it does in files here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from generators.cluster import from_objects
from generators.errors import InputError
from generators.manifests import read_bytes
from generators.reachability.matrix import PortProtocol, answer, questions
from generators.reachability.verdicts import Verdict
from tests.oracle.policies import EXTERNALS, PORTS, Document, world

ALLOWED, DENIED, INVALID = ".", "x", "invalid"
TIMEOUT = 600


def asked(program: Path, cases: Sequence[Sequence[Document]]) -> list[str]:
    """What the engine says of each case: INVALID, or a letter for each direction of each cell."""
    base = world()
    lines = [
        json.dumps(
            {
                "id": str(index),
                "objects": [*base, *case],
                "external": EXTERNALS,
                "ports": PORTS,
            }
        )
        for index, case in enumerate(cases)
    ]
    done = subprocess.run(
        [str(program)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return [_theirs(json.loads(line)) for line in done.stdout.splitlines()]


def _theirs(found: Document) -> str:
    if not found["valid"]:
        return INVALID
    cells = sorted(found["cells"], key=_place)
    return "".join(
        ALLOWED if cell[side] == "allowed" else DENIED
        for cell in cells
        for side in ("egress", "ingress")
    )


def _place(cell: Document) -> tuple[str, ...]:
    names = ("source", "destination", "protocol", "port", "family")
    return tuple(f"{cell[name]:>6}" if name == "port" else str(cell[name]) for name in names)


def packed(answer: str) -> str:
    """An answer as the table holds it: a bit for each letter, set where it is denied."""
    if answer == INVALID:
        return answer
    return f"{int(''.join('1' if letter == DENIED else '0' for letter in answer), 2):x}"


def ours(case: Iterable[Document], engine: str = "evaluate") -> str:
    """What one of our engines says, in the same letters."""
    items = {"apiVersion": "v1", "kind": "List", "items": [*world(), *case]}
    try:
        cluster = from_objects(read_bytes(json.dumps(items).encode(), "case.json"))
    except InputError:
        return INVALID
    wanted = [PortProtocol.parse(port) for port in PORTS]
    cells: list[Document] = [
        {
            "source": cell.source,
            "destination": cell.destination,
            "protocol": cell.protocol,
            "port": cell.port,
            "family": str(cell.family),
            "sides": (cell.egress.verdict, cell.ingress.verdict),
        }
        for cell in answer(engine, cluster, questions(cluster, wanted, EXTERNALS))
        if cell.source != cell.destination
    ]
    return "".join(
        DENIED if verdict is Verdict.DROPPED else ALLOWED
        for cell in sorted(cells, key=_place)
        for verdict in cell["sides"]
    )
