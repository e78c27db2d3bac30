"""A node is what its interfaces say: which addresses count, and that the agent follows them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.agent.own_addresses import OwnNode, of_node
from enforcer.datapath import kernel
from enforcer.datapath.links import HeldAddress, Link
from enforcer.datapath.maps import Maps
from enforcer.policy.changes import NodesChange, PodChange
from enforcer.policy.tables import IDENTITY_HOST
from generators.objects import Node as NodeObject
from generators.reachability.protocols import TUNNEL_PORTS
from lab import netns, network
from tests.enforcer.node import PORT, SILENCE_SECONDS, Node, deny_ingress
from tests.testbed.waiting import eventually

UPLINK = Link(2, "eth0")
BRIDGE = Link(3, "cni0", "bridge")
VETH = Link(4, "veth1", "veth", peer=2, netns=7)
IPVS = Link(5, "kube-ipvs0", "dummy")
DNS = Link(6, "nodelocaldns", "dummy")
INTERFACES = (UPLINK, BRIDGE, VETH, IPVS, DNS)
GLOBAL, LINK_LOCAL, HOST = 0, 253, 254
PERMANENT, TENTATIVE, DADFAILED, OPTIMISTIC = 0x80, 0x40, 0x08, 0x04


@pytest.mark.parametrize(
    ("link", "address", "scope", "flags", "counts"),
    [
        pytest.param(UPLINK, "192.0.2.1", GLOBAL, PERMANENT, True, id="uplink"),
        pytest.param(UPLINK, "192.0.2.1", GLOBAL, 0, True, id="uplink by DHCP"),
        pytest.param(UPLINK, "2001:db8::1", GLOBAL, 0, True, id="uplink by router advertisement"),
        pytest.param(BRIDGE, "10.244.1.1", GLOBAL, PERMANENT, True, id="bridge"),
        pytest.param(BRIDGE, "fd00::1", GLOBAL, PERMANENT, True, id="bridge, IPv6"),
        pytest.param(VETH, "10.244.1.1", GLOBAL, PERMANENT, True, id="host side of a veth"),
        pytest.param(VETH, "169.254.1.1", LINK_LOCAL, PERMANENT, True, id="of the link, IPv4"),
        pytest.param(BRIDGE, "fd00::9", GLOBAL, 0, False, id="router advertisement by a pod"),
        pytest.param(VETH, "fd00::9", GLOBAL, 0, False, id="the same, on a veth"),
        pytest.param(BRIDGE, "10.0.0.9", GLOBAL, 0, False, id="DHCP by a pod"),
        pytest.param(UPLINK, "127.0.0.1", HOST, PERMANENT, False, id="loopback"),
        pytest.param(VETH, "fe80::1", LINK_LOCAL, PERMANENT, False, id="of the link, IPv6"),
        pytest.param(VETH, "fe80::1", GLOBAL, PERMANENT, False, id="the same, called global"),
        pytest.param(BRIDGE, "fd00::1", GLOBAL, PERMANENT | TENTATIVE, False, id="not yet in use"),
        pytest.param(
            BRIDGE, "fd00::1", GLOBAL, PERMANENT | TENTATIVE | OPTIMISTIC, True, id="optimistic"
        ),
        pytest.param(
            BRIDGE, "fd00::1", GLOBAL, PERMANENT | DADFAILED, False, id="a neighbour has it"
        ),
        pytest.param(IPVS, "10.96.0.1", GLOBAL, PERMANENT, False, id="a Service's, by IPVS"),
        pytest.param(DNS, "169.254.20.10", GLOBAL, PERMANENT, False, id="the DNS cache's"),
        pytest.param(Link(9, "gone"), "10.0.0.1", GLOBAL, PERMANENT, False, id="interface gone"),
    ],
)
def test_only_addresses_that_nobody_else_can_have_made_count(
    link: Link, address: str, scope: int, flags: int, counts: bool
) -> None:
    held = HeldAddress(link.ifindex, address, scope, flags)
    assert of_node([held], INTERFACES) == ((address,) if counts else ())


def test_an_address_on_many_veths_is_one() -> None:
    twice = [
        HeldAddress(i, "10.244.1.1", GLOBAL, PERMANENT) for i in (BRIDGE.ifindex, VETH.ifindex)
    ]
    assert of_node(twice, INTERFACES) == ("10.244.1.1",)


def shown(*nodes: NodeObject) -> NodesChange:
    return NodesChange(nodes, ("10.0.0.0/8",))


def test_the_loop_sees_its_own_node_with_the_addresses_of_its_interfaces() -> None:
    """Whatever a file says of them, and of no other node's."""
    found = OwnNode("here", ("10.1.0.1",))
    told = shown(NodeObject("here", ("192.0.2.1",), (), ("9.9.9.9",)), NodeObject("there"))
    pod = PodChange("n/p", None)
    seen = shown(NodeObject("here", ("192.0.2.1",), (), ("10.1.0.1",)), NodeObject("there"))
    assert list(found.follow([pod, told])) == [pod, seen]
    assert list(found.follow([pod])) == [pod]


