"""The parser and what it is asked for, a second time, in Python: for a pod that nothing may enter
or leave and that knows no address but its own.

`Model.outcome` says what bpf/ringfence.c does with a frame. It is written from the description of
the packets, not from the C; where both agree on any bytes, neither misreads them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import Dir
from tests.shapes.frames import ARP, ICMP, ICMPV6, IPV4, IPV6, SCTP, TCP, UDP, End, packed

Reason = DropReason | ForwardReason
BROKEN, FORGED, ELSEWHERE = (
    DropReason.INVALID_PACKET_DROPPED,
    DropReason.INVALID_SOURCE_IP,
    DropReason.INVALID_DESTINATION_IP,
)
LINK = ForwardReason.LINK
HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
LONGEST_CHAIN = 8
CARRIERS = (4, 41, 47, 50, 51, 97, 115)
UNSPECIFIED = IPv6Address("::")
EVERYBODY4, NOBODY4 = IPv4Address("255.255.255.255"), IPv4Address("0.0.0.0")  # noqa: S104
NODES6, ROUTERS6 = IPv6Address("ff02::1"), IPv6Address("ff02::2")
DHCP6 = IPv6Address("ff02::1:2")
Address = IPv4Address | IPv6Address


class Cannot(Exception):
    """The packet cannot be judged."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fields:
    """What an event says of a packet."""

    family: int = 0
    source: Address | None = None
    destination: Address | None = None
    protocol: int = 0
    ports: tuple[int, int] = (0, 0)
    tcp_flags: int = 0
    icmp: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Read:
    """A frame as far as it was read."""

    frame: bytes
    said: Fields = field(default_factory=Fields)
    at: int = 14
    end: int = 0
    hops: int = 0
    has_ports: bool = False
    is_message: bool = False
    first: bool = False
    later: int = 0
    datagram: tuple[object, ...] = ()
    carried: int = 0
    """The protocol that the IP or the fragment header names."""

    def take(self, at: int, size: int) -> bytes:
        """Some bytes, that have to be there."""
        if at + size > len(self.frame):
            raise Cannot(BROKEN)
        return self.frame[at : at + size]

    def say(self, **values: object) -> None:
        """More is known."""
        self.said = replace(self.said, **values)  # type: ignore[arg-type]


