"""A node for the agent's tests: a network namespace with wired pods, and the real agent process."""

from __future__ import annotations

import ipaddress
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from enforcer.answers import control
from enforcer.datapath import attach
from enforcer.sources.manifests import manifests_digest
from generators.isolation.record import RecordEntry, record_documents
from lab import netns, network
from lab.names import NETNS_ROOT, NODE_ADDRESSES, PodNetwork, Wire
from tests.testbed.waiting import ended, eventually, kill, patience

NODE_NAME = "here"
PORT = 8080
IN_FORCE_SECONDS = 60
SILENCE_SECONDS = 0.4
STRICT_TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
mode: strict
tenants:
  - {name: t1, namespaces: {names: [t1]}}
  - {name: t2, namespaces: {names: [t2]}}
"""
Document = Mapping[str, object]


@dataclass(slots=True)
class Host:
    """A network namespace that is a node: where its files are, the agents in it, its end."""

    directory: Path
    name: str = field(default_factory=lambda: f"rft-{token_hex(3)}", kw_only=True)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list, kw_only=True)

    @property
    def pin_dir(self) -> Path:
        return Path("/sys/fs/bpf") / self.name

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def manifests(self) -> Path:
        return self.directory / "manifests"

    @property
    def log(self) -> str:
        """What the agents said."""
        return (self.directory / "agent.log").read_text()

    def command(self, *arguments: str) -> list[str]:
        """An `enforcer` command on this node."""
        inside = ("nsenter", f"--net={NETNS_ROOT / self.name}", "--")
        program = str(Path(sys.executable).with_name("ringfence"))
        places = (f"--pin-dir={self.pin_dir}", f"--run-dir={self.run_dir}")
        return [*inside, program, "enforcer", arguments[0], *places, *arguments[1:]]

    def begin(
        self,
        command: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start an agent, whose words are in `log`."""
        with (self.directory / "agent.log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log, cwd=cwd, env=env)
        self.processes.append(process)
        return process

    def put(self, file: str, objects: Sequence[Document]) -> None:
        """Replace a manifest atomically."""
        unfinished = self.directory / "unfinished"
        unfinished.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        unfinished.rename(self.manifests / file)

    def leave(self, wires: Iterable[Wire]) -> None:
        """End the agents, and take away what they and the test have made."""
        for process in self.processes:
            kill(process)
        if self.pin_dir.exists():
            with netns.inside(self.name):
                attach.uninstall(self.pin_dir)
        for wire in wires:
            netns.remove(wire.netns)
        netns.remove(self.name)
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(slots=True)
class Node(Host):
    """Two pods `t1/a` and `t2/b`, each listening on PORT; see `started` for its life."""

    network: PodNetwork = field(default_factory=PodNetwork)
    families: Sequence[int] = (4, 6)
    wires: dict[str, Wire] = field(default_factory=dict)
    listeners: list[socket.socket] = field(default_factory=list)

    def build(self, pods: Sequence[str] = ("t1/a", "t2/b"), first: int = 1) -> None:
        self.manifests.mkdir()
        netns.create(self.name)
        network.prepare_node(self.name, self._of_families(*NODE_ADDRESSES), self.network)
        for number, pod in enumerate(pods, start=first):
            self.add_pod(pod, number)

    def add_pod(self, pod: str, number: int, of: PodNetwork | None = None) -> None:
        own = self._of_families(f"10.7.0.{number}", f"fd07::{number}")
        wire = Wire(f"{self.name}-{number}", f"rft{number}", own)
        self.wires[pod] = wire
        netns.create(wire.netns)
        self.connect(wire, of or self.network)
        with netns.inside(wire.netns):
            listener = socket.create_server(
                ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True
            )
        self.listeners.append(listener)

    def _of_families(self, *addresses: str) -> tuple[str, ...]:
        return tuple(a for a in addresses if _version(a) in self.families)

    def connect(self, wire: Wire, of: PodNetwork) -> None:
        """Wire a pod, in whose network namespace nothing is yet."""
        network.add_pod(self.name, wire)
        network.connect_pod(self.name, wire, of)

    def remove(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.leave(self.wires.values())

    def arguments(self, *more: str) -> list[str]:
        where = ("--node-name", NODE_NAME, "--manifests", str(self.manifests))
        return self.command("run", *where, *more)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        return self.begin(self.arguments(*more))

    def write(self, *objects: Document, file: str = "cluster.json") -> str:
        """Replace a manifest; the digest to wait for."""
        self.put(file, objects)
        return self.digest()

    def digest(self) -> str:
        files = {p.name: p.read_bytes() for p in self.manifests.iterdir()}
        return manifests_digest(files)

    def wait(
        self, digest: str, process: subprocess.Popen[bytes], config: str | None = None
    ) -> control.Answer:
        """What the agent says once it has seen that input."""
        question: dict[str, object] = {"command": "wait", "manifests": digest, "config": config}
        question["timeout"] = patience(IN_FORCE_SECONDS)

        def answer() -> control.Answer | None:
            try:
                return control.ask(self.run_dir, question)
            except control.AgentAway:
                if process.poll() is not None:
                    raise
                return None

        found = eventually(answer, "the agent answers", IN_FORCE_SECONDS)
        assert found is not None
        return found

    def wait_until_enforced(self) -> None:
        """Return when every local pod is enforced."""
        status = {"command": "status"}
        eventually(lambda: not control.ask(self.run_dir, status)["notEnforced"], "all enforced")

    def scrape(self, port: int) -> str:
        """The agent's metrics."""
        with netns.inside(self.name):
            connection = socket.create_connection(("127.0.0.1", port), timeout=patience(5))
        with connection, connection.makefile("rwb") as stream:
            stream.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            stream.flush()
            return stream.read().decode()

    def pods(self, only: Sequence[str] = ()) -> list[Document]:
        """The pods as documents; their namespaces exist by being used."""
        return [_pod(key, wire) for key, wire in self.wires.items() if not only or key in only]

    def reaches(self, source: str, destination: str, family: int = 4) -> bool:
        """Whether a real connection is made; silence means no."""
        address = next(a for a in self.wires[destination].addresses if _version(a) == family)
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with netns.inside(self.wires[source].netns):
            client = socket.socket(kind, socket.SOCK_STREAM)
        with client:
            client.settimeout(SILENCE_SECONDS)
            try:
                client.connect((address, PORT))
            except TimeoutError:
                return False
        return True


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _pod(key: str, wire: Wire) -> Document:
    namespace, _, name = key.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"ringfence.io/interface": wire.interface},
        },
        "spec": {"nodeName": NODE_NAME, "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip} for ip in wire.addresses]},
    }


def owned_namespaces(*names: str) -> list[Document]:
    """Namespaces with a record that each belongs to the tenant of its name."""
    record = {f"uid-{name}": RecordEntry(name, name) for name in names}
    spaces: list[Document] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": f"uid-{name}"}}
        for name in names
    ]
    return [*spaces, *record_documents(record)]


def deny_ingress(namespace: str) -> Document:
    """A NetworkPolicy that lets nobody in."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    """Send a signal and return how the process ended."""
    process.send_signal(number)
    return ended(process)
