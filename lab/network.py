"""Pods and their node as network namespaces: veths, addresses, routes.

A pod's addresses are /32 and /128; the shape of its network says how it gets out:

    gateway  by an unused next hop: permanent neighbour entries on both sides, no ARP, no
             neighbour discovery; the node routes each address to its veth
    ptp      by an address of the veth's host side, found by ARP and neighbour discovery
    bridge   the pods' ranges are on the link, behind a bridge whose address leads elsewhere

Whatever a pod sends crosses the two programs on its veth. `add_pod` leaves the links down;
`connect_pod` follows when the agent enforces, so no pod is ever open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from enforcer.datapath import iproute
from enforcer.datapath.iproute import IPRoute
from generators.addresses import contains
from lab import netns
from lab.names import NETNS_ROOT, NODE_ADDRESSES, PodNetwork, Shape, Wire, mac
from lab.topology import LabNode

POD_INTERFACE = "eth0"
UPLINK = "uplink"
BRIDGE = "fabric"
POD_BRIDGE = "cni0"
GATEWAY = PodNetwork()
IFA_F_NODAD = 0x02
SYSCTLS = (
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
)
NODE_SYSCTLS = (
    *SYSCTLS,
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
)

NEIGHBOURLY = (("ipv6/conf/default/addr_gen_mode", "0"),)
"""Without a link-local address at its end of a veth a node asks for no neighbour behind it."""


def prepare_node(
    node: str, addresses: Sequence[str] = NODE_ADDRESSES, pods: PodNetwork = GATEWAY
) -> None:
    """Make a fresh network namespace a node: forwarding, both families, its own addresses on the
    loopback, and the bridge where its pods are to be behind one.
    """
    with _netlink(node) as netlink:
        _write_sysctls(NODE_SYSCTLS)
        loopback = _index(netlink, "lo")
        netlink.link("set", index=loopback, state="up")
        for address in addresses:
            netlink.addr("add", index=loopback, **_single(address))
        if pods.shape is Shape.BRIDGE:
            _make_bridge(netlink, pods)


def _make_bridge(netlink: IPRoute, pods: PodNetwork) -> None:
    hardware = mac(f"bridge {pods.gateways}")  # its own, or it changes with every port
    netlink.link("add", ifname=POD_BRIDGE, kind="bridge", address=hardware)
    index = _index(netlink, POD_BRIDGE)
    for gateway, cidr in zip(pods.gateways, pods.ranges, strict=True):
        length = ipaddress.ip_network(cidr).prefixlen
        netlink.addr("add", index=index, **(_single(gateway) | {"prefixlen": length}))
    netlink.link("set", index=index, state="up")


def connect_nodes(fabric: str, nodes: Sequence[LabNode], shape: Shape = Shape.GATEWAY) -> None:
    """Make fresh network namespaces nodes on one switch, each with a way to the others' pods."""
    _prepare_fabric(fabric)
    for node in nodes:
        prepare_node(node.places.netns, (), node.network(shape))
        _plug_in(fabric, node.places.netns, node.port, node.interfaces)
    for node in nodes:
        for other in nodes:
            if other is not node:
                _lead_to(node.places.netns, other)


def join_fabric(fabric: str, addresses: Sequence[str], nodes: Sequence[LabNode]) -> None:
    """Make the switch a host, at these addresses with their prefix lengths, that nodes and their
    pods reach and that reaches them: an API server's place. The nodes are to be ones whose pods
    somebody else wires. It is their way to all else, too: to an address of a Service
    the kernel wants one even of a process of the node.
    """
    for node in nodes:
        with netns.inside(node.places.netns):
            _write_sysctls(NEIGHBOURLY)
    with _netlink(fabric) as netlink:
        index = _index(netlink, BRIDGE)
        for address in addresses:
            own, _, length = address.partition("/")
            netlink.addr("add", index=index, **(_single(own) | {"prefixlen": int(length)}))
        for node in nodes:
            for cidr, address in zip(node.pod_cidrs, node.addresses, strict=True):
                netlink.route("replace", dst=cidr, gateway=address, oif=index)
    for node in nodes:
        with _netlink(node.places.netns) as netlink:
            index = _index(netlink, UPLINK)
            for own, everything in zip(addresses, ("0.0.0.0/0", "::/0"), strict=True):
                gateway = own.partition("/")[0]
                netlink.route("replace", dst=everything, gateway=gateway, oif=index)


