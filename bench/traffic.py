"""TCP between two pods of one tenant: without programs, with Ringfence, with equivalent nftables.

Three nodes stand side by side, each with the same two pods, wired by the lab's own code. Rounds
alternate between them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from generators.manifests.writing import Document
from lab import machine, netns, network
from lab.names import NETNS_ROOT, Places, Wire

RINGFENCE = Path(sys.executable).with_name("ringfence")
PORT = 5201
NAMESPACE = "app-test01"
CLIENT, SERVER = "client", "server"
ADDRESSES = {
    CLIENT: ("10.244.7.2", "fd00:10:244:7::2"),
    SERVER: ("10.244.7.3", "fd00:10:244:7::3"),
}
TENANTS = f"""\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
  - name: test01
    namespaces: {{names: [{NAMESPACE}]}}
"""
AIM = "Ringfence within 5 % of no programs"


@dataclass(frozen=True, slots=True)
class Node:
    """A node namespace with both pods; `places` names them."""

    places: Places

    def wire(self, pod: str) -> Wire:
        """The wiring of one of the pods."""
        return Wire(
            self.places.pod_netns(NAMESPACE, pod),
            self.places.interface(NAMESPACE, pod),
            ADDRESSES[pod],
        )

    def command(self, pod: str, *arguments: str) -> list[str]:
        """A command line that runs one end of the traffic in a pod."""
        return [
            *inside(self.wire(pod).netns),
            sys.executable,
            "-m",
            "bench.parts.stream",
            *arguments,
        ]


def run(scale: Scale) -> Iterator[Comparison]:
    """A stream of bytes, requests of one byte, and connections for one, over IPv4 and IPv6."""
    machine.check()
    with ExitStack() as stack:
        nodes = {
            "no programs": stack.enter_context(plain()),
            "Ringfence": stack.enter_context(enforced()),
            "nftables": stack.enter_context(_filtered()),
        }
        for node in nodes.values():
            stack.enter_context(serving(node))
        for family, address in zip(("IPv4", "IPv6"), ADDRESSES[SERVER], strict=True):
            yield _stream(scale, nodes, family, address)
            yield _requests(scale, nodes, family, address)
            yield _connections(scale, nodes, family, address)


def _stream(scale: Scale, nodes: dict[str, Node], family: str, address: str) -> Comparison:
    seconds = "1" if scale is Scale.FULL else "0.05"
    turns = {name: _turn(node, "send", address, seconds) for name, node in nodes.items()}
    return _compare(f"TCP stream, {family}", turns, scale.of(15, 1), Unit.BITS_PER_SECOND)


def _requests(scale: Scale, nodes: dict[str, Node], family: str, address: str) -> Comparison:
    count = str(scale.of(3000, 5))
    turns = {name: _turn(node, "ask", address, count) for name, node in nodes.items()}
    return _compare(
        f"TCP request and response of one byte, {family}", turns, scale.of(10, 1), Unit.SECONDS
    )


def _connections(scale: Scale, nodes: dict[str, Node], family: str, address: str) -> Comparison:
    count = str(scale.of(500, 5))
    turns = {name: _turn(node, "connect", address, count) for name, node in nodes.items()}
    return _compare(
        f"TCP connect, request, response and close, {family}",
        turns,
        scale.of(10, 1),
        Unit.SECONDS,
    )


def _compare(title: str, turns: dict[str, Turn], rounds: int, unit: Unit) -> Comparison:
    samples = alternate(turns, rounds)
    return Comparison(title, tuple(Series(n, unit, s) for n, s in samples.items()), AIM)


def _turn(node: Node, verb: str, address: str, amount: str) -> Turn:
    command = node.command(CLIENT, verb, address, str(PORT), amount)

    def turn() -> Sequence[float]:
        finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return [float(sample) for sample in json.loads(finished.stdout)]

    return turn


def inside(name: str) -> list[str]:
    """What to put before a command line that shall run in a network namespace."""
    return ["nsenter", f"--net={NETNS_ROOT / name}"]


@contextmanager
def serving(node: Node) -> Iterator[None]:
    """The other end of the traffic, in its pod."""
    command = node.command(SERVER, "serve", str(PORT))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            # The line that says it listens; None would mean that we asked for no pipe.
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("the server in the pod did not start")
            yield
        finally:
            process.terminate()


@contextmanager
def plain() -> Iterator[Node]:
    """Both pods and nothing between them."""
    node = Node(Places(f"bench-{token_hex(3)}"))
    names = [node.places.node_netns, *(node.wire(pod).netns for pod in ADDRESSES)]
    try:
        for name in names:
            netns.create(name)
        network.prepare_node(node.places.node_netns)
        for pod in ADDRESSES:
            network.add_pod(node.places.node_netns, node.wire(pod))
            network.connect_pod(node.places.node_netns, node.wire(pod))
        yield node
    finally:
        for name in names:
            netns.remove(name)


@contextmanager
def _filtered() -> Iterator[Node]:
    """The same, with rules in the node that match Ringfence's for this tenant."""
    with plain() as node:
        rules = _ruleset(node)
        command = [*inside(node.places.node_netns), "nft", "-f", "-"]
        subprocess.run(command, input=rules.encode(), check=True)
        yield node


def _ruleset(node: Node) -> str:
    """Own source address only; replies pass; else only the tenant enters."""
    four, six = zip(*ADDRESSES.values(), strict=True)
    chains = "".join(
        f"""
    iifname "{node.wire(pod).interface}" ip saddr != {addresses[0]} drop
    iifname "{node.wire(pod).interface}" ip6 saddr != {addresses[1]} drop
    oifname "{node.wire(pod).interface}" ip saddr @tenant4 accept
    oifname "{node.wire(pod).interface}" ip6 saddr @tenant6 accept
    oifname "{node.wire(pod).interface}" drop"""
        for pod, addresses in ADDRESSES.items()
    )
    return f"""
table inet ringfence {{
  set tenant4 {{ type ipv4_addr; elements = {{ {", ".join(four)} }}; }}
  set tenant6 {{ type ipv6_addr; elements = {{ {", ".join(six)} }}; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept{chains}
  }}
}}
"""


@contextmanager
def enforced() -> Iterator[Node]:
    """The same pods in a real lab, with the webhook's label, the policies and the programs."""
    node = Node(Places(f"bench-{token_hex(3)}"))
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as folder:
        tenants, objects = Path(folder, "tenants.yaml"), Path(folder, "objects.json")
        tenants.write_text(TENANTS)
        objects.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects()}))
        lab("up", node.places, "-c", str(tenants), "-f", str(objects))
        try:
            # A lab that enforces nothing would be the fastest of all.
            if lacking := json.loads(lab("status", node.places, "-o", "json"))["notEnforced"]:
                raise RuntimeError(f"not enforced: {lacking}")
            yield node
        finally:
            lab("down", node.places)


def lab(verb: str, places: Places, *arguments: str) -> bytes:
    """Run `ringfence lab VERB`; what it printed."""
    command = [str(RINGFENCE), "lab", verb, "--name", places.name, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def _objects() -> list[Document]:
    namespace: Document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    pods: list[Document] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip} for ip in addresses]},
        }
        for pod, addresses in ADDRESSES.items()
    ]
    return [namespace, *pods]