def test_a_change_of_addresses_is_a_change_of_nodes() -> None:
    found = OwnNode("here")
    assert list(found.follow([])) == []
    found.have(("10.1.0.1",))
    assert list(found.follow([])) == [], "no node is known yet"
    list(found.follow([shown()]))
    found.have(("10.1.0.2",))
    assert list(found.follow([])) == [shown(NodeObject("here", (), (), ("10.1.0.2",)))]
    assert list(found.follow([])) == []


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def address(node: Node, verb: str, what: str, interface: str) -> None:
    nodad = ["nodad"] if ":" in what and verb == "add" else []
    words = ["ip", "-n", node.name, "address", verb, what, "dev", interface, *nodad]
    subprocess.run(words, check=True, capture_output=True)


def enters(node: Node, source: str, pod: str) -> bool:
    """Whether the node's own connection, from one of its addresses, enters a pod."""
    family = 6 if ":" in source else 4
    with netns.inside(node.name):
        client = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET)
    with client:
        client.settimeout(SILENCE_SECONDS)
        client.bind((source, 0))
        try:
            client.connect((node.wires[pod].addresses[family == 6], PORT))
        except TimeoutError:
            return False
    return True


@pytest.mark.bpf
@pytest.mark.timeout(120)
@pytest.mark.parametrize("source", ["10.88.0.1", "fd88::1"], ids=["IPv4", "IPv6"])
def test_an_address_that_comes_or_goes_is_the_node_or_not(node: Node, source: str) -> None:
    """It takes the agent no tick of a clock, and no word of the API server."""
    agent = node.start()
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    interface = node.wires["t1/a"].interface
    (pins,) = node.pin_dir.glob("v*")
    with Maps.open(pins) as maps:

        def is_node() -> bool:
            entry = maps.read().addresses.get(source)
            return entry is not None and entry.identity == IDENTITY_HOST

        def is_not() -> bool:
            return not is_node()

        for verb, followed in (("add", is_node), ("delete", is_not), ("add", is_node)):
            began = time.monotonic()
            address(node, verb, source, interface)
            eventually(followed, f"{verb} is followed")
            print(f"{verb} followed after {(time.monotonic() - began) * 1000:.0f} ms")
    network.connect_pod(node.name, node.wires["t1/a"])  # routes went with the last address
    assert enters(node, source, "t1/a")
    assert not node.reaches("t2/b", "t1/a")


@pytest.mark.bpf
@pytest.mark.timeout(120)
def test_ports_of_a_nodes_tunnels_are_followed(node: Node) -> None:
    """A device made while the agent runs counts, beside the ports that are usual."""
    agent = node.start()
    node.wait(node.write(*node.pods()), agent)
    (pins,) = node.pin_dir.glob("v*")
    ip = ("ip", "-n", node.name, "link")
    with kernel.open_pin(pins / "tunnel_map") as ports:

        def leads_to_tunnel(port: int) -> bool:
            word = kernel.map_lookup(ports.fd, (port // 64).to_bytes(4, "little"), 8)
            return word is not None and bool(word[port % 64 // 8] >> port % 8 & 1)

        eventually(lambda: all(map(leads_to_tunnel, TUNNEL_PORTS)), "usual ports are refused")
        assert not leads_to_tunnel(7777)
        device = ["tunnel", "type", "vxlan", "id", "7", "dstport", "7777", "local", "192.0.2.1"]
        subprocess.run([*ip, "add", *device], check=True, capture_output=True)
        eventually(lambda: leads_to_tunnel(7777), "a new tunnel is followed")
        subprocess.run([*ip, "delete", "tunnel"], check=True, capture_output=True)
        eventually(lambda: not leads_to_tunnel(7777), "its end is followed, too")