def _prepare_fabric(fabric: str) -> None:
    with _netlink(fabric) as netlink:
        _write_sysctls(SYSCTLS)
        netlink.link("set", index=_index(netlink, "lo"), state="up")
        netlink.link("add", ifname=BRIDGE, kind="bridge")
        netlink.link("set", index=_index(netlink, BRIDGE), state="up")


def _plug_in(fabric: str, node: str, port: str, addresses: Sequence[str]) -> None:
    """Connect a node to the switch; `addresses` are the node's own, with their prefix length."""
    with _opened(node) as target, _netlink(fabric) as netlink:
        peer = {"ifname": UPLINK, "net_ns_fd": target, "address": mac(f"uplink {port}")}
        netlink.link("add", ifname=port, kind="veth", peer=peer)
        index = _index(netlink, port)
        netlink.link("set", index=index, master=_index(netlink, BRIDGE))
        netlink.link("set", index=index, state="up")
    with _netlink(node) as netlink:
        index = _index(netlink, UPLINK)
        for address in addresses:
            own, _, length = address.partition("/")
            netlink.addr("add", index=index, **(_single(own) | {"prefixlen": int(length)}))
        netlink.link("set", index=index, state="up")


def _lead_to(node: str, other: LabNode) -> None:
    """Where another node and its pods are; hardware addresses need no lookup."""
    with _netlink(node) as netlink:
        index = _index(netlink, UPLINK)
        for cidr, address in zip(other.pod_cidrs, other.addresses, strict=True):
            _neighbour(netlink, index, address, mac(f"uplink {other.port}"))
            netlink.route("replace", dst=cidr, gateway=address, oif=index)


def add_pod(node: str, wire: Wire) -> None:
    """Wire a pod's fresh network namespace to the node, with its addresses, links down."""
    with netns.inside(wire.netns):
        _write_sysctls(SYSCTLS)  # before the interface is there: it takes the defaults
    with _opened(wire.netns) as target, _netlink(node) as netlink:
        netlink.link(
            "add",
            ifname=wire.interface,
            kind="veth",
            address=mac(f"host {wire.interface}"),
            peer={
                "ifname": POD_INTERFACE,
                "net_ns_fd": target,
                "address": mac(f"pod {wire.interface}"),
            },
        )
    with _netlink(wire.netns) as netlink:
        netlink.link("set", index=_index(netlink, "lo"), state="up")
        index = _index(netlink, POD_INTERFACE)
        for address in wire.addresses:
            netlink.addr("add", index=index, **_single(address))


def connect_pod(node: str, wire: Wire, pods: PodNetwork = GATEWAY) -> None:
    """Let packets flow: links up, then routes and neighbour entries on both sides. Again is
    fine.
    """
    gateways = _of_families(pods.gateways, wire.addresses)
    with _netlink(node) as netlink:
        index = _index(netlink, wire.interface)
        if pods.shape is Shape.BRIDGE:
            netlink.link("set", index=index, master=_index(netlink, POD_BRIDGE))
        netlink.link("set", index=index, state="up")
        if pods.shape is Shape.PTP:
            for gateway in gateways:
                netlink.addr("replace", index=index, **_single(gateway))
    _lead_out(wire, pods, gateways)
    with _netlink(node) as netlink:
        _lead_in(netlink, wire, pods)


