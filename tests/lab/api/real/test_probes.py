"""The kubelet's probes reach isolated pods, whatever they ask by; nobody else comes with them."""

from __future__ import annotations

import pytest

from tests.lab.api.real.nodes import RealLab, serving
from tests.testbed.waiting import eventually, holds_for

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.timeout(400)]

PROBES = {
    "http": "httpGet: {path: /ready, port: 80}",
    "tcp": "tcpSocket: {port: 80}",
    "exec": "exec: {command: [/responder, 'true']}",
    "grpc": "grpc: {port: 80}",
}
DENY = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: deny, namespace: {space}}}
spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress]}}
"""


def _probed(kind: str) -> str:
    probe = PROBES[kind]
    return ", ".join(
        f"{name}Probe: {{{probe}, periodSeconds: 1, failureThreshold: 2}}"
        for name in ("startup", "readiness", "liveness")
    )


def test_probes_of_every_kind_reach_pods_that_nothing_else_reaches(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    pods = [f"{red}/{kind}" for kind in PROBES]
    text = "".join(serving(pod, container=_probed(pod.split("/")[1])) for pod in pods)
    real.make(DENY.format(space=red) + text + serving(f"{blue}/other"), *pods, f"{blue}/other")
    for pod in pods:
        assert real.asks(f"{blue}/other", f"{real.ip(pod)}:80") == ""
        assert real.asks(f"{red}/exec", f"{real.ip(pod)}:80") == "" or pod.endswith("/exec")
    calm = lambda: sum(_restarts(real, pod) for pod in pods) == 0  # noqa: E731
    holds_for(4, calm, "no liveness probe failed")


def _restarts(real: RealLab, pod: str) -> int:
    return sum(int(c["restartCount"]) for c in real.pod(pod)["status"]["containerStatuses"])


def test_a_probe_that_is_refused_is_still_one_that_fails(real: RealLab) -> None:
    (red,) = real.spaces("red")
    never = "readinessProbe: {httpGet: {path: /, port: 81}, periodSeconds: 1}"
    real.kubectl("apply", "-f", "-", stdin=serving(f"{red}/never", container=never))
    real.phase(f"{red}/never", "Running")
    seen = lambda: "Readiness probe failed" in real.kubectl("get", "events", "-n", red)  # noqa: E731
    eventually(seen, "an event of the probe", 30)
    conditions = real.pod(f"{red}/never")["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions}["Ready"] == "False"
