"""A node whose agent keeps the CNI plugin, and a runtime that makes sandboxes on it.

The network is made as a main plugin does it: network namespace, veth, addresses, routes, links up;
then the chained plugin is run with that result, as a runtime runs it.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from enforcer.agent.attachments import Attachments
from enforcer.answers import control
from enforcer.cni import install
from enforcer.datapath import attach
from enforcer.policy.changes import Attachment
from generators.isolation.record import RecordEntry, record_documents
from lab import netns, network
from lab.names import NETNS_ROOT, Wire
from tests.cni.runtime import Result, Runtime, result
from tests.enforcer.node import NODE_NAME, PORT, SILENCE_SECONDS, Document, Host
from tests.testbed.waiting import ended, eventually

DEADLINE = 60.0
CONFLIST = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}'
CONFIG = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
mode: strict
tenants:
  - name: t1
    namespaces: {names: [t1]}
  - name: t2
    namespaces: {names: [t2]}
"""


@dataclass(slots=True)
class Node(Host):
    """See `started` for its life."""

    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    wires: list[Wire] = field(default_factory=list)

    @property
    def places(self) -> install.PluginPlaces:
        return install.PluginPlaces(self.directory / "net.d", self.directory / "bin", self.run_dir)

    @property
    def records(self) -> Path:
        """What the runtime's library writes down below `directory / "cache"`."""
        return self.directory / "cache" / "results"

    @property
    def conflist(self) -> Path:
        return self.places.conf_dir / "10-net.conflist"

    def runtime(self, seconds: int = 20) -> Runtime:
        return Runtime(self.run_dir / "cni.sock", self.places.namespaces, seconds)

    def build(self) -> None:
        for folder in (self.manifests, self.places.conf_dir):
            folder.mkdir(parents=True)
        self.conflist.write_text(CONFLIST)
        (self.directory / "tenants.yaml").write_text(CONFIG)
        netns.create(self.name)
        network.prepare_node(self.name)

    def remove(self) -> None:
        self.leave(self.wires)

    def command(self, *arguments: str) -> list[str]:
        """The same, with the folders of this node's CNI."""
        folders = (f"--cni-conf-dir={self.places.conf_dir}", f"--cni-bin-dir={self.places.bin_dir}")
        return Host.command(self, arguments[0], *folders, *arguments[1:])

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """The agent, once it has read its inputs."""
        command = self.command(
            *("run", f"--node-name={NODE_NAME}", f"--manifests={self.manifests}"),
            *(f"--config={self.directory / 'tenants.yaml'}", f"--cni-cache-dir={self.records}"),
            *more,
        )
        process = self.begin(command)
        eventually(lambda: process.poll() is not None or self.runtime().call("STATUS").code == 0)
        assert process.poll() is None, self.log
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        assert ended(process, DEADLINE) == 0, self.log

    def sandbox(self) -> Wire:
        """What runtime and main plugin make: a network namespace that reaches the node."""
        wire = self.empty()
        self.plug(wire)
        return wire

    def plug(self, wire: Wire) -> None:
        """The main plugin's part: veth, addresses, links up, routes."""
        network.add_pod(self.name, wire)
        network.connect_pod(self.name, wire)

    def empty(self) -> Wire:
        """The runtime's part: a network namespace, and nothing in it."""
        number = next(self.numbers)
        addresses = (f"10.8.{number // 250}.{1 + number % 250}", f"fd08::{number:x}")
        wire = Wire(f"{self.name}-{number}", f"vt{number}", addresses)
        self.wires.append(wire)
        netns.create(wire.netns)
        return wire

    def add(self, pod: str, wire: Wire, uid: str = "", seconds: int = 20) -> Result:
        """CNI ADD for a sandbox; its container is named after its network namespace."""
        return self.runtime(seconds).call(
            "ADD", wire.netns, pod, uid, str(NETNS_ROOT / wire.netns), self.previous(wire)
        )

    def delete(self, pod: str, wire: Wire) -> Result:
        """CNI DEL, then the main plugin's."""
        deleted = self.runtime().call("DEL", wire.netns, pod, netns=str(NETNS_ROOT / wire.netns))
        network.remove_pod(self.name, wire.interface)
        return deleted

    def check(self, pod: str, wire: Wire) -> Result:
        return self.runtime().call(
            "CHECK", wire.netns, pod, "", str(NETNS_ROOT / wire.netns), self.previous(wire)
        )

    def previous(self, wire: Wire) -> dict[str, object]:
        return result(wire.addresses, wire.interface, str(NETNS_ROOT / wire.netns))

    def ifindex(self, wire: Wire) -> int:
        with netns.inside(self.name):
            return socket.if_nametoindex(wire.interface)

    def attachment(self, pod: str) -> Attachment | None:
        """What the file of attachments says of a pod."""
        with netns.inside(self.name):
            return Attachments(self.run_dir).of(pod)

    def links(self) -> list[Path]:
        """What is pinned for interfaces."""
        return list((self.pin_dir / attach.LINKS).iterdir())

    def write(self, file: str, *objects: Document) -> None:
        self.put(file, objects)

    def status(self) -> control.Answer:
        return control.ask(self.run_dir, {"command": "status"})

    def enforces(self, key: str) -> bool:
        """Whether the policy of a pod that the agent knows is in force."""
        return key in self._listed("endpoints", "endpoints") - self._listed("status", "notEnforced")

    def _listed(self, command: str, field: str) -> set[str]:
        found = control.ask(self.run_dir, {"command": command})[field]
        assert isinstance(found, list)
        return {f"{entry['namespace']}/{entry['pod']}" for entry in found}


@contextmanager
def started(directory: Path, *more: str) -> Iterator[Node]:
    """A node with two tenants, t1 and t2, and its agent."""
    node = Node(directory)
    try:
        node.build()
        node.write("base.json", *tenants())
        node.start(*more)
        yield node
    finally:
        node.remove()


def reaches(source: str, destination: str, address: str, silence: float = SILENCE_SECONDS) -> bool:
    """Whether a real connection is made between two network namespaces; silence means no."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.inside(destination):
        listener = socket.create_server((address, PORT), family=kind)
    with netns.inside(source):
        client = socket.socket(kind, socket.SOCK_STREAM)
    with listener, client:
        client.settimeout(silence)
        try:
            client.connect((address, PORT))
        except TimeoutError:
            return False
    return True


def tenants() -> list[Document]:
    """Three namespaces, two of which are tenants' by the record."""
    record = {f"uid-{name}": RecordEntry(name, name) for name in ("t1", "t2")}
    return [*record_documents(record), *(namespace(name) for name in ("t1", "t2", "free"))]


def namespace(name: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "uid": f"uid-{name}"},
    }


def pod(key: str, uid: str = "", ips: tuple[str, ...] = ()) -> Document:
    """As an API server shows it: without addresses until the runtime has reported them."""
    space, _, name = key.partition("/")
    status: dict[str, object] = {"phase": "Running" if ips else "Pending"}
    if ips:
        status["podIPs"] = [{"ip": ip} for ip in ips]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "uid": uid or f"uid-{name}"},
        "spec": {"nodeName": NODE_NAME, "containers": [{"name": "c"}]},
        "status": status,
    }
