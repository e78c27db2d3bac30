"""Interfaces of the node and what is behind them, read from the kernel by raw netlink.

The CNI server asks which interface of the node leads to a pod's network namespace, the watcher
listens for new interfaces, the agent asks for the interface of a pod that no CNI call named, and
for the node's own addresses. Plain sockets: this is in the path of every pod that starts, and
pyroute2 takes longer to import than a pod to start. Nothing here ever enters another network
namespace; the kernel answers for one by the id under which it knows it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWQDISC, RTM_GETQDISC = 36, 38
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
RTM_NEWNSID, RTM_GETNSID = 88, 90
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NESTED_MASK = 0x3FFF

IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO = 1, 3, 5, 18
IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
RTA_DST, RTA_OIF = 1, 4
NETNSA_NSID, NETNSA_FD = 1, 3
TCA_KIND, TCA_OPTIONS, TCA_BPF_NAME, TCA_BPF_ID = 1, 2, 7, 11
CLSACT_QDISCS = ("clsact", "ingress")
RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR = 1, 5, 9
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBi")
ROUTE = struct.Struct("=BB6xI")
TRAFFIC = struct.Struct("=BxxxiIII")
RTM_F_FIB_MATCH = 0x2000
NSID_SIZE = 4
RECEIVE = 1 << 18
UNKNOWN = -1
VETH = "veth"

TUNNEL_PORT: Mapping[str, int] = {"vxlan": 15, "geneve": 5, "bareudp": 1}
"""The attribute of a tunnel device that names its UDP port, by kind."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of this network namespace."""

    ifindex: int
    name: str
    kind: str = ""
    """As `ip -d link` prints it: veth, bridge, ...; empty for hardware."""
    peer: int = 0
    """The ifindex of the other end, in its own network namespace."""
    netns: int | None = None
    """The id of the other end's network namespace in ours; None: the same."""
    mac: str = ""
    tunnel_port: int = 0
    """The UDP port at which a tunnel device unpacks what arrives; 0: it has none."""


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """An address that an interface of this network namespace has."""

    ifindex: int
    address: str
    scope: int
    flags: int
    """IFA_F_..."""


@dataclass(frozen=True, slots=True)
class TcFilter:
    """A clsact filter of an interface."""

    parent: int
    """The hook: the number that tc knows it by."""
    priority: int
    handle: int
    kind: str
    """`bpf`, `u32`, ..."""
    program: int
    """Its id in the kernel; 0 if the filter is not an eBPF program."""
    name: str
    """Its owner's name for it; empty if the filter is not an eBPF program."""


