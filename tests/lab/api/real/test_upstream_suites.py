"""What the end-to-end suites for NetworkPolicy and ClusterNetworkPolicy ask of a cluster, done as
they do it: pods of StatefulSets with several containers and undeclared ports, each asked by exec
from every other, where what is denied is silence and what nobody listens on is refused.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from lab.api import users
from tests.lab.api.real.nodes import RealLab
from tests.testbed.waiting import eventually, patience

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

PORTS = ("80", "81")
STATEFUL = """
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}, namespace: {space}}}
spec:
  replicas: 1
  serviceName: none
  selector: {{matchLabels: {{pod: {name}}}}}
  template:
    metadata: {{labels: {{pod: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: cont-80, image: "responder:lab", args: [serve, "80"]}}
      - {{name: cont-81, image: "responder:lab", args: [serve, "81", "81/udp"]}}
"""
FROM_A = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: from-a, namespace: {space}}}
spec:
  podSelector: {{matchLabels: {{pod: b}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{pod: a}}}}}}], ports: [{{port: 81}}]}}]
"""


def _by_spdy(real: RealLab, pod: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Exec as those suites do it: with the protocol before WebSockets."""
    space, name = pod.split("/")
    words = [str(users.kubectl()), "exec", "-n", space, name, "-c", "cont-80", "--", *command]
    spdy = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
    return subprocess.run(
        words,
        env=os.environ | users.environment(real.places) | spdy,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )


def _fares(real: RealLab, source: str, address: str, port: str) -> str:
    done = _by_spdy(real, source, "/responder", "connect", "-wait", "1s", f"{address}:{port}")
    if done.returncode == 0:
        return "connected"
    return "refused" if "connection refused" in done.stderr else "timeout"


def test_a_table_of_connections_is_as_the_policies_say(real: RealLab) -> None:
    # Nobody's namespace: the suites know of no tenants.
    (space,) = real.spaces("suite")
    names = ("a", "b", "c")
    real.make("".join(STATEFUL.format(name=name, space=space) for name in names))
    pods = {name: f"{space}/{name}-0" for name in names}
    for name in names:
        real.kubectl("rollout", "status", "-n", space, f"statefulset/{name}", "--timeout=60s")
    addresses = {name: real.ip(pod) for name, pod in pods.items()}

    def table(port: str) -> dict[tuple[str, str], str]:
        return {
            (source, target): _fares(real, pods[source], addresses[target], port)
            for source in names
            for target in names
        }

    assert set(table("80").values()) == {"connected"}
    assert _fares(real, pods["a"], addresses["b"], "82") == "refused"
    real.kubectl("apply", "-f", "-", stdin=FROM_A.format(space=space))
    denied = {
        (s, t): "timeout" if (s, t) in {("a", "b"), ("c", "b")} else "connected"
        for s in names
        for t in names
    }
    eventually(lambda: table("80") == denied, f"port 80: {denied}", 60)
    assert table("81") == {
        pair: "timeout" if pair == ("c", "b") else "connected" for pair in denied
    }
    # A label of a running pod changes who it is.
    real.kubectl("label", "pod", "-n", space, "c-0", "pod=a", "--overwrite")
    joins = lambda: _fares(real, pods["c"], addresses["b"], "81") == "connected"  # noqa: E731
    eventually(joins, "c is let in as a", 30)
