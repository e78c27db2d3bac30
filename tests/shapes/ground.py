"""Nodes with pods on which shapes are let loose: real veths, the real programs, real packets.

Three pods a ground: the victim of a strict tenant, its friend of the same tenant, and a stranger of
another one. On one node, on two, or behind one bridge.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from enforcer.datapath.maps import Maps
from enforcer.policy.tables import (
    PEER_TENANT,
    AddressEntry,
    CidrEntry,
    CidrFlag,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    PolicyKey,
    Tables,
)
from enforcer.writes.plan import replacing
from lab.netns import inside
from tests.enforcer.datapath.pods import NODE, Cluster, Pod, command, identity
from tests.shapes.families import SERVICE, TUNNEL_MAC, Scene, Shape
from tests.shapes.frames import End

VICTIM, FRIEND, STRANGER = 1, 2, 3
TENANTS = {VICTIM: 7, FRIEND: 7, STRANGER: 8}
WALL = 30
SIOCGIFHWADDR = 0x8927
SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING = 263, 15, 4
EVERY_PROTOCOL = 3
ROOM = 1 << 25
QUIET_SECONDS, DEADLINE_SECONDS = 0.3, 20.0
NO_OFFLOAD = bytes(10)
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
TUNNELS = (4789, 6081, 8472)


class Wiring(StrEnum):
    """How sender and victim are connected."""

    NODE = "one node"
    NODES = "two nodes"
    BRIDGE = "one bridge"


@dataclass
class Ground:
    """A wired ground."""

    wiring: Wiring
    nodes: list[Cluster]
    pods: dict[int, Pod]

    def end(self, number: int) -> End:
        """MAC and addresses of a pod."""
        pod = self.pods[number]
        return End(mac_of(pod.namespace, "eth0"), pod.address[4], pod.address[6])

    def scene(self, sender: int) -> Scene:
        """A pod and whom it attacks."""
        pod, node = self.pods[sender], self.node_of(sender)
        bridged = self.wiring is Wiring.BRIDGE
        victim = self.end(VICTIM)
        return Scene(
            sender=self.end(sender),
            gateway=victim.mac if bridged else mac_of(node.node, pod.interface),
            victim=victim,
            friend=self.end(FRIEND if sender != FRIEND else STRANGER),
            node=End("", NODE[4], NODE[6]),
            direct=bridged,
        )

    def node_of(self, number: int) -> Cluster:
        """The node that a pod is on."""
        return next(node for node in self.nodes if self.pods[number] in node.pods)

    def arrived(self, sender: int, shapes: Iterable[Shape]) -> list[str]:
        """The names of the shapes that the victim gets to see, and of the control behind them."""
        sent = list(shapes)
        with (
            listening(self.pods[VICTIM].namespace) as heard,
            sending(self.pods[sender].namespace) as out,
        ):
            for shape in sent:
                try:
                    out.send((shape.offload or NO_OFFLOAD) + shape.frame)
                except OSError:  # the kernel of the pod itself refuses it
                    continue
            seen = b"\n".join(collected(heard))
        return [shape.name for shape in sent if shape.mark in seen]


def mac_of(namespace: str, interface: str) -> str:
    """The MAC of an interface."""
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        answer = fcntl.ioctl(asked, SIOCGIFHWADDR, struct.pack("16s16x", interface.encode()))
    return answer[18:24].hex(":")


@contextmanager
def listening(namespace: str) -> Iterator[socket.socket]:
    """All that arrives in a pod."""
    with inside(namespace):
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
        heard.setsockopt(socket.SOL_SOCKET, 33, ROOM)  # SO_RCVBUFFORCE
        heard.bind(("eth0", EVERY_PROTOCOL))
    heard.setblocking(False)
    with heard:
        yield heard


@contextmanager
def sending(namespace: str) -> Iterator[socket.socket]:
    """A packet socket whose frames say how they are to be finished."""
    with inside(namespace):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        out.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        out.bind(("eth0", 0))
    with out:
        yield out


def collected(heard: socket.socket) -> Iterator[bytes]:
    """What came in, until it is quiet."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    quiet = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < min(quiet, deadline):
        try:
            frame, (_, _, kind, *_) = heard.recvfrom(1 << 17)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        quiet = time.monotonic() + QUIET_SECONDS
        if kind != PACKET_OUTGOING:
            yield frame


@contextmanager
def ground(pins: Path, wiring: Wiring, *, enforced: bool = True) -> Iterator[Ground]:
    """A ground, until it is left; names are its own."""
    with ExitStack() as stack:
        nodes = [Cluster(pins)]
        if wiring is Wiring.NODES:
            nodes.append(Cluster(pins))
        for node in nodes:
            stack.callback(node.down)
            node.up()
        homes = {VICTIM: nodes[-1], FRIEND: nodes[0], STRANGER: nodes[0]}
        pods = {number: homes[number].pod(number) for number in homes}
        made = Ground(wiring, nodes, pods)
        if wiring is Wiring.NODES:
            _connect(made)
        if wiring is Wiring.BRIDGE:
            _bridge(made)
        for node in nodes:
            _dig(node)
        for number, node in homes.items() if enforced else ():
            node.attach(pods[number])
        _enforce(pins, made)
        yield made


