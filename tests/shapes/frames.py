"""Frames from their bytes, as somebody with a packet socket writes them: nothing is checked."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
EVERYBODY = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class End:
    """A MAC and an address of each family."""

    mac: str
    ip4: str
    ip6: str

    def address(self, family: int) -> str:
        """The one of a family."""
        return self.ip4 if family == 4 else self.ip6


def packed(mac: str) -> bytes:
    """A MAC's six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, destination: str, ethertype: int, payload: bytes) -> bytes:
    """A frame."""
    return packed(destination) + packed(source) + struct.pack("!H", ethertype) + payload


def checksum(data: bytes) -> int:
    """The ones' complement of the ones' complement sum."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class Header:
    """An IP header; what is None says what is so."""

    family: int
    source: str
    destination: str
    protocol: int
    hop_limit: int = 64
    options: bytes = b""
    fragment: int = 0
    identification: int = 1
    length: int | None = None
    header_length: int | None = None
    version: int | None = None

    def bytes(self, payload: bytes) -> bytes:
        """The packet."""
        source, destination = ip_address(self.source).packed, ip_address(self.destination).packed
        if self.family == 6:
            length = len(payload) if self.length is None else self.length
            first = (6 if self.version is None else self.version) << 28
            fixed = struct.pack("!IHBB", first, length, self.protocol, self.hop_limit)
            return fixed + source + destination + payload
        whole = 20 + len(self.options)
        words = whole // 4 if self.header_length is None else self.header_length
        length = whole + len(payload) if self.length is None else self.length
        version = 4 if self.version is None else self.version
        fields = (length, self.identification, self.fragment, self.hop_limit, self.protocol)
        start = struct.pack("!BBHHHBB", version << 4 | words, 0, *fields)
        ends = source + destination + self.options
        return start + struct.pack("!H", checksum(start + b"\0\0" + ends)) + ends + payload


def between(family: int, source: End, destination: End, protocol: int) -> Header:
    """A header from one end to another."""
    return Header(family, source.address(family), destination.address(family), protocol)


def pseudo(header: Header, protocol: int, payload: bytes) -> bytes:
    """What a transport's checksum covers."""
    ends = ip_address(header.source).packed + ip_address(header.destination).packed
    return ends + struct.pack("!IHBB", len(payload), 0, 0, protocol) + payload


def udp(header: Header, port: int, payload: bytes, source_port: int = 4000) -> bytes:
    """A datagram."""
    start = struct.pack("!HHH", source_port, port, 8 + len(payload))
    found = checksum(pseudo(header, UDP, start + b"\0\0" + payload)) or 0xFFFF
    return start + struct.pack("!H", found) + payload


def tcp(
    header: Header, port: int, payload: bytes, flags: int = 2, source_port: int = 4000
) -> bytes:
    """A segment."""
    start = struct.pack("!HHIIBBH", source_port, port, 7, 9, 0x50, flags, 1000)
    found = checksum(pseudo(header, TCP, start + b"\0\0\0\0" + payload))
    return start + struct.pack("!HH", found, 0) + payload


def icmp(header: Header, kind: int, code: int, body: bytes) -> bytes:
    """A message of ICMP or ICMPv6; `body` begins with the four bytes behind the checksum."""
    message = bytes([kind, code, 0, 0]) + body
    covered = message if header.family == 4 else pseudo(header, ICMPV6, message)
    return message[:2] + struct.pack("!H", checksum(covered)) + body


def chained(headers: Iterable[tuple[int, bytes]], protocol: int) -> tuple[int, bytes]:
    """The first protocol and the bytes of a chain of IPv6 extension headers before `protocol`.

    Each header comes without its first byte, which names the next.
    """
    rest = list(headers)
    numbers = [number for number, _ in rest] + [protocol]
    body = b"".join(bytes([numbers[i + 1]]) + data for i, (_, data) in enumerate(rest))
    return numbers[0], body


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """An ARP message; ends are (MAC, address)."""
    start = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    ends = (packed(mac) + ip_address(address).packed for mac, address in (sender, target))
    return start + b"".join(ends)


def with_source(header: Header, address: str) -> Header:
    """The same header in somebody's name."""
    return replace(header, source=address)
