"""The commands of the node side as a user meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from enforcer.answers import control

Run = Callable[..., "CompletedProcess[str]"]

ENDPOINT: Mapping[str, object] = {
    "id": 211,
    "namespace": "blue-dev",
    "pod": "api",
    "tenant": "blue",
    "identity": 15435,
    "policy": {"ingress": "Enabled", "egress": "Disabled"},
    "labels": ["k8s:app=api", "k8s:io.kubernetes.pod.namespace=blue-dev"],
    "ipv6": None,
    "ipv4": "10.0.1.185",
    "status": "ready",
}
DROP: Mapping[str, object] = {
    "flow": {
        "uuid": "48357586-0000-4000-8000-000000000000",
        "verdict": "DROPPED",
        "IP": {"source": "10.0.1.7", "destination": "10.0.1.185"},
        "l4": {"TCP": {"source_port": 60556, "destination_port": 8082, "flags": {"SYN": True}}},
        "source": {"identity": 2},
        "destination": {
            "ID": 211,
            "identity": 15435,
            "namespace": "blue-dev",
            "pod_name": "api",
            "labels": ["tenant:name=blue"],
        },
        "traffic_direction": "INGRESS",
        "Summary": "TCP Flags: SYN",
    },
    "node_name": "node1",
    "time": "2026-01-05T10:00:00.123456789Z",
    "judgement": {
        "verdict": "DROPPED",
        "reason": "POLICY_DENIED",
        "rule": None,
        "policies": ["blue-dev/deny"],
    },
}
STATUS: Mapping[str, object] = {
    "node": "node1",
    "ready": True,
    "revision": 3,
    "mode": "strict",
    "errors": {},
    "endpoints": 1,
    "notEnforced": [{"namespace": "a", "pod": "b", "reason": "no interface"}],
    "attached": {"tcx": 1},
    "maps": {"pol_map": {"entries": 5, "capacity": 65536}},
    "flows": {"read": 7, "lost": 0},
    "pinDir": "/sys/fs/bpf/ringfence",
}


def respond(request: control.Request) -> Iterable[control.Line]:
    answers: Mapping[str, list[control.Line]] = {
        "endpoints": [{"endpoints": [ENDPOINT]}],
        "flows": [DROP],
        "status": [STATUS],
    }
    return answers[str(request["command"])]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    server = control.control_server(tmp_path, respond)
    server.start()
    yield tmp_path
    server.stop()


def test_endpoint_list_has_the_columns_people_know_and_a_line_for_each_label(
    ringfence: Run, agent: Path
) -> None:
    head, second, first, more = ringfence(
        "endpoint", "list", "--run-dir", str(agent)
    ).stdout.splitlines()
    assert head.split()[:3] == ["ENDPOINT", "POLICY", "(ingress)"]
    assert second.split() == ["ENFORCEMENT", "ENFORCEMENT"]
    assert first.split() == [
        *("211", "Enabled", "Disabled", "15435", "blue-dev", "api", "blue", "k8s:app=api"),
        *("10.0.1.185", "ready"),
    ]
    assert more.strip() == "k8s:io.kubernetes.pod.namespace=blue-dev"


def test_status_says_what_is_not_enforced_and_exits_1(ringfence: Run, agent: Path) -> None:
    result = ringfence("status", "--run-dir", str(agent))
    assert result.returncode == 1
    assert "a/b: no interface" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("enforcer", "run", "--node-name", "n"), 3, "KUBECONFIG"),
        (("enforcer", "run", "--node-name", "n", "--manifests", "/nowhere"), 2, "/nowhere"),
        (("status", "--run-dir", "/nowhere"), 3, "start `ringfence enforcer run`"),
        (
            ("enforcer", "run", "--node-name", "n", "--manifests", "/", "--metrics-listen", "9"),
            2,
            "not HOST:PORT",
        ),
        (
            ("enforcer", "run", "--node-name", "n", "--metrics-context", "namespace,colour"),
            2,
            '--metrics-context "colour": wanted some of namespace, workload, pod',
        ),
    ],
    ids=["no input", "no such directory", "no agent", "bad address", "bad context"],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    ringfence: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = ringfence(*arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
