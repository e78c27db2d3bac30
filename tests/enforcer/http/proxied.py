"""A node whose pods speak HTTP, the real agent and a real Envoy."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from enforcer.answers import control
from enforcer.http import envoy
from enforcer.http.proxy import DIRECTORY, leave
from enforcer.http.xds import shard_of
from lab import netns
from lab.names import PodNetwork, Shape
from tests.enforcer.node import Document, Node
from tests.testbed.waiting import eventually, kill, patience

HTTP = 80
ANSWERING = Path(__file__).with_name("answering.py")
DEATHSTAR, TIE, XWING = "default/deathstar", "default/tiefighter", "default/xwing"
LABELS: Mapping[str, Mapping[str, str]] = {
    DEATHSTAR: {"org": "empire", "class": "deathstar"},
    TIE: {"org": "empire", "class": "tiefighter"},
    XWING: {"org": "alliance", "class": "xwing"},
}
DENIED = (403, b"Access denied\r\n")
SILENCE_SECONDS = 0.5

needs_envoy = pytest.mark.skipif(
    envoy.find() is None, reason="there is no Envoy: tools/setup.sh http brings it"
)


@dataclass(slots=True)
class Proxied(Node):
    """Pods that answer HTTP; see `started`."""

    servers: list[subprocess.Popen[str]] = field(default_factory=list)

    def serve(self, pod: str) -> None:
        """Have a pod answer."""
        with netns.inside(self.wires[pod].netns):
            server = subprocess.Popen(
                [sys.executable, str(ANSWERING), str(HTTP)], stdout=subprocess.PIPE, text=True
            )
        self.servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def leave_all(self) -> None:
        """End it, Envoy included, which outlives agents."""
        for server in self.servers:
            kill(server)
        for process in self.processes:
            kill(process)
        leave(self.run_dir)
        self.remove()

    def documents(self, *policies: Document) -> list[Document]:
        """The pods with their labels, and policies."""
        found: list[Document] = []
        for document in self.pods():
            meta = document["metadata"]
            assert isinstance(meta, dict)
            key = f"{meta['namespace']}/{meta['name']}"
            found.append({**document, "metadata": {**meta, "labels": dict(LABELS.get(key, {}))}})
        return [*found, *policies]

    def enforce(self, agent: subprocess.Popen[bytes], *policies: Document) -> None:
        """Have policies in force, and Envoy judge by them."""
        self.wait(self.write(*self.documents(*policies)), agent)
        self.wait_until_enforced()
        self.wait_until_told()

    def wait_until_told(self) -> None:
        """Return when Envoy has taken what was written last."""
        xds = self.run_dir / DIRECTORY / "xds"
        if not (xds / "listeners.json").is_file():
            return

        def told() -> bool:
            listeners = json.loads((xds / "listeners.json").read_text())
            shards = {shard_of(int(listener["name"])) for listener in listeners["resources"]}
            files = ["listeners.json", *(f"routes-{shard}.json" for shard in shards)]
            wanted = {json.loads((xds / file).read_text())["version_info"] for file in files}
            try:
                said = envoy.stats(self.run_dir / DIRECTORY)
            except OSError:
                return False
            return wanted <= {v.strip('"') for k, v in said.items() if k.endswith("version_text")}

        eventually(told, "Envoy judges by the rules as written")

    def status(self) -> control.Answer:
        return control.ask(self.run_dir, {"command": "status"})

    def address(self, pod: str, family: int) -> str:
        return self.wires[pod].addresses[0 if family == 4 else 1]

    @contextlib.contextmanager
    def connected(
        self, source: str, address: str, port: int = HTTP, seconds: float = 10.0
    ) -> Iterator[http.client.HTTPConnection]:
        """A connection of a pod that is kept."""
        with netns.inside(self.wires[source].netns):
            connection = http.client.HTTPConnection(address, port, timeout=patience(seconds))
            connection.connect()
        connection.auto_open = 0
        try:
            yield connection
        finally:
            connection.close()

    def ask(
        self, source: str, destination: str, request: str, family: int = 4
    ) -> tuple[int, bytes]:
        """`METHOD PATH` from pod to pod on a connection of its own; status and body."""
        with self.connected(source, self.address(destination, family)) as connection:
            return said(connection, request)

    def hangs(self, source: str, address: str, port: int = HTTP) -> bool:
        """Whether nothing answers a pod that wants to connect."""
        with netns.inside(self.wires[source].netns):
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            client = socket.socket(kind, socket.SOCK_STREAM)
        with client:
            client.settimeout(SILENCE_SECONDS)
            try:
                client.connect((address, port))
            except TimeoutError:
                return True
        return False

    def envoy_pid(self) -> int:
        told = self.status()["http"]
        assert isinstance(told, dict)
        return int(told["proxy"])


def said(connection: http.client.HTTPConnection, request: str) -> tuple[int, bytes]:
    """What a kept connection answers to `METHOD PATH`."""
    method, path = request.split(" ", 1)
    connection.request(method, path)
    response = connection.getresponse()
    return response.status, response.read()


def client_of(answer: tuple[int, bytes]) -> str:
    """Whom the application saw."""
    status, body = answer
    assert status == 200, body
    return str(json.loads(body)["client"])


@contextlib.contextmanager
def started(
    directory: Path,
    pods: Sequence[str] = (DEATHSTAR, TIE, XWING),
    network: PodNetwork | None = None,
    first: int = 2,
) -> Iterator[Proxied]:
    """A node with pods, all of which answer; no agent yet."""
    made = Proxied(directory, network=network or PodNetwork())
    try:
        made.build(pods, first=first)
        if made.network.shape is Shape.BRIDGE:  # as any but the lab's has it, to find neighbours
            words = ("address", "add", "fe80::1/64", "dev", "cni0", "nodad")
            subprocess.run(["ip", "-n", made.name, *words], check=True)
        for pod in pods:
            made.serve(pod)
        yield made
    finally:
        made.leave_all()


def rules(*requests: str) -> list[dict[str, str]]:
    """`METHOD PATH` as rules of a policy."""
    return [
        dict(zip(("method", "path"), request.split(" ", 1), strict=True)) for request in requests
    ]


def ingress(
    name: str,
    *http_rules: Mapping[str, object],
    to: Mapping[str, str] | None = None,
    source: Mapping[str, str] | None = None,
    port: int = HTTP,
) -> Document:
    """A CiliumNetworkPolicy that lets requests in; without rules, all of TCP at the port."""
    ports: dict[str, object] = {"ports": [{"port": str(port), "protocol": "TCP"}]}
    if http_rules:
        ports["rules"] = {"http": list(http_rules)}
    allowed = {
        "fromEndpoints": [{"matchLabels": dict(source or {"org": "empire"})}],
        "toPorts": [ports],
    }
    return _policy(name, to or {"class": "deathstar"}, ingress=[allowed])


def egress(
    name: str, *http_rules: Mapping[str, object], source: Mapping[str, str], to: Mapping[str, str]
) -> Document:
    """The same of what leaves."""
    ports: dict[str, object] = {"ports": [{"port": str(HTTP), "protocol": "TCP"}]}
    if http_rules:
        ports["rules"] = {"http": list(http_rules)}
    allowed = {"toEndpoints": [{"matchLabels": dict(to)}], "toPorts": [ports]}
    return _policy(name, source, egress=[allowed])


def _policy(name: str, selected: Mapping[str, str], **sides: object) -> Document:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": dict(selected)}, **sides},
    }
