"""The proxy's network namespace: a veth to the node, and a stack that takes every packet for its
own.

Nothing of the node's changes but that it has one more interface. The namespace ends with the last
process in it and takes the veth along, so there is nothing to clean up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

from enforcer.datapath import iproute, kernel, netns
from enforcer.datapath.attach import FROM_PROXY
from enforcer.datapath.iproute import IPRoute
from generators.errors import RingfenceError

NODE_END, PROXY_END = "rfp0", "rfp1"
TABLE_LOCAL, SCOPE_HOST = 255, 254
CLSACT_PARENT, CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
ETH_P_ALL = 3
FIRST_PORT, LAST_PORT = 20_000, 32_767
"""Of the proxy's own connections: below those that pods begin with."""
SYSCTLS = (
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    # Sockets and resets have the mark of the packet that they answer: it says which leg they are.
    ("net/ipv4/tcp_fwmark_accept", "1"),
    ("net/ipv4/fwmark_reflect", "1"),
    ("net/ipv6/fwmark_reflect", "1"),
    ("net/ipv4/ip_local_port_range", f"{FIRST_PORT} {LAST_PORT}"),
    ("net/ipv4/ip_forward", "0"),
)
SIOCGIFHWADDR = 0x8927


class NoNamespace(RingfenceError):
    """The proxy's network namespace could not be made; HTTP rules are closed."""

    exit_code = 1


def make() -> int:
    """A namespace, wired to the node that this process is on; its descriptor."""
    descriptor = netns.fresh()
    try:
        with netns.inside(descriptor):
            _write_sysctls()
        with iproute.opened() as node:
            for old in node.link_lookup(ifname=NODE_END):
                node.link("delete", index=old)
            peer = {"ifname": PROXY_END, "net_ns_fd": descriptor}
            node.link("add", ifname=NODE_END, kind="veth", peer=peer)
            with suppress(OSError):  # a node without IPv6
                Path("/proc/sys/net/ipv6/conf", NODE_END, "disable_ipv6").write_text("1")
            node.link("set", index=_index(node, NODE_END), state="up", arp=False)
        with netns.inside(descriptor), iproute.opened() as inside:
            _take_everything(inside)
    except (OSError, iproute.refusal()) as error:
        os.close(descriptor)
        raise NoNamespace(f"the network namespace of the proxy cannot be made: {error}") from error
    return descriptor


def _take_everything(netlink: IPRoute) -> None:
    """What comes in is local whatever its address; what goes out leaves by the veth."""
    loopback, out = _index(netlink, "lo"), _index(netlink, PROXY_END)
    netlink.link("set", index=loopback, state="up")
    netlink.link("set", index=out, state="up", arp=False)
    for family, home, everything in (
        (socket.AF_INET, ("127.0.0.0", 8), "0.0.0.0/0"),
        (socket.AF_INET6, ("::1", 128), "::/0"),
    ):
        netlink.rule("add", family=family, priority=1, iifname=PROXY_END, table=TABLE_LOCAL)
        netlink.rule(
            "add",
            family=family,
            priority=2,
            iifname="lo",
            dst=home[0],
            dst_len=home[1],
            table=TABLE_LOCAL,
        )
        netlink.rule("del", family=family, priority=0, table=TABLE_LOCAL)
        netlink.route(
            "add",
            family=family,
            dst=everything,
            oif=loopback,
            table=TABLE_LOCAL,
            type="local",
            scope=SCOPE_HOST,
        )
        netlink.route("add", family=family, dst=everything, oif=out)


def attach(descriptor: int, pin_path: Path) -> int:
    """Put the programs below `pin_path` on both ends of the veth, or replace older ones; the
    number of the node's end.
    """
    with iproute.opened() as node:
        index = _index(node, NODE_END)
        _put(node, index, pin_path, {INGRESS: FROM_PROXY})
    with netns.inside(descriptor), iproute.opened() as inside:
        programs = {INGRESS: "proxy_in", EGRESS: "proxy_out"}
        _put(inside, _index(inside, PROXY_END), pin_path, programs)
    return index


def _put(netlink: IPRoute, index: int, pin_path: Path, programs: dict[int, str]) -> None:
    try:
        netlink.tc("add", "clsact", index, CLSACT_HANDLE, parent=CLSACT_PARENT)
    except iproute.refusal() as error:
        if iproute.errno_of(error) != errno.EEXIST:
            raise
    for parent, name in programs.items():
        with kernel.open_pin(pin_path / name) as program:
            netlink.tc(
                "replace-filter",
                "bpf",
                index,
                1,
                fd=program.fd,
                name=f"ringfence {name}",
                parent=parent,
                prio=1,
                protocol=ETH_P_ALL,
                direct_action=True,
            )


def is_wired() -> bool:
    """Whether the veth is there."""
    return any(name == NODE_END for _, name in socket.if_nameindex())


def hardware_address(ifindex: int) -> str:
    """The MAC of an interface of the node; empty where it is gone."""
    try:
        name = socket.if_indextoname(ifindex).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked, SIOCGIFHWADDR, struct.pack("256s", name[:15]))
    except OSError:
        return ""
    return answer[18:24].hex(":")


def _index(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise FileNotFoundError(f"interface {name} is not there")
    return found[0]


def _write_sysctls() -> None:
    """/proc/sys shows the network namespace of its reader; what a kernel lacks needs no setting."""
    for name, value in SYSCTLS:
        with suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(value)