class Netlink:
    """One route netlink socket; not for several threads at once."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        # Without it the kernel ignores in a dump that another network namespace is meant.
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def links(self) -> list[Link]:
        """Every interface of this network namespace."""
        messages = self._ask(RTM_GETLINK, NLM_F_DUMP, IFINFO.pack(0, 0, 0, 0, 0))
        return [parse_link(body) for kind, body in messages if kind == RTM_NEWLINK]

    def addresses(self) -> list[HeldAddress]:
        """Every address of every interface of this network namespace."""
        messages = self._ask(RTM_GETADDR, NLM_F_DUMP, IFADDR.pack(0, 0, 0, 0, 0))
        found = [parse_address(body) for kind, body in messages if kind == RTM_NEWADDR]
        return [held for held in found if held is not None]

    def link(self, ifindex: int) -> Link | None:
        """One interface; None if it does not exist."""
        return self._one_link(IFINFO.pack(0, 0, ifindex, 0, 0))

    def host_side(self, netns: int, name: str) -> Link | None:
        """The interface of this network namespace whose peer is `name` in the one of a descriptor.

        None if that one has no veth of that name, or one that leads elsewhere.
        """
        number = self._id_of(netns)
        if number == UNKNOWN:
            self.links()  # gives an id to every network namespace that a veth of ours leads to
            number = self._id_of(netns)
        if number == UNKNOWN:
            return None
        wanted = _attribute(IFLA_TARGET_NETNSID, struct.pack("=i", number))
        wanted += _attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        inner = self._one_link(IFINFO.pack(0, 0, 0, 0, 0) + wanted)
        if inner is None or inner.kind != VETH:
            return None
        outer = self.link(inner.peer)
        if outer is None or (outer.kind, outer.peer, outer.netns) != (VETH, inner.ifindex, number):
            return None
        return outer

    def mac_behind(self, link: Link) -> str:
        """The MAC of the other end of a veth; empty if the other end is gone."""
        if link.netns is None:
            return ""
        target = _attribute(IFLA_TARGET_NETNSID, struct.pack("=i", link.netns))
        try:
            inner = self._one_link(IFINFO.pack(0, 0, link.peer, 0, 0) + target)
        except OSError:
            return ""
        return inner.mac if inner is not None else ""

    def route_to(self, address: str) -> int | None:
        """The interface that a route of just this address leads to; None without such a route."""
        parsed = ipaddress.ip_address(address)
        family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
        body = ROUTE.pack(family, parsed.max_prefixlen, RTM_F_FIB_MATCH)
        body += _attribute(RTA_DST, parsed.packed)
        try:
            messages = self._ask(RTM_GETROUTE, 0, body)
        except OSError:
            return None
        for kind, found in messages:
            _, length, _ = ROUTE.unpack_from(found)
            interface = _attributes(found[ROUTE.size :]).get(RTA_OIF)
            if kind == RTM_NEWROUTE and length == parsed.max_prefixlen and interface is not None:
                return int.from_bytes(interface, "little")
        return None

    def filtered(self) -> frozenset[int]:
        """The interfaces of this network namespace that can have clsact filters."""
        messages = self._ask(RTM_GETQDISC, NLM_F_DUMP, TRAFFIC.pack(0, 0, 0, 0, 0))
        return frozenset(
            TRAFFIC.unpack_from(body)[1]
            for kind, body in messages
            if kind == RTM_NEWQDISC and _kind_of(body) in CLSACT_QDISCS
        )

    def filters(self, ifindex: int, parent: int) -> list[TcFilter]:
        """The filters of an interface on one hook (`parent`), in their order; none without any."""
        messages = self._ask(RTM_GETTFILTER, NLM_F_DUMP, TRAFFIC.pack(0, ifindex, 0, parent, 0))
        found = [parse_filter(body) for kind, body in messages if kind == RTM_NEWTFILTER]
        return [item for item in found if item is not None]

    def _id_of(self, netns: int) -> int:
        body = bytes(NSID_SIZE) + _attribute(NETNSA_FD, struct.pack("=I", netns))
        for kind, found in self._ask(RTM_GETNSID, 0, body):
            if kind == RTM_NEWNSID:
                raw = _attributes(found[NSID_SIZE:])[NETNSA_NSID]
                return int.from_bytes(raw, "little", signed=True)
        return UNKNOWN

    def _one_link(self, body: bytes) -> Link | None:
        try:
            messages = self._ask(RTM_GETLINK, 0, body)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return next((parse_link(body) for kind, body in messages if kind == RTM_NEWLINK), None)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send a request and return the messages of the answer; OSError where it is refused."""
        self._sequence += 1
        header = HEADER.pack(
            HEADER.size + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0
        )
        self._socket.send(header + body)
        found: list[tuple[int, bytes]] = []
        while True:
            for number, sequence, answer in split(self._socket.recv(RECEIVE)):
                if sequence != self._sequence:
                    continue
                if number == NLMSG_ERROR:
                    raise _refusal(answer)
                if number == NLMSG_DONE:
                    return found
                found.append((number, answer))
            if found and flags != NLM_F_DUMP:
                return found


@contextmanager
def netlink() -> Iterator[Netlink]:
    """A socket for a few questions."""
    opened = Netlink()
    try:
        yield opened
    finally:
        opened.close()


