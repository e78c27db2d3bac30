"""From a write at the API server to the packets: a real lab on a real API server.

A policy is created and deleted while datagrams follow each other between two pods; a namespace and
a pod are created, and the pod runs. A pod of the lab runs only when the CNI plugin has answered,
and that is when its policy is in force. The baseline is the write alone.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from bench.measure import Comparison, Scale, Series, Unit
from bench.traffic import TENANTS, lab
from generators.documents.json import Document, mapping, text
from generators.kube.client import Client
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, PODS
from lab import machine, netns
from lab.names import Places
from tests.testbed.waiting import eventually

OWNER = "bench"
NAMESPACE = "app-test01"
SENDER, RECEIVER = "sender", "receiver"
PORT = 7000
GAP_SECONDS = 0.0005
SETTLED_SECONDS = 0.1
_soon = partial(eventually, seconds=30.0, poll=0.001)

DENY: Document = {
    "metadata": {"name": "deny", "namespace": NAMESPACE},
    "spec": {
        "podSelector": {"matchLabels": {"name": SENDER}},
        "policyTypes": ["Egress"],
    },
}
CUT_AIM = "p50 under 20 ms; Cilium 1.20 on such a machine about 100 ms"


class Pulse:
    """Datagrams from one pod to the other without pause; when the last one arrived."""

    def __init__(self, sending: socket.socket, receiving: socket.socket) -> None:
        self._sending = sending
        self._receiving = receiving
        self._stop = threading.Event()
        self.last = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Both ends in threads."""
        threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _send(self) -> None:
        while not self._stop.wait(GAP_SECONDS):
            self._sending.send(b"x")

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                self._receiving.recv(16)
            except TimeoutError:
                continue
            self.last = time.monotonic()

    def arrives(self, since: float) -> bool:
        """Whether anything has arrived since then."""
        return self.last > since

    def silent(self) -> bool:
        """Whether nothing has arrived for a while."""
        return time.monotonic() - self.last > SETTLED_SECONDS


def run(scale: Scale) -> Iterator[Comparison]:
    """Policies, then namespaces."""
    machine.check()
    with ExitStack() as stack:
        client, sockets = stack.enter_context(_lab())
        pulse = Pulse(*sockets)
        with pulse.running():
            _soon(lambda: pulse.arrives(0.0), "a datagram arrives")
            yield _policies(client, pulse, scale.of(60, 2))
        yield _namespaces(client, scale.of(30, 2))


def _policies(client: Client, pulse: Pulse, rounds: int) -> Comparison:
    samples: dict[str, list[float]] = {"created": [], "cut": [], "deleted": [], "through": []}
    for _ in range(rounds):
        start = time.monotonic()
        client.create(NETWORK_POLICIES, DENY, manager=OWNER)
        samples["created"].append(time.monotonic() - start)
        _soon(pulse.silent, "the policy cuts")
        samples["cut"].append(max(0.0, pulse.last - start))
        start = time.monotonic()
        client.delete(NETWORK_POLICIES, "deny", NAMESPACE)
        samples["deleted"].append(time.monotonic() - start)
        _soon(lambda since=start: pulse.arrives(since), "the datagrams arrive again")  # type: ignore[misc]
        samples["through"].append(pulse.last - start)
    names = {
        "created": "the write alone, create",
        "cut": "created, until the last datagram",
        "deleted": "the write alone, delete",
        "through": "deleted, until the first datagram",
    }
    series = tuple(Series(names[key], Unit.SECONDS, tuple(s)) for key, s in samples.items())
    return Comparison("NetworkPolicy at the API server to packets", series, CUT_AIM)


def _namespaces(client: Client, rounds: int) -> Comparison:
    bare, running = [], []
    for number in range(rounds):
        name = f"n{number}-test01"
        start = time.monotonic()
        client.create(NAMESPACES, {"metadata": {"name": name}}, manager=OWNER)
        bare.append(time.monotonic() - start)
        client.create(PODS, _pod(name, "a"), manager=OWNER)
        _soon(lambda: runs(client, name, "a"), "the pod runs")  # noqa: B023
        running.append(time.monotonic() - start)
        client.delete(NAMESPACES, name)
    return Comparison(
        "Namespace and pod created, until the pod runs and is enforced",
        (
            Series("the namespace's write alone, admission included", Unit.SECONDS, tuple(bare)),
            Series("until the pod runs", Unit.SECONDS, tuple(running)),
        ),
    )


@contextmanager
def _lab() -> Iterator[tuple[Client, tuple[socket.socket, socket.socket]]]:
    places = Places(f"bench-{token_hex(3)}")
    with TemporaryDirectory(prefix="ringfence-bench-") as folder, ExitStack() as stack:
        tenants = Path(folder, "tenants.yaml")
        tenants.write_text(TENANTS.replace("names:", 'suffixes: ["-test01"], names:'))
        stack.callback(lab, "down", places)
        lab("up", places, "--api-server", "--nodes", "1", "-c", str(tenants))
        kubeconfig = json.loads(lab("status", places, "-o", "json"))["kubeconfig"]
        client = stack.enter_context(Client.connect(kubeconfig))
        client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}}, manager=OWNER)
        for name in (SENDER, RECEIVER):
            client.create(PODS, _pod(NAMESPACE, name), manager=OWNER)
        for name in (SENDER, RECEIVER):
            _soon(lambda: runs(client, NAMESPACE, name), "the pods run")  # noqa: B023
        status = json.loads(lab("status", places, "-o", "json"))
        pods: Mapping[str, Mapping[str, object]] = {
            f"{pod['namespace']}/{pod['name']}": pod for pod in status["pods"]
        }
        receiving = _socket(pods[f"{NAMESPACE}/{RECEIVER}"])
        sending = _socket(pods[f"{NAMESPACE}/{SENDER}"])
        for opened in (receiving, sending):
            stack.callback(opened.close)
        receiving.settimeout(SETTLED_SECONDS)
        address = _address(client, RECEIVER)
        receiving.bind((address, PORT))
        sending.connect((address, PORT))
        yield client, (sending, receiving)


def _socket(pod: Mapping[str, object]) -> socket.socket:
    with netns.inside(str(pod["networkNamespace"])):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _pod(namespace: str, name: str) -> Document:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"name": name}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }


def runs(client: Client, namespace: str, name: str) -> bool:
    """Whether a pod's status is Running."""
    return text(mapping(client.get(PODS, name, namespace), "status"), "phase") == "Running"


def _address(client: Client, name: str) -> str:
    return text(mapping(client.get(PODS, name, NAMESPACE), "status"), "podIP")
