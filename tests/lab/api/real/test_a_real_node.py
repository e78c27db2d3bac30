"""`ringfence lab up --kubelet`: a real node comes, works with kubectl, and goes without a trace;
the kubelet's probes reach isolated pods, whatever they ask by, and nobody else comes with them.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.api import users
from lab.api.real import cgroups
from tests.conftest import COMMAND, Run
from tests.lab.api.hollow import fresh_lab
from tests.lab.api.real.nodes import RealLab, serving
from tests.testbed.waiting import ended, ending, eventually, holds_for, patience

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


@pytest.fixture
def lab(programs: None, ringfence: Run) -> Iterator[RealLab]:
    with fresh_lab(RealLab, ringfence) as made:
        yield made


def test_kubectl_execs_shows_logs_and_forwards_ports(real: RealLab) -> None:
    (red,) = real.spaces("red")
    speaks = "lifecycle: {postStart: {exec: {command: [/responder, 'true']}}}"
    real.make(serving(f"{red}/web", container=speaks), f"{red}/web")
    assert real.asks(f"{red}/web", "127.0.0.1:80").startswith("web sees 127.0.0.1:")
    assert real.exec(f"{red}/web", "/responder", "nonsense").returncode == 2
    assert real.kubectl("logs", "-n", red, "web") == ""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(users.kubectl()), "port-forward", "-n", red, "pod/web", f"{port}:80"]
    with ending(
        subprocess.Popen(command, env=users.environment(real.places), stdout=-3, stderr=-3)
    ):
        assert eventually(lambda: _get(port), "an answer by port-forward", 20).startswith(
            "web sees"
        )


def _get(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience(5))
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def test_lab_commands_see_containers_as_they_see_networks(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    declared = "ports: [{containerPort: 80}]"
    pods = (f"{red}/a", f"{red}/b", f"{blue}/c")
    real.make("".join(serving(pod, container=declared) for pod in pods), *pods)
    assert real.reaches(f"{red}/a", f"{red}/b", "80/TCP") == {"FORWARDED"}
    assert real.reaches(f"{blue}/c", f"{red}/b", "80/TCP") == {"DROPPED"}
    mine = [p for p in real.status()["pods"] if f"{p['namespace']}/{p['name']}" in pods]
    assert [p["enforced"] for p in mine] == [True] * 3
    assert all(p["hostInterface"] for p in mine)


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


def test_a_lab_whose_every_process_was_killed_leaves_nothing(lab: RealLab, tenants: Path) -> None:
    done = lab.up("--kubelet", "--nodes", "2", "--network", "bridge", "-c", tenants)
    assert done.returncode == 0, done.stderr
    (red,) = lab.spaces("red")
    lab.make(serving(f"{red}/a") + serving(f"{red}/b"), f"{red}/a", f"{red}/b")
    for process in lab.status()["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    lab.ok("down")
    assert _traces(lab) == []


@pytest.mark.parametrize("after", ["kube-apiserver", "node-", "kubelet-"])
def test_an_up_that_was_killed_on_the_way_leaves_nothing(
    lab: RealLab, tenants: Path, after: str
) -> None:
    command = [
        str(COMMAND),
        "lab",
        "up",
        "--name",
        lab.places.name,
        "--kubelet",
        "-c",
        str(tenants),
    ]
    with ending(subprocess.Popen(command, stdout=-3, stderr=-3, start_new_session=True)) as up:
        eventually(lambda: list(lab.places.run.glob(f"{after}*.log")), f"{after} was started")
        up.kill()
        ended(up)
    lab("down")
    assert _traces(lab) == []


def _traces(lab: RealLab) -> list[str]:
    nodes = [f"{lab.places.node_netns}.{lab.places.name}-{number}" for number in (1, 2)]
    return [*lab.traces(), *(str(path) for node in nodes for path in cgroups.left(node))]


@pytest.mark.parametrize(
    ("flags", "code", "why"),
    [
        (("--kubelet", "--network", "gateway"), 2, "--kubelet takes --network ptp or bridge"),
        (("--kubelet", "--kubeconfig", "x"), 2, "--kubelet brings its own API server"),
        (("--bare",), 2, "--bare needs --kubelet"),
        (("--kubelet", "--nodes", "0"), 1, "a lab has 1 to 16 nodes"),
    ],
    ids=["network", "kubeconfig", "bare", "nodes"],
)
def test_what_does_not_go_together_is_refused(
    lab: RealLab, flags: tuple[str, ...], code: int, why: str
) -> None:
    done = lab.up(*flags)
    assert done.returncode == code
    assert why in done.stderr
    assert lab.traces() == []