def listen(*groups: int) -> socket.socket:
    """A socket that receives the events of these groups (RTNLGRP_...)."""
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE * 4)
    opened.bind((0, sum(1 << (group - 1) for group in groups)))
    return opened


def heard(data: bytes) -> list[Link]:
    """The interfaces that a datagram of `listen(RTNLGRP_LINK)` names."""
    return [parse_link(body) for kind, _, body in split(data) if kind == RTM_NEWLINK]


def is_of_pod(link: Link) -> bool:
    """Whether a pod can be behind an interface: a veth into another network namespace."""
    return link.kind == VETH and link.netns is not None


def looks_like_pod(link: Link, patterns: Sequence[str]) -> bool:
    """Whether an interface is a veth into another network namespace, with one of these names."""
    return is_of_pod(link) and any(fnmatchcase(link.name, pattern) for pattern in patterns)


def locate(addresses: Iterable[str], links: Iterable[Link]) -> int | None:
    """The interface behind which a pod with these addresses is, by the node's routes.

    Only the node's administrator writes those. What a pod has on its own interfaces proves nothing:
    it may give itself the addresses of another.
    """
    veths = {link.ifindex for link in links if is_of_pod(link)}
    with netlink() as asked:
        routed = {asked.route_to(address) for address in frozenset(addresses)} & veths
    return routed.pop() if len(routed) == 1 else None


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message of a datagram."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield kind, sequence, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def parse_link(body: bytes) -> Link:
    """The interface that a link message describes."""
    _, _, ifindex, _, _ = IFINFO.unpack_from(body)
    found = _attributes(body[IFINFO.size :])
    info = _attributes(found.get(IFLA_LINKINFO, b""))
    kind = os.fsdecode(info.get(IFLA_INFO_KIND, b"").rstrip(b"\0"))
    tunnel = _attributes(info.get(IFLA_INFO_DATA, b"")) if kind in TUNNEL_PORT else {}
    netns = found.get(IFLA_LINK_NETNSID)
    return Link(
        ifindex,
        os.fsdecode(found.get(IFLA_IFNAME, b"").rstrip(b"\0")),
        kind,
        int.from_bytes(found.get(IFLA_LINK, b""), "little"),
        int.from_bytes(netns, "little", signed=True) if netns is not None else None,
        found.get(IFLA_ADDRESS, b"").hex(":"),
        int.from_bytes(tunnel.get(TUNNEL_PORT.get(kind, 0), b"")),
    )


def parse_address(body: bytes) -> HeldAddress | None:
    """The address that an address message describes; of two ends of a line, the one that is here.

    None where it names none.
    """
    _, _, flags, scope, ifindex = IFADDR.unpack_from(body)
    found = _attributes(body[IFADDR.size :])
    raw = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if raw is None:
        return None
    more = found.get(IFA_FLAGS)
    flags = int.from_bytes(more, "little") if more is not None else flags
    return HeldAddress(ifindex, str(ipaddress.ip_address(raw)), scope, flags)


def parse_filter(body: bytes) -> TcFilter | None:
    """The filter that a message describes; None where it only names a chain or a priority."""
    _, _, handle, parent, info = TRAFFIC.unpack_from(body)
    if not handle:
        return None
    options = _attributes(_attributes(body[TRAFFIC.size :]).get(TCA_OPTIONS, b""))
    name = os.fsdecode(options.get(TCA_BPF_NAME, b"").rstrip(b"\0"))
    program = int.from_bytes(options.get(TCA_BPF_ID, b""), "little")
    return TcFilter(parent, info >> 16, handle, _kind_of(body), program, name)


def _kind_of(body: bytes) -> str:
    """Of a message about traffic control."""
    kind = _attributes(body[TRAFFIC.size :]).get(TCA_KIND, b"")
    return os.fsdecode(kind.rstrip(b"\0"))


def _attribute(kind: int, value: bytes) -> bytes:
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & NESTED_MASK] = data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _refusal(body: bytes) -> OSError:
    code = -int.from_bytes(body[:4], "little", signed=True)
    return OSError(code, os.strerror(code))