def serve(on: Ground) -> None:
    """Have every node lead a virtual address to the victim, as kube-proxy does.

    Marks of shapes are not in their checksums, and what has a wrong one is not led anywhere.
    """
    victim = on.end(VICTIM)
    rules = (
        f"ip daddr {SERVICE.ip4} dnat ip to {victim.ip4}; "
        f"ip6 daddr {SERVICE.ip6} dnat ip6 to {victim.ip6};"
    )
    hook = "type nat hook prerouting priority -100; policy accept;"
    for node in on.nodes:
        table = f"table inet shapes {{ chain services {{ {hook} {rules} }}; }}"
        command("nsenter", f"--net=/run/netns/{node.node}", "nft", table)
        with inside(node.node):
            Path("/proc/sys/net/netfilter/nf_conntrack_checksum").write_text("0")


def _connect(made: Ground) -> None:
    """A wire between the nodes, at whose ends checksums are finished in software."""
    first, second = made.nodes
    words = f"ip -n {first.node} link add uplink type veth peer name uplink netns {second.node}"
    command(*words.split())
    for node in made.nodes:
        command("ip", "-n", node.node, "link", "set", "uplink", "up")
        finish_in_software(node.node, "uplink")
    for node, other in ((first, second), (second, first)):
        mac = mac_of(other.node, "uplink")
        for pod in other.pods:
            for family, address in pod.address.items():
                ip = ("ip", "-n", node.node, f"-{family}")
                command(*ip, "neigh", "add", address, "lladdr", mac, "dev", "uplink")
                command(*ip, "route", "add", address, "dev", "uplink")


def finish_in_software(namespace: str, interface: str) -> None:
    """As on a wire without offloads."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked_for = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
        fcntl.ioctl(asked, SIOCETHTOOL, asked_for)


def _bridge(made: Ground) -> None:
    """All pods on one link."""
    (node,) = made.nodes
    ip = ("ip", "-n", node.node)
    command(*ip, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    command(*ip, "link", "set", "br0", "up")
    for pod in made.pods.values():
        command(*ip, "link", "set", pod.interface, "master", "br0")


def _dig(node: Cluster) -> None:
    """Tunnels of the node, as far as its kernel has them."""
    devices = (
        f"vxlan id 1 dstport 8472 local {NODE[4]} nolearning",
        f"vxlan id 2 dstport 4789 local {NODE[6]} nolearning",
        f"geneve id 1 remote {NODE[4]} dstport 6081",
        f"ipip local {NODE[4]}",
        f"sit local {NODE[4]}",
        f"gre local {NODE[4]}",
        f"ip6tnl local {NODE[6]}",
        f"ip6gre local {NODE[6]}",
    )
    for number, device in enumerate(devices):
        ip = ("ip", "-n", node.node, "link")
        made = subprocess.run(
            [*ip, "add", f"tunnel{number}", "type", *device.split()],
            capture_output=True,
            check=False,
        )
        if made.returncode == 0:
            command(*ip, "set", f"tunnel{number}", "up")
        if made.returncode == 0 and device.startswith(("vxlan", "geneve")):
            command(*ip, "set", f"tunnel{number}", "address", TUNNEL_MAC)


def _enforce(pins: Path, made: Ground) -> None:
    """A strict wall around each tenant."""
    endpoints = {
        pod.ifindex: EndpointEntry(
            number, 0, WALL + TENANTS[number], TENANTS[number], 1,
            EndpointFlag.READY | EndpointFlag.WALL, (pod.address[4],), (pod.address[6],),
            mac_of(pod.namespace, "eth0"),
        )
        for number, pod in made.pods.items()
    }  # fmt: skip
    addresses = {address: AddressEntry(1) for address in NODE.values()}
    for number, pod in made.pods.items():
        entry = AddressEntry(identity(pod), TENANTS[number])
        addresses.update(dict.fromkeys(pod.address.values(), entry))
    policy = {
        PolicyKey(WALL + tenant, PEER_TENANT | tenant, 0, 0, Dir.INGRESS): 1000 + tenant
        for tenant in TENANTS.values()
    }
    inside_cluster = CidrEntry(9, CidrFlag.IN_CLUSTER)
    ranges = ("10.9.0.0/16", "fd09::/64")
    tries = {CidrKey(tenant, prefix) for tenant in TENANTS.values() for prefix in ranges}
    cidrs = dict.fromkeys(tries, inside_cluster)
    wanted = Tables(endpoints=endpoints, addresses=addresses, policy=policy, cidrs=cidrs)
    with Maps.open(pins) as maps:
        maps.apply(replacing(maps.read(), wanted))
        maps.forget(list(TENANTS))
        maps.lead_to_tunnels(TUNNELS)
