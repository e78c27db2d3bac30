"""One node with a real agent, real pods and one connection of each fate, shared by this folder."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.answers import control
from generators.isolation.record import RecordEntry, record_documents
from lab import netns
from tests.enforcer.node import Document, Node
from tests.testbed.waiting import eventually, patience

TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
tenants:
  - name: red
    namespaces: {names: [t1]}
  - name: blue
    namespaces: {names: [t2]}
  - name: green
    namespaces: {names: [t3]}
"""
RED_LINE, GREEN_LINE = 4, 8
METRICS_PORT = 9418
PATIENCE = 60.0
LABELS = {"t1/a": {"app": "api"}, "t1/c": {"app": "web"}, "t2/b": {"app": "b"}, "t3/d": {}}
CONNECTIONS = {
    ("t2/b", "t1/a"): False,  # the tenant wall
    ("t1/c", "t1/a"): False,  # a policy without rules
    ("t1/a", "t1/c"): True,  # a rule
    ("t2/b", "t3/d"): True,  # the wall of an audited namespace
    ("t1/c", "t2/b"): False,  # the wall
}
OTHER_NODE: Document = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "there"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]},
}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class Answering:
    """A node whose agent has seen every connection of CONNECTIONS."""

    node: Node
    tenants: Path
    ask: Run
    """`ringfence ARGUMENTS... --run-dir` of that agent."""


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    directory = tmp_path_factory.mktemp("answering")
    node = Node(directory)
    tenants = directory / "tenants.yaml"
    tenants.write_text(TENANTS)
    try:
        node.build()
        for number, pod in enumerate(("t1/c", "t3/d"), start=3):
            node.add_pod(pod, number)
        metrics = ("--metrics-listen", f"127.0.0.1:{METRICS_PORT}", "--metrics-context=workload")
        agent = node.start("-c", str(tenants), *metrics)
        answer = node.wait(node.write(*documents(node)), agent)
        assert answer.get("error") is None
        node.wait_until_enforced()
        for (source, destination), passes in CONNECTIONS.items():
            assert node.reaches(source, destination) is passes, (source, destination)
        wait_for_flows(node.run_dir, 8)
        yield Answering(node, tenants, asking(node.run_dir))
    finally:
        node.remove()


def asking(run_dir: Path) -> Run:
    from tests.conftest import COMMAND

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(COMMAND), *arguments, "--run-dir", str(run_dir)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=patience(30), check=False
        )

    return ask


def documents(node: Node) -> list[Document]:
    """Four pods of three tenants; t1 is isolated by policies, t3 only audited."""
    names = {"t1": "red", "t2": "blue", "t3": "green"}
    entries = {f"uid-{name}": RecordEntry(name, tenant) for name, tenant in names.items()}
    return [
        namespace("t1"),
        namespace("t2"),
        namespace("t3", {"ringfence.io/mode": "audit"}),
        *record_documents(entries),
        OTHER_NODE,
        *(labelled(pod) for pod in node.pods()),
        service("api"),
        policy("deny-api", "api", []),
        policy("allow-web", "web", [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}]),
    ]


def namespace(name: str, annotations: Mapping[str, str] | None = None) -> Document:
    metadata = {"name": name, "uid": f"uid-{name}", "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def labelled(pod: Document) -> Document:
    metadata = dict(pod["metadata"])  # type: ignore[call-overload]
    key = f"{metadata['namespace']}/{metadata['name']}"
    metadata["labels"] = labels = LABELS[key]
    if labels:
        owner = {"kind": "StatefulSet", "name": labels["app"], "controller": True}
        metadata["ownerReferences"] = [owner]
    return {**pod, "metadata": metadata}


def service(app: str) -> Document:
    """In t1, in front of the pods of an app."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "namespace": "t1"},
        "spec": {
            "clusterIP": "10.96.0.1",
            "selector": {"app": app},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }


def policy(name: str, app: str, ingress: list[object]) -> Document:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "t1"},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def wait_for_flows(run_dir: Path, count: int) -> None:
    """Events reach the agent a moment after their packets."""

    def came() -> bool:
        with contextlib.suppress(control.AgentAway):
            return len(list(control.stream(run_dir, {"command": "flows", "last": 4096}))) >= count
        return False

    eventually(came, f"{count} flows")


def scrape(node: Node, path: str) -> tuple[int, str]:
    """Status and body of a page of the agent's listener."""
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", METRICS_PORT, timeout=patience(5))
    with netns.inside(node.name):
        connection.connect()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body