@dataclass
class Model:
    """One pod; it remembers first fragments, as the programs do."""

    own: End
    _firsts: dict[tuple[object, ...], Read] = field(default_factory=dict)

    def outcome(self, direction: Dir, frame: bytes) -> tuple[Reason, Fields]:
        """Why the frame passes or not, and what was read of it."""
        read = Read(frame)
        reason: Reason | None = None
        try:
            reason = parse(read)
        except Cannot as cannot:
            reason = cannot.reason
        leaves = direction is Dir.EGRESS
        shape = self._leaves(read, reason) if leaves else self._enters(read, reason)
        return shape or self._judged(direction, read, reason), read.said

    def _mine(self, address: Address | None) -> bool:
        own = (ip_address(self.own.ip4), ip_address(self.own.ip6))
        return address in own

    def _local(self) -> IPv6Address:
        mac = packed(self.own.mac)
        identifier = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
        return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)

    def _mine6(self, address: Address | None) -> bool:
        return address in (ip_address(self.own.ip6), self._local())

    def _leaves(self, read: Read, reason: Reason | None) -> Reason | None:
        if not read.said.family and reason is not LINK:
            return reason
        if read.frame[6:12] != packed(self.own.mac):
            return DropReason.INVALID_SOURCE_MAC
        if reason is LINK:
            return self._link_leaves(read)
        if reason is FORGED or not self._mine(read.said.source):
            return FORGED
        if read.end and read.end != len(read.frame) and len(read.frame) > 60:
            return BROKEN
        return None

    def _link_leaves(self, read: Read) -> Reason:
        if read.said.family == 0:
            return self._arp_leaves(read)
        source = read.said.source
        if read.said.protocol == UDP:
            fits = read.said.ports == (546, 547) and read.said.destination == DHCP6
            return LINK if source == self._local() and fits else FORGED
        if source != UNSPECIFIED and not self._mine6(source):
            return FORGED
        kind, code = read.said.icmp
        if kind in (131, 132, 143):
            return LINK
        if kind not in (133, 135, 136):
            return FORGED
        if read.at != 54 or code:
            return BROKEN
        return self._discovery_leaves(read, kind)

    def _arp_leaves(self, read: Read) -> Reason:
        operation = int.from_bytes(read.frame[20:22])
        padding = read.frame[42:]
        if read.frame[14:20] != b"\0\1\x08\0\6\4" or operation not in (1, 2):
            return BROKEN
        if padding and (len(read.frame) != 60 or any(padding)):
            return BROKEN
        if read.frame[22:28] != read.frame[6:12]:
            return DropReason.INVALID_SOURCE_MAC
        if str(read.said.source) == self.own.ip4:
            return LINK
        return LINK if read.said.source == NOBODY4 and operation == 1 else FORGED

    def _discovery_leaves(self, read: Read, kind: int) -> Reason:
        whole = 8 if kind == 133 else 24
        try:
            message = read.take(read.at, whole)
        except Cannot:
            return BROKEN
        flags, options = int.from_bytes(message[4:8]), read.frame[read.at + whole :]
        probe = read.said.source == UNSPECIFIED
        to = read.said.destination
        if kind == 133:
            fits = not flags and to == ROUTERS6 and self._options(options, 1)
            return LINK if fits else BROKEN
        target = IPv6Address(message[8:24])
        if kind == 135:
            if probe and not self._mine6(target):
                return FORGED
            group = IPv6Address(b"\xff\x02" + bytes(9) + b"\1\xff" + target.packed[13:])
            asked = to == group or (not probe and to == target)
            return (
                LINK
                if asked and not flags and self._options(options, 14 if probe else 1)
                else BROKEN
            )
        if probe or not self._mine6(target):
            return FORGED
        assert isinstance(to, IPv6Address)
        fits = (to.packed[0] != 0xFF or to == NODES6) and not flags & 0x1FFFFFFF
        return LINK if fits and self._options(options, 2) else BROKEN

    def _options(self, data: bytes, kind: int) -> bool:
        if len(data) % 8 or len(data) > 24:
            return False
        parts = [data[i : i + 8] for i in range(0, len(data), 8)]
        mac = packed(self.own.mac)
        return all(p[:2] == bytes([kind, 1]) and (kind == 14 or p[2:] == mac) for p in parts)

    def _enters(self, read: Read, reason: Reason | None) -> Reason | None:
        if reason is FORGED:
            return FORGED
        if read.said.family and not self._is_for_pod(read.said.destination):
            return ELSEWHERE
        return self._link_enters(read) if reason is LINK else None

    def _is_for_pod(self, to: Address | None) -> bool:
        if isinstance(to, IPv4Address):
            return self._mine(to) or to.is_multicast or to == EVERYBODY4
        return self._mine6(to) or (to is not None and to.is_multicast)

    def _link_enters(self, read: Read) -> Reason:
        source, (kind, _) = read.said.source, read.said.icmp
        if read.said.family == 0:
            return FORGED if self._mine(source) else LINK
        if read.said.protocol == UDP:
            to = read.said.destination
            fits = read.said.ports == (547, 546) and to is not None and to.is_link_local
            return LINK if fits else ELSEWHERE
        if kind in (131, 132, 143):
            return ELSEWHERE
        if kind not in (135, 136):
            return LINK
        if read.at + 24 > len(read.frame):
            return BROKEN
        if self._mine6(source):
            return FORGED
        if kind == 135 and source != UNSPECIFIED:
            return LINK
        return FORGED if self._mine6(IPv6Address(read.frame[read.at + 8 :][:16])) else LINK

    def _judged(self, direction: Dir, read: Read, reason: Reason | None) -> Reason:
        said = read.said
        if said.family and said.source == said.destination and self._mine(said.source):
            return ForwardReason.SELF
        if reason is None:
            reason = self._fragment(direction, read)
        if reason is None and direction is Dir.EGRESS and _carries(read):
            return DropReason.ENCAP_PROHIBITED
        if reason is not None:
            return reason
        known = read.has_ports or read.is_message
        return DropReason.POLICY_DENIED if known else DropReason.UNKNOWN_L4_PROTOCOL

    def _fragment(self, direction: Dir, read: Read) -> Reason | None:
        if not read.first and not read.later:
            return None
        if read.carried == TCP and 0 < read.later < 20:
            return DropReason.IP_FRAGMENTATION_NOT_SUPPORTED
        ends = (read.said.source, read.said.destination)
        key = (direction, *ends, *read.datagram, read.carried)
        if read.first:
            self._firsts[key] = read
            return None
        first = self._firsts.get(key)
        if first is None:
            return DropReason.FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND
        read.say(ports=first.said.ports, icmp=first.said.icmp, protocol=first.said.protocol)
        read.has_ports, read.is_message = first.has_ports, first.is_message
        return None


def _carries(read: Read) -> bool:
    """A packet of packets to a group or to the link, where nodes are, too."""
    to = read.said.destination
    reaches = to is not None and (to.is_multicast or to == EVERYBODY4 or _is_link_local6(to))
    return read.said.protocol in CARRIERS and reaches


