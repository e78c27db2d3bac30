"""Requests that pass Kyverno policies: 1, 20 and 200 of them, beside the webhook without policies.

Every policy adds a label whose value is a variable, and every one concerns the request, so that
each sees what the one before left: the worst case. In the last series 199 of 200 are about another
kind.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measure import Comparison, Scale, Series, Unit, alternate
from bench.parts import cluster
from bench.webhook import RINGFENCE, START_SECONDS, Server, notes_of, serving, turn_of
from tests.testbed.waiting import eventually

POLICY = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {{name: label-{number:03}}}
spec:
  rules:
  - name: label
    match: {{any: [{{resources: {{kinds: [{kind}]}}}}]}}
    preconditions: {{all: [{{key: "{{{{request.operation}}}}", operator: Equals, value: CREATE}}]}}
    mutate:
      patchStrategicMerge:
        metadata: {{labels: {{label-{number:03}: "{{{{request.object.metadata.name}}}}"}}}}
"""


def run(scale: Scale) -> Iterator[Comparison]:
    """One connection, then four, as fast as they go."""
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "tenants.yaml").write_bytes(cluster.tenant_file(scale.of(100, 5)))
        certificates = ["webhook", "certificates", "--directory", name, "--host", "127.0.0.1"]
        subprocess.run([str(RINGFENCE), *certificates], check=True)
        subjects = {
            "no policies": [],
            "1 policy": ["Namespace"],
            "20 policies": ["Namespace"] * scale.of(20, 2),
            "200 policies": ["Namespace"] * scale.of(200, 3),
            "200 policies, 1 about this kind": ["Namespace", *["Pod"] * scale.of(199, 2)],
        }
        servers = {
            title: stack.enter_context(_server(folder, number, kinds))
            for number, (title, kinds) in enumerate(subjects.items())
        }
        for connections in (1, 4):
            yield _round(servers, folder, scale, connections)


@contextmanager
def _server(folder: Path, number: int, kinds: list[str]) -> Iterator[Server]:
    """A webhook that has its policies in force."""
    policies = folder / f"policies-{number}"
    policies.mkdir()
    texts = [POLICY.format(number=n, kind=kind) for n, kind in enumerate(kinds)]
    (policies / "policies.yaml").write_text("---\n".join(texts))
    command = [str(RINGFENCE), "webhook", "serve", "--listen", "127.0.0.1:0"]
    command += ["-c", str(folder / "tenants.yaml"), "--drain-seconds", "0"]
    command += ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
    log = folder / f"webhook-{number}.log"
    with serving([*command, "--policies", str(policies)], log) as server:
        in_force = f"the policies are in force: {log}"
        eventually(lambda: b"policies_in_force" in log.read_bytes(), in_force, START_SECONDS)
        yield server


def _round(servers: dict[str, Server], folder: Path, scale: Scale, connections: int) -> Comparison:
    for server in servers.values():
        server.per_second.clear()
    requests = scale.of(200, 5) // connections or 1
    turns = {
        title: turn_of(server, folder / "ca.crt", connections, requests, 0, "/mutate-policies/fail")
        for title, server in servers.items()
    }
    samples = alternate(turns, rounds=scale.of(5, 1))
    series = [
        Series(title, Unit.SECONDS, samples[title], notes_of(server))
        for title, server in servers.items()
    ]
    plural = "s" if connections > 1 else ""
    title = f"Namespace CREATE through Kyverno policies, {connections} connection{plural}"
    return Comparison(title, tuple(series), "p99 under 10 ms with 20 policies")
