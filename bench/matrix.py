"""`ringfence matrix` of whole clusters: 500 pods under 200 policies, and 2,000 pods as a table.

The baseline asks the evaluator about a sample of the same pairs, each for itself, and is scaled to
all of them; its notes say how many were asked. Memory is the peak of a process that does nothing
else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from bench.measure import Comparison, Scale, Series, Unit, alternate
from generators.cluster import Cluster, from_objects
from generators.manifests import read_bytes
from generators.reachability.matrix import Questions, questions
from generators.reachability.reference import Evaluator

PORTS = (80, 8080, 5432, 6379, 9090)
APPS = ("web", "api", "db", "cache", "job")
TEAMS = 7
PODS_IN_NAMESPACE = 25
SAMPLE = 20_000
RINGFENCE = Path(sys.executable).parent / "ringfence"


def run(scale: Scale) -> Iterator[Comparison]:
    """Seconds of a whole answer, the command's start and the reading of the files included."""
    rounds = scale.of(3, 1)
    for pods, output in ((scale.of(500, 50), "table"), (scale.of(500, 50), "json")):
        yield _compared(pods, scale.of(200, 10), output, rounds)
    yield _compared(scale.of(2000, 60), scale.of(200, 10), "table", rounds)


def _compared(pods: int, policies: int, output: str, rounds: int) -> Comparison:
    text = documents(pods, policies)
    of = from_objects(read_bytes(text, "bench"))
    asked = questions(of)
    peaks: list[int] = []
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(text)
        file.flush()
        samples = alternate(
            {
                "each pair for itself": lambda: [_each(of, asked)],
                "the command": lambda: [_command(file.name, output, peaks)],
            },
            rounds,
        )
    notes = {
        "each pair for itself": {"asked": str(min(SAMPLE, len(asked)))},
        "the command": {"peak memory": f"{max(peaks) >> 10} MiB"},
    }
    return Comparison(
        f"matrix of {pods} pods and {policies} policies as {output}: {len(asked)} cells",
        tuple(Series(n, Unit.SECONDS, found, notes[n]) for n, found in samples.items()),
        aim="500 pods: 5 s and 150 MB; 2,000 pods as a table: 60 s",
    )


def _each(of: Cluster, asked: Questions) -> float:
    """Seconds for all pairs, from those of a sample spread over them."""
    step = max(1, len(asked) // SAMPLE)
    chosen = tuple(islice(asked, 0, None, step))
    start = time.perf_counter()
    evaluator = Evaluator(of)
    for question in chosen:
        evaluator.cell(question)
    return (time.perf_counter() - start) * len(asked) / len(chosen)


_PEAK = (
    "import resource, subprocess, sys; "
    "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def _command(file: str, output: str, peaks: list[int]) -> float:
    command = [sys.executable, "-c", _PEAK, str(RINGFENCE), "matrix", "-f", file, "-o", output]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peaks.append(int(done.stdout))
    return time.perf_counter() - start


def documents(pods: int, policies: int) -> bytes:
    """The objects of a cluster as a stream of JSON; the same on every run."""
    homes = max(1, pods // PODS_IN_NAMESPACE)
    items = [_namespace(n) for n in range(homes)]
    items += [_pod(n, homes) for n in range(pods)]
    items += [_policy(n, homes) for n in range(policies)]
    return "\n".join(map(json.dumps, items)).encode()


def _namespace(number: int) -> dict[str, object]:
    labels = {"team": f"t{number % TEAMS}"}
    return _object("v1", "Namespace", {"name": f"ns{number}", "labels": labels})


def _pod(number: int, homes: int) -> dict[str, object]:
    kind = number % len(APPS)
    meta = {
        "name": f"p{number}",
        "namespace": f"ns{number % homes}",
        "labels": {"app": APPS[kind], "tier": str(number % 3)},
    }
    port = {"containerPort": PORTS[kind], "name": "main"}
    addresses = [f"10.244.{number // 250}.{number % 250 + 2}", f"fd00:10:244::{number + 2:x}"]
    return _object(
        "v1",
        "Pod",
        meta,
        spec={"containers": [{"name": "c", "image": "x", "ports": [port]}]},
        status={"podIPs": [{"ip": address} for address in addresses]},
    )


def _policy(number: int, homes: int) -> dict[str, object]:
    def of(step: int) -> dict[str, object]:
        return {"matchLabels": {"app": APPS[number * step % len(APPS)]}}

    team = {"matchLabels": {"team": f"t{number * 3 % TEAMS}"}}
    peers: Sequence[dict[str, object]] = (
        {"namespaceSelector": team, "podSelector": of(3)},
        {"ipBlock": {"cidr": "10.244.1.0/24"}},
    )
    spec: dict[str, object] = {
        "podSelector": of(1),
        "ingress": [{"from": list(peers), "ports": [{"port": "main"}, {"port": 443}]}],
    }
    if number % 3 == 0:
        spec["egress"] = [{"to": [{"podSelector": {}}]}]
    meta = {"name": f"np{number}", "namespace": f"ns{number % homes}"}
    return _object("networking.k8s.io/v1", "NetworkPolicy", meta, spec=spec)


def _object(api_version: str, kind: str, meta: object, **parts: object) -> dict[str, object]:
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **parts}
