"""A node and pods as network namespaces, for real packets through the real programs.

The node routes between the host sides of the pods' veths; each pod has an IPv4 and an IPv6 address
and finds its gateway by real ARP and neighbour discovery, through the programs.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from enforcer.datapath import attach
from enforcer.datapath.flows import FlowReader, FlowRecord
from enforcer.datapath.maps import Maps
from enforcer.policy.tables import AddressEntry, EndpointEntry, EndpointFlag, PolicyKey, Tables
from enforcer.writes.plan import replacing
from lab.netns import inside
from tests.testbed.waiting import eventually, patience

DEADLINE = 10.0
NODE = {4: "10.9.255.1", 6: "fd09::ff"}
GATEWAY = {4: "169.254.1.1", 6: "fe80::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = 8080
FIRST_INDEX = 1000
"""Interfaces of pods have the numbers after it: several nodes may share the maps."""


def command(*words: str) -> str:
    """Run a program; its output, or an error that shows what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: its namespace, its host-side veth in the node's, its addresses."""

    number: int
    namespace: str
    interface: str
    ifindex: int
    address: dict[int, str]


def configure_namespace(namespace: str) -> None:
    """IPv6 without waiting for duplicate address detection, whatever the machine's defaults are."""
    for name, value in (("disable_ipv6", "0"), ("accept_dad", "0")):
        for scope in ("all", "default"):
            with inside(namespace):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/{name}").write_text(value)
    command("ip", "-n", namespace, "link", "set", "lo", "up")


def give(namespace: str, interface: str, address: str) -> None:
    """Add an address that can be used at once, not when the kernel has got round to it."""
    words = (f"{address}/32",) if ":" not in address else (f"{address}/128", "nodad")
    command("ip", "-n", namespace, "address", "add", *words, "dev", interface)


@dataclass
class Cluster:
    """One node with its pods, and the programs that wait to be attached."""

    pins: Path
    tag: str = field(default_factory=lambda: token_hex(3))
    pods: list[Pod] = field(default_factory=list)
    generation: int = 1
    mode: attach.AttachMode | None = None

    @property
    def node(self) -> str:
        """Name of the node's namespace."""
        return f"rft-{self.tag}-node"

    def up(self) -> None:
        """Make the node; it forwards, and only it."""
        command("ip", "netns", "add", self.node)
        configure_namespace(self.node)
        with inside(self.node):
            for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path(f"/proc/sys/net/{name}").write_text("1")
        for address in NODE.values():
            give(self.node, "lo", address)

    def down(self) -> None:
        """Remove all namespaces, also of a pod that was half made; the veths go with them."""
        for path in Path("/run/netns").glob(f"rft-{self.tag}-*"):
            command("ip", "netns", "delete", path.name)

    def pod(self, number: int = 0) -> Pod:
        """Add a pod, the next one unless told; nothing is attached to it."""
        number = number or len(self.pods) + 1
        namespace, interface = f"rft-{self.tag}-{number}", f"rft{self.tag}{number}"
        command("ip", "netns", "add", namespace)
        configure_namespace(namespace)
        command(
            *f"ip -n {self.node} link add {interface} index {FIRST_INDEX + number}".split(),
            *("type", "veth", "peer", "name", "eth0"),
            *f"netns {namespace}".split(),
        )
        address = {4: f"10.9.0.{number}", 6: f"fd09::{number}"}
        self._address_node_side(interface, address)
        for own in address.values():
            give(namespace, "eth0", own)
        command("ip", "-n", namespace, "link", "set", "eth0", "up")
        _route_pod_side(namespace)
        with inside(self.node):
            ifindex = socket.if_nametoindex(interface)
        pod = Pod(number, namespace, interface, ifindex, address)
        self.pods.append(pod)
        return pod

    def _address_node_side(self, interface: str, address: dict[int, str]) -> None:
        node = ("ip", "-n", self.node)
        command(*node, "address", "add", f"{GATEWAY[4]}/32", "dev", interface)
        command(*node, "address", "add", f"{GATEWAY[6]}/64", "dev", interface, "nodad")
        command(*node, "link", "set", interface, "up")
        for family, own in address.items():
            version, length = (f"-{family}", 32 if family == 4 else 128)
            command(
                *node, version, "route", "add", f"{own}/{length}", "dev", interface,
                "src", NODE[family],
            )  # fmt: skip

    def attach(self, pod: Pod) -> attach.AttachMode:
        """Put the programs on the pod's veth, as the agent does: in the node's namespace."""
        with inside(self.node):
            return attach.attach(self.pins, pod.interface, self.mode)

    def enforce(
        self,
        flags: dict[int, EndpointFlag],
        policy: dict[PolicyKey, int] | None = None,
        tenants: dict[int, int] | None = None,
    ) -> None:
        """Tables for the pods with flags, by number; group and wall are the number too."""
        self.generation += 1
        tenants = tenants or {}
        addresses = {a: AddressEntry(1) for a in NODE.values()}
        for pod in self.pods:
            entry = AddressEntry(identity(pod), tenants.get(pod.number, 0))
            addresses.update(dict.fromkeys(pod.address.values(), entry))
        endpoints = {
            pod.ifindex: EndpointEntry(
                pod.number, pod.number, pod.number, tenants.get(pod.number, 0), self.generation,
                EndpointFlag.READY | flags[pod.number], (pod.address[4],), (pod.address[6],),
            )
            for pod in self.pods
            if pod.number in flags
        }  # fmt: skip
        desired = Tables(endpoints=endpoints, addresses=addresses, policy=policy or {})
        with Maps.open(self.pins) as maps:
            maps.apply(replacing(maps.read(), desired))


def _route_pod_side(namespace: str) -> None:
    pod = ("ip", "-n", namespace)
    command(*pod, "route", "add", GATEWAY[4], "dev", "eth0", "scope", "link")
    command(*pod, "route", "add", "default", "via", GATEWAY[4], "dev", "eth0")
    command(*pod, "-6", "route", "add", "default", "via", GATEWAY[6], "dev", "eth0")


def identity(pod: Pod) -> int:
    """The identity that `enforce` gives a pod."""
    return 255 + pod.number


def listen(namespace: str, family: int, kind: socket.SocketKind, port: int = PORT) -> socket.socket:
    """A server's socket in a namespace, on every address."""
    with inside(namespace):
        server = socket.socket(FAMILIES[family], kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == 6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind(("", port))
    if kind is socket.SOCK_STREAM:
        server.listen()
    server.setblocking(False)
    return server


def calling(namespace: str, family: int, address: str, port: int = PORT) -> socket.socket:
    """A TCP socket that has begun to connect."""
    with inside(namespace):
        client = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.connect((address, port))
    return client


def connected(client: socket.socket, timeout: float | None = None) -> bool:
    """Is the connection there within the deadline? False as soon as it is refused."""
    _, writable, _ = select.select(
        [], [client], [], patience(DEADLINE) if timeout is None else timeout
    )
    if not writable:
        return False
    code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert code in (0, errno.ECONNREFUSED, errno.EHOSTUNREACH), os.strerror(code)
    return code == 0


def wait_for_event(
    reader: FlowReader, wanted: Callable[[FlowRecord], bool], what: str
) -> FlowRecord:
    """The first event that is wanted; others are read and forgotten."""

    def found() -> FlowRecord | None:
        reader.wait(0.1)
        return next((record for record in reader.read() if wanted(record)), None)

    record = eventually(found, f"an event of {what}", DEADLINE)
    assert record is not None
    return record
