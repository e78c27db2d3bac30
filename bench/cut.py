"""From a changed policy to the end of an open connection, in a real lab with a real agent.

The time includes the whole command `ringfence lab apply`, from its start; the baseline is the same
command when there is nothing to change.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from bench.traffic import ADDRESSES, CLIENT, NAMESPACE, PORT, SERVER, Node, enforced, lab, serving

DENY = "deny"
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": DENY, "namespace": NAMESPACE},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
}


def run(scale: Scale) -> Iterator[Comparison]:
    """Requests follow each other until one has no answer; the last answer is the end."""
    with ExitStack() as stack:
        node = stack.enter_context(enforced())
        stack.enter_context(serving(node))
        path = Path(stack.enter_context(TemporaryDirectory(prefix="ringfence-bench-")), "deny.json")
        path.write_text(json.dumps(POLICY))
        turns: dict[str, Turn] = {
            "the command alone": lambda: _without_change(node, path),
            "until the last answer": lambda: _until_cut(node, path),
        }
        samples = alternate(turns, scale.of(10, 1))
    yield Comparison(
        "From a policy change to the cut of an open connection",
        tuple(Series(name, Unit.SECONDS, found) for name, found in samples.items()),
    )


def _without_change(node: Node, path: Path) -> Sequence[float]:
    lab("apply", node.places, "-f", str(path))
    start = time.perf_counter()
    lab("apply", node.places, "-f", str(path))
    took = time.perf_counter() - start
    lab("delete", node.places, "-f", str(path))
    return (took,)


def _until_cut(node: Node, path: Path) -> Sequence[float]:
    command = node.command(CLIENT, "pulse", ADDRESSES[SERVER][0], str(PORT))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as pulse:
        if pulse.stdout is None or not pulse.stdout.readline():
            raise RuntimeError("the connection did not open")
        start = time.monotonic()
        lab("apply", node.places, "-f", str(path))
        last = float(json.loads(pulse.stdout.read()))
    lab("delete", node.places, "-f", str(path))
    return (last - start,)