def _lead_out(wire: Wire, pods: PodNetwork, gateways: Sequence[str]) -> None:
    """The pod's own routes."""
    with _netlink(wire.netns) as netlink:
        index = _index(netlink, POD_INTERFACE)
        netlink.link("set", index=index, state="up")
        if pods.shape is Shape.BRIDGE:
            for cidr in _of_families(pods.ranges, wire.addresses):
                netlink.route("replace", dst=cidr, oif=index)
        for gateway in gateways:
            if pods.shape is Shape.GATEWAY:
                _neighbour(netlink, index, gateway, mac(f"host {wire.interface}"))
            family = ipaddress.ip_address(gateway).version
            netlink.route(
                "replace",
                dst="0.0.0.0/0" if family == 4 else "::/0",
                gateway=gateway,
                oif=index,
                flags=["onlink"],
            )


def _lead_in(netlink: IPRoute, wire: Wire, pods: PodNetwork) -> None:
    """The node's routes to a pod; behind a bridge only to what is not in the bridge's ranges."""
    bridged = pods.shape is Shape.BRIDGE
    index = _index(netlink, POD_BRIDGE if bridged else wire.interface)
    for address in wire.addresses:
        if pods.shape is Shape.GATEWAY:
            _neighbour(netlink, index, address, mac(f"pod {wire.interface}"))
        if not (bridged and any(contains(cidr, address) for cidr in pods.ranges)):
            netlink.route("replace", dst=_prefix(address), oif=index)


def remove_pod(node: str, interface: str) -> None:
    """Cut a pod off: its veth goes, on both sides, even if processes remain in its network
    namespace.
    """
    with _netlink(node) as netlink:
        for index in netlink.link_lookup(ifname=interface):
            netlink.link("delete", index=index)


def interface_of(pod: str, node: str) -> str:
    """The node's end of a pod's veth; empty where it is gone."""
    with _netlink(pod) as netlink:
        found = netlink.link_lookup(ifname=POD_INTERFACE)
        peers = [int(str(_of(link)["IFLA_LINK"])) for link in netlink.get_links(*found)]
    with _netlink(node) as netlink:
        there = [str(_of(link)["IFLA_IFNAME"]) for link in netlink.get_links(*peers)]
    return next(iter(there), "")


def _of(link: Mapping[str, Sequence[tuple[str, object]]]) -> Mapping[str, object]:
    return dict(link["attrs"])


def add_node_address(node: str, address: str) -> None:
    """Give the node a further address: that of a pod on the node's network. Again is fine."""
    with _netlink(node) as netlink:
        netlink.addr("replace", index=_index(netlink, "lo"), **_single(address))


@contextmanager
def _netlink(name: str) -> Iterator[IPRoute]:
    """A netlink socket in the named network namespace, with this thread inside it."""
    with netns.inside(name), iproute.opened() as netlink:
        yield netlink


@contextmanager
def _opened(name: str) -> Iterator[int]:
    with (NETNS_ROOT / name).open("rb") as file:
        yield file.fileno()


def _index(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise FileNotFoundError(f"interface {name} is not there")
    return found[0]


def _neighbour(netlink: IPRoute, index: int, address: str, hardware: str) -> None:
    netlink.neigh("replace", dst=address, lladdr=hardware, ifindex=index, state="permanent")


def _single(address: str) -> dict[str, object]:
    parsed = ipaddress.ip_address(address)
    nodad = {} if parsed.version == 4 else {"flags": IFA_F_NODAD}
    return {"address": address, "prefixlen": parsed.max_prefixlen, **nodad}


def _prefix(address: str) -> str:
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def _of_families(candidates: Sequence[str], addresses: Sequence[str]) -> tuple[str, ...]:
    """Those of the addresses and ranges that are of the families of the pod's addresses."""
    families = {ipaddress.ip_address(address).version for address in addresses}
    return tuple(c for c in candidates if ipaddress.ip_network(c).version in families)


def _write_sysctls(settings: Sequence[tuple[str, str]]) -> None:
    """/proc/sys/net shows the network namespace of its reader."""
    for name, value in settings:
        Path("/proc/sys/net", name).write_text(value)