def _is_link_local6(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.is_link_local


def parse(read: Read) -> Reason | None:
    """Read a frame; None: judge it, LINK: it is about the link."""
    kind = int.from_bytes(read.frame[12:14])
    if kind in (0x8100, 0x88A8) or kind < 0x0600:
        return DropReason.UNSUPPORTED_L2_PROTOCOL
    if kind == ARP:
        body = read.take(14, 28)
        read.say(source=IPv4Address(body[14:18]), destination=IPv4Address(body[24:28]))
        return LINK
    if kind == IPV4:
        _ipv4(read)
        return None
    if kind != IPV6:
        return DropReason.UNSUPPORTED_L3_PROTOCOL
    _ipv6(read)
    return LINK if _is_link_control(read) else None


def _ipv4(read: Read) -> None:
    header = read.take(14, 20)
    total, identification, place = struct.unpack("!HHH", header[2:8])
    read.say(family=4, source=IPv4Address(header[12:16]), destination=IPv4Address(header[16:20]))
    read.say(protocol=header[9])
    read.carried, length, present = header[9], (header[0] & 15) * 4, len(read.frame) - 14
    if header[0] >> 4 != 4 or length < 20 or 0 < total < length:
        raise Cannot(BROKEN)
    if length > present or total > present:
        raise Cannot(BROKEN)
    read.at, read.end = 14 + length, 14 + total if total else 0
    if place & 0x3FFF:
        read.later, read.first = (place & 0x1FFF) * 8, not place & 0x1FFF
        read.datagram = (4, identification)
    _transport(read, (total or present) - length)


def _ipv6(read: Read) -> None:
    header = read.take(14, 40)
    source, destination = IPv6Address(header[8:24]), IPv6Address(header[24:40])
    read.say(family=6, source=source, destination=destination, protocol=header[6])
    read.hops, claimed = header[7], int.from_bytes(header[4:6])
    read.at, read.carried = 54, 0
    if header[0] >> 4 != 6:
        raise Cannot(BROKEN)
    if source.ipv4_mapped is not None or destination.ipv4_mapped is not None:
        raise Cannot(FORGED)
    present = len(read.frame) - 54
    if claimed > present:
        raise Cannot(BROKEN)
    end = 54 + (claimed or present)
    read.end = end if claimed else 0
    _walk(read, header[6])
    if read.at > end:
        raise Cannot(BROKEN)
    _transport(read, end - read.at)


def _walk(read: Read, following: int) -> None:
    """Past the extension headers."""
    bad = DropReason.INVALID_IPV6_EXTENSION_HEADER
    read.carried = following
    for _ in range(LONGEST_CHAIN):
        read.say(protocol=following)
        if following not in (HOP, ROUTING, FRAGMENT, OPTIONS) or read.later:
            return
        if read.at + 8 > len(read.frame):
            raise Cannot(bad)
        header = read.frame[read.at : read.at + 8]
        if following == ROUTING and header[3]:
            raise Cannot(bad)
        if following == FRAGMENT:
            if read.first:
                raise Cannot(bad)
            place = int.from_bytes(header[2:4])
            read.later, read.first = place & 0xFFF8, place & 0xFFF9 == 1
            read.datagram, read.carried = (6, header[4:8]), header[0]
            read.at += 8
        else:
            read.at += (header[1] + 1) * 8
        following = header[0]
    raise Cannot(bad)


def _transport(read: Read, available: int) -> None:
    if read.later:
        return
    protocol, at = read.said.protocol, read.at
    needed = {TCP: 20, UDP: 8, SCTP: 12, ICMP if read.said.family == 4 else ICMPV6: 8}
    if protocol not in needed:
        return
    if available < needed[protocol]:
        raise Cannot(BROKEN)
    data = read.take(at, 8)
    if protocol in (ICMP, ICMPV6):
        read.is_message = True
        echo = data[0] in ((0, 8) if protocol == ICMP else (128, 129))
        number = int.from_bytes(data[4:6]) if echo else 0
        read.say(icmp=(data[0], data[1]), ports=(number, number))
        return
    if protocol == TCP:
        whole = read.take(at, 14)
        if not 20 <= (whole[12] >> 4) * 4 <= available:
            raise Cannot(BROKEN)
        read.say(tcp_flags=whole[13])
    read.has_ports = True
    read.say(ports=struct.unpack("!HH", data[:4]))


def _is_link_control(read: Read) -> bool:
    to, (kind, _) = read.said.destination, read.said.icmp
    if read.first or read.later or not isinstance(to, IPv6Address):
        return False
    link = to.is_link_local or to.packed[:2] == b"\xff\x02"
    if read.said.protocol == ICMPV6:
        if 133 <= kind <= 137:
            return read.hops == 255
        return kind in (130, 131, 132, 143) and link and read.hops == 1
    near = read.said.source is not None and read.said.source.is_link_local
    return read.said.protocol == UDP and link and near and read.said.ports[1] in (546, 547)
