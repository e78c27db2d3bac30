"""A node whose agent follows a real API server: objects by requests, pods wired here.

The agent is inside the node's network namespace and the API server is not. A relay listens there on
the API server's address and hands the connections over, and to cut it is to take the API server
away.
"""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.answers import control
from generators.documents.json import Document
from generators.isolation.record import RecordEntry, record_documents
from generators.kube.client import Client, OnConflict, PatchKind, WatchScope
from generators.kube.errors import NotFound
from generators.kube.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    Resource,
)
from lab import netns
from tests.enforcer.node import Node, stop
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually

SOON = 20.0
MANAGER = "test"


class Relay:
    """Listens inside a network namespace and connects outside of it."""

    def __init__(self, name: str, port: int) -> None:
        self._port = port
        with netns.inside(name):
            self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._up = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """The API server is away: open connections break, new ones get nowhere."""
        with self._lock:
            self._up = False
            self._close_all()

    def restore(self) -> None:
        """It is back."""
        with self._lock:
            self._up = True

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listener.close()

    def _close_all(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._up:
                    inner.close()
                    continue
                try:
                    outer = socket.create_connection(("127.0.0.1", self._port))
                except OSError:  # the API server is down
                    inner.close()
                    continue
                self._open += [inner, outer]
            threading.Thread(target=self._carry, args=(inner, outer), daemon=True).start()

    def _carry(self, inner: socket.socket, outer: socket.socket) -> None:
        with inner, outer, suppress(OSError):
            while ready := select.select([inner, outer], [], [])[0]:
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        break
                    (outer if source is inner else inner).sendall(data)
                else:
                    continue
                break
        with self._lock:
            self._open.remove(inner)
            self._open.remove(outer)


@dataclass(slots=True)
class Cluster:
    """One node of an API server's cluster; see the module."""

    directory: Path
    plane: ControlPlane
    node: Node = field(init=False)
    client: Client = field(init=False)
    relay: Relay = field(init=False)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)
    objects: list[tuple[Resource, str, str]] = field(default_factory=list)
    made: int = 0

    def build(self) -> None:
        self.node = Node(self.directory)
        self.node.build(pods=())
        self.client = Client.connect(str(self.plane.kubeconfig()))
        self.relay = Relay(self.node.name, self.plane.port)
        self.client.create(
            NODES,
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": self.name},
                "spec": {"podCIDRs": ["10.7.0.0/16", "fd07::/64"]},
            },
            manager=MANAGER,
        )

    @property
    def name(self) -> str:
        """Of the node."""
        return self.node.name

    def start_agent(self, *more: str, kubeconfig: Path | None = None) -> subprocess.Popen[bytes]:
        given = ("--node-name", self.name, "--kubeconfig", kubeconfig or self.plane.kubeconfig())
        process = self.node.begin(self.node.command("run", *map(str, given), *more))
        self.agents.append(process)
        return process

    def end_agent(self, number: signal.Signals = signal.SIGTERM) -> None:
        stop(self.agents.pop(), number)

    def remove(self) -> None:
        for resource, namespace, name in reversed(self.objects):
            with suppress(NotFound):
                self.client.delete(resource, name, namespace, grace_seconds=0)
        with suppress(NotFound):
            self.client.delete(NODES, self.name)
        self.relay.close()
        self.node.remove()
        self.client.close()

    # --- the API server -------------------------------------------------------------------------

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace; its UID."""
        document: Document = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": dict(labels or {})},
        }
        made = self.client.create(NAMESPACES, document, manager=MANAGER)
        self.objects.append((NAMESPACES, "", name))
        eventually(
            lambda: bool(self.client.list_all(SERVICE_ACCOUNTS, _default_account(name))),
            f"the ServiceAccount of {name}",
        )
        metadata = made["metadata"]
        assert isinstance(metadata, dict)
        return str(metadata["uid"])

    def pod(self, namespace: str, name: str, labels: Mapping[str, str] | None = None) -> str:
        """A pod that runs on this node, wired; its UID. Its link is up at once."""
        self.made += 1
        key = f"{namespace}/{name}"
        self.node.add_pod(key, self.made)
        return self.pod_behind(key, labels)

    def pod_behind(self, key: str, labels: Mapping[str, str] | None = None) -> str:
        """The API object of a pod whose wire is there; its UID."""
        namespace, _, name = key.partition("/")
        wire = self.node.wires[key]
        document: Document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": dict(labels or {}),
                "annotations": {"ringfence.io/interface": wire.interface},
            },
            "spec": {
                "nodeName": self.name,
                "automountServiceAccountToken": False,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "c", "image": "none"}],
            },
        }
        made = self.client.create(PODS, document, manager=MANAGER)
        self.objects.append((PODS, namespace, name))
        self.status(key, {"phase": "Running", "podIPs": [{"ip": ip} for ip in wire.addresses]})
        metadata = made["metadata"]
        assert isinstance(metadata, dict)
        return str(metadata["uid"])

    def status(self, key: str, status: Mapping[str, object]) -> None:
        """Write a pod's status, as its kubelet would."""
        namespace, _, name = key.partition("/")
        ips = status.get("podIPs")
        whole: Document = dict(status)
        if isinstance(ips, list) and ips:
            whole["podIP"] = ips[0]["ip"]
        self.client.patch(
            PODS,
            name,
            namespace,
            {"status": whole},
            kind=PatchKind.MERGE,
            manager=MANAGER,
            subresource="status",
        )

    def delete_pod(self, key: str) -> None:
        """At once."""
        namespace, _, name = key.partition("/")
        self.client.delete(PODS, name, namespace, grace_seconds=0)

    def policy(self, document: Mapping[str, object]) -> None:
        """Create or replace a NetworkPolicy."""
        self.client.apply(
            NETWORK_POLICIES, dict(document), manager=MANAGER, on_conflict=OnConflict.FORCE
        )

    def delete_policy(self, namespace: str, name: str) -> None:
        """At once."""
        self.client.delete(NETWORK_POLICIES, name, namespace)

    def label(self, namespace: str, labels: Mapping[str, str | None]) -> None:
        """Change labels of a namespace."""
        patch: Document = {"metadata": {"labels": dict(labels)}}
        self.client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager=MANAGER)

    def record(self, entries: Mapping[str, RecordEntry], namespace: str) -> None:
        """The controller's record, all of it."""
        for document in record_documents(entries):
            metadata = document["metadata"]
            assert isinstance(metadata, dict)
            metadata["namespace"] = namespace
            self.client.apply(CONFIG_MAPS, document, manager=MANAGER, on_conflict=OnConflict.FORCE)

    # --- the agent ------------------------------------------------------------------------------

    def ask(self, command: str) -> control.Answer:
        """The agent's answer."""
        return control.ask(self.node.run_dir, {"command": command})

    def status_of_agent(self) -> control.Answer:
        """Nothing while it is not up."""
        try:
            return self.ask("status")
        except control.AgentAway:
            return {}

    def wait_ready(self) -> None:
        eventually(lambda: self.status_of_agent().get("ready") is True, "the agent is ready")

    def endpoints(self) -> dict[str, Mapping[str, object]]:
        """`namespace/pod` -> endpoint."""
        found = self.ask("endpoints")["endpoints"]
        assert isinstance(found, list)
        return {f"{item['namespace']}/{item['pod']}": item for item in found}

    def wait_enforced(self, *keys: str) -> None:
        """All of these pods are under enforcement."""
        self.wait_ready()
        eventually(
            lambda: all(self.endpoints().get(k, {}).get("status") == "ready" for k in keys),
            f"{', '.join(keys)} enforced",
        )

    def log(self) -> str:
        """What the agents said."""
        return self.node.log

    def reaches(self, source: str, destination: str) -> bool:
        return self.node.reaches(source, destination)

    def eventually_reaches(self, source: str, destination: str, expected: bool = True) -> None:
        eventually(
            lambda: self.reaches(source, destination) is expected,
            f"{source} -> {destination} {'open' if expected else 'closed'}",
        )


def _default_account(namespace: str) -> WatchScope:
    return WatchScope(namespace=namespace, fields="metadata.name=default")


def policy(namespace: str, name: str, **spec: object) -> Document:
    """A NetworkPolicy; without more it lets nobody in."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], **spec},
    }
