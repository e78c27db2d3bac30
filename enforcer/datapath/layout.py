"""The bytes in the maps: ctypes mirrors of bpf/lib/layout.h, and policy/tables.py packed.

Only maps.py and flows.py call this. A test compares every offset here with the C; both families
of addresses are one 16-byte form, IPv4 as ::ffff:a.b.c.d.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from enforcer.datapath.proof import proof, proven
from enforcer.policy.tables import (
    SERVICE_BACKENDS,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    CidrFlag,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    PolicyKey,
    RangeKey,
)
from generators.reachability.protocols import PORT_PROTOCOLS, WITH_PORTS
from generators.reachability.services import Backend, ServiceKey

V4_PREFIX = bytes(10) + b"\xff\xff"
UNSET = bytes(16)
MAC_BYTES = 6
V4_BITS = 96
TRIE_BITS = 32
"""Bits of a CIDR key before its address."""
RANGE_FIXED_BITS = 80
"""Bits of a range key before its port: group, peer, protocol and direction."""

Address = ctypes.c_uint8 * 16


class Endpoint(ctypes.Structure):
    """struct endpoint."""

    _fields_ = (
        ("endpoint", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("wall", ctypes.c_uint32),
        ("tenant", ctypes.c_uint32),
        ("reach", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("ip4", Address),
        ("ip6", Address),
        ("grace_until", ctypes.c_uint64),
        ("mac", ctypes.c_uint8 * MAC_BYTES),
        ("pad", ctypes.c_uint8 * 2),
        ("generation", ctypes.c_uint64),
        ("proof", ctypes.c_uint64),
    )


class AddressValue(ctypes.Structure):
    """struct address_value."""

    _fields_ = (
        ("identity", ctypes.c_uint32),
        ("tenant", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("interface", ctypes.c_uint32),
        ("proof", ctypes.c_uint64),
    )


class PolicyKeyBytes(ctypes.Structure):
    """struct policy_key."""

    _fields_ = (
        ("group", ctypes.c_uint32),
        ("peer", ctypes.c_uint32),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("direction", ctypes.c_uint8),
    )


class Range(ctypes.Structure):
    """struct range_key."""

    _fields_ = (
        ("prefixlen", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("peer", ctypes.c_uint32),
        ("protocol", ctypes.c_uint8),
        ("direction", ctypes.c_uint8),
        ("port", ctypes.c_uint16.__ctype_be__),
    )


class RuleValue(ctypes.Structure):
    """struct rule_value."""

    _fields_ = (
        ("rule", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("proof", ctypes.c_uint64),
    )


class RangeValue(ctypes.Structure):
    """struct range_value."""

    _fields_ = (("rule", ctypes.c_uint32),)


class Cidr(ctypes.Structure):
    """struct cidr_key."""

    _fields_ = (
        ("prefixlen", ctypes.c_uint32),
        ("trie", ctypes.c_uint32),
        ("address", Address),
    )


class CidrValue(ctypes.Structure):
    """struct cidr_value."""

    _fields_ = (("cidr", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class ServiceKeyBytes(ctypes.Structure):
    """struct service_key."""

    _fields_ = (
        ("address", Address),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 5),
    )


class ServiceBackend(ctypes.Structure):
    """struct service_backend."""

    _fields_ = (
        ("address", Address),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("pad", ctypes.c_uint8 * 6),
    )


class ServiceValue(ctypes.Structure):
    """struct service_value."""

    _fields_ = (
        ("count", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("backends", ServiceBackend * SERVICE_BACKENDS),
        ("proof", ctypes.c_uint64),
    )


class ConnectionKey(ctypes.Structure):
    """struct ct_key."""

    _fields_ = (
        ("local", Address),
        ("remote", Address),
        ("endpoint", ctypes.c_uint32),
        ("local_port", ctypes.c_uint16.__ctype_be__),
        ("remote_port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 7),
    )


class ConnectionValue(ctypes.Structure):
    """struct ct_value."""

    _fields_ = (
        ("last", ctypes.c_uint64),
        ("group", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("seal", ctypes.c_uint32),
        ("opener", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("reason", ctypes.c_uint8),
        ("pad", ctypes.c_uint8),
        ("generation", ctypes.c_uint64),
        ("tenure", ctypes.c_uint64),
        ("proof", ctypes.c_uint64),
    )


class StatsKey(ctypes.Structure):
    """struct stats_key."""

    _fields_ = (
        ("endpoint", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("direction", ctypes.c_uint8),
        ("reason", ctypes.c_uint8),
        ("by_group", ctypes.c_uint8),
        ("verdict", ctypes.c_uint8),
    )


class StatsValue(ctypes.Structure):
    """struct stats_value."""

    _fields_ = (("packets", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


def _proven(key: bytes, value: ctypes.Structure) -> bytes:
    return proven(key, bytes(value))


class FlowEvent(ctypes.Structure):
    """struct flow_event."""

    _fields_ = (
        ("time", ctypes.c_uint64),
        ("endpoint", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("identity", ctypes.c_uint32),
        ("tenant", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("source", Address),
        ("destination", Address),
        ("source_port", ctypes.c_uint16.__ctype_be__),
        ("destination_port", ctypes.c_uint16.__ctype_be__),
        ("ethertype", ctypes.c_uint16.__ctype_be__),
        ("family", ctypes.c_uint8),
        ("protocol", ctypes.c_uint8),
        ("direction", ctypes.c_uint8),
        ("verdict", ctypes.c_uint8),
        ("reason", ctypes.c_uint8),
        ("tcp_flags", ctypes.c_uint8),
        ("icmp_type", ctypes.c_uint8),
        ("icmp_code", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("pad", ctypes.c_uint8),
    )


def pack_address(text: str) -> bytes:
    """The 16 bytes of an address of either family; a v4-mapped IPv6 address is refused."""
    if ":" not in text:
        return V4_PREFIX + socket.inet_pton(socket.AF_INET, text)
    packed = socket.inet_pton(socket.AF_INET6, text)
    if packed.startswith(V4_PREFIX):
        raise ValueError(f"{text} is an IPv4-mapped address; write it as IPv4")
    return packed


def unpack_address(packed: bytes) -> str:
    """The canonical text of 16 bytes."""
    if packed.startswith(V4_PREFIX):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def pack_cidr(key: CidrKey) -> bytes:
    """The key of a canonical prefix such as 10.0.0.0/8 or 2001:db8::/32."""
    address, _, length = key.prefix.partition("/")
    v6, skipped = (1, 0) if ":" in address else (0, V4_BITS)
    return bytes(
        Cidr(
            prefixlen=TRIE_BITS + skipped + int(length),
            trie=key.tenant << 1 | v6,
            address=Address(*pack_address(address)),
        )
    )


def unpack_cidr(key: bytes) -> CidrKey:
    """The prefix of a key, and the owner of its trie."""
    raw = Cidr.from_buffer_copy(key)
    bits = raw.prefixlen - TRIE_BITS - (0 if raw.trie & 1 else V4_BITS)
    return CidrKey(raw.trie >> 1, f"{unpack_address(bytes(raw.address))}/{bits}")


def pack_cidr_value(entry: CidrEntry) -> bytes:
    """The value of a prefix."""
    return bytes(CidrValue(cidr=entry.cidr, flags=entry.flags))


def unpack_cidr_value(value: bytes) -> CidrEntry:
    """The entry of a prefix."""
    raw = CidrValue.from_buffer_copy(value)
    return CidrEntry(raw.cidr, CidrFlag(raw.flags))


def _only_address(addresses: tuple[str, ...], family: str) -> bytes:
    if len(addresses) > 1:
        raise ValueError(
            f"an endpoint has at most one {family} address, not {', '.join(addresses)}"
        )
    return pack_address(addresses[0]) if addresses else UNSET


def pack_interface(ifindex: int) -> bytes:
    """The key of an endpoint."""
    return ifindex.to_bytes(4, "little")


def pack_endpoint(key: bytes, entry: EndpointEntry, grace_until: int = 0) -> bytes:
    """The value of an endpoint; at most one address a family."""
    return _proven(
        key,
        Endpoint(
            endpoint=entry.endpoint,
            group=entry.group,
            wall=entry.wall,
            tenant=entry.tenant,
            reach=entry.reach,
            generation=entry.generation,
            flags=entry.flags,
            ip4=Address(*_only_address(entry.ip4, "IPv4")),
            ip6=Address(*_only_address(entry.ip6, "IPv6")),
            grace_until=grace_until if EndpointFlag.GRACE in entry.flags else 0,
            mac=(ctypes.c_uint8 * MAC_BYTES)(*bytes.fromhex(entry.mac.replace(":", ""))),
        ),
    )


def unpack_endpoint(value: bytes) -> EndpointEntry:
    """The entry of an endpoint."""
    raw = Endpoint.from_buffer_copy(value)
    ip4, ip6, mac = bytes(raw.ip4), bytes(raw.ip6), bytes(raw.mac)
    return EndpointEntry(
        endpoint=raw.endpoint,
        group=raw.group,
        wall=raw.wall,
        tenant=raw.tenant,
        reach=raw.reach,
        generation=raw.generation,
        flags=EndpointFlag(raw.flags),
        ip4=() if ip4 == UNSET else (unpack_address(ip4),),
        ip6=() if ip6 == UNSET else (unpack_address(ip6),),
        mac=mac.hex(":") if any(mac) else "",
    )


def pack_address_entry(key: bytes, entry: AddressEntry) -> bytes:
    """The value of an address."""
    value = AddressValue(
        identity=entry.identity,
        tenant=entry.tenant,
        flags=entry.flags,
        interface=entry.interface,
    )
    return _proven(key, value)


def unpack_address_entry(value: bytes) -> AddressEntry:
    """The entry of an address."""
    raw = AddressValue.from_buffer_copy(value)
    return AddressEntry(raw.identity, raw.tenant, AddressFlag(raw.flags), raw.interface)


def pack_policy(key: PolicyKey) -> bytes:
    """The key of a policy entry."""
    return bytes(
        PolicyKeyBytes(
            group=key.group,
            peer=key.peer,
            port=key.port,
            protocol=key.protocol,
            direction=key.direction,
        )
    )


def unpack_policy(key: bytes) -> PolicyKey:
    """The policy key of some bytes."""
    raw = PolicyKeyBytes.from_buffer_copy(key)
    return PolicyKey(raw.group, raw.peer, raw.port, raw.protocol, Dir(raw.direction))


def pack_range(key: RangeKey) -> bytes:
    """The key of a slice of a port range."""
    return bytes(
        Range(
            prefixlen=RANGE_FIXED_BITS + key.length,
            group=key.group,
            peer=key.peer,
            protocol=key.protocol,
            direction=key.direction,
            port=key.port,
        )
    )


def unpack_range(key: bytes) -> RangeKey:
    """The range key of some bytes."""
    raw = Range.from_buffer_copy(key)
    length = raw.prefixlen - RANGE_FIXED_BITS
    return RangeKey(raw.group, raw.peer, raw.protocol, Dir(raw.direction), raw.port, length)


def pack_rule(key: bytes, rule: int) -> bytes:
    """The value of a policy entry."""
    return _proven(key, RuleValue(rule=_checked(rule)))


def pack_range_rule(rule: int) -> bytes:
    """The value of a slice of a port range."""
    return bytes(RangeValue(rule=_checked(rule)))


def _checked(rule: int) -> int:
    if rule <= 0:  # 0 would read as a miss
        raise ValueError(f"rule ids begin at 1, not {rule}")
    return rule


def unpack_rule(value: bytes) -> int:
    """The rule id of a policy entry; 0 where flags make it none."""
    raw = RuleValue.from_buffer_copy(value)
    return 0 if raw.flags else int(raw.rule)


def unpack_range_rule(value: bytes) -> int:
    """The rule id of a slice of a port range."""
    return int(RangeValue.from_buffer_copy(value).rule)


def pack_service(key: ServiceKey) -> bytes:
    """The key of a virtual address and port."""
    return bytes(
        ServiceKeyBytes(
            address=Address(*pack_address(key.address)),
            port=key.port,
            protocol=WITH_PORTS[key.protocol],
        )
    )


def unpack_service(key: bytes) -> ServiceKey:
    """The virtual address and port of some bytes."""
    raw = ServiceKeyBytes.from_buffer_copy(key)
    return ServiceKey(unpack_address(bytes(raw.address)), raw.port, PORT_PROTOCOLS[raw.protocol])


def pack_backends(key: bytes, backends: tuple[Backend, ...]) -> bytes:
    """The value of a Service; a Service without backends is closed."""
    if len(backends) > SERVICE_BACKENDS:
        raise ValueError(f"a Service has at most {SERVICE_BACKENDS} backends, not {len(backends)}")
    value = ServiceValue(count=len(backends))
    for slot, backend in zip(value.backends, backends, strict=False):
        slot.address = Address(*pack_address(backend.address))
        slot.port = backend.port
    return _proven(key, value)


def unpack_backends(value: bytes) -> tuple[Backend, ...]:
    """The backends of some bytes."""
    raw = ServiceValue.from_buffer_copy(value)
    return tuple(
        Backend(unpack_address(bytes(slot.address)), slot.port)
        for slot in raw.backends[: raw.count]
    )


def seal_connection(key: bytes, value: ConnectionValue) -> bytes:
    """The value of a connection, with the proof of what does not change while it lives."""
    said = struct.pack(
        "<IIQQQ",
        value.group,
        value.rule,
        value.opener | value.reason << 8,
        value.generation,
        value.tenure,
    )
    value.proof = proof(key, said)
    value.seal = value.proof & 0xFFFF_FFFF
    return bytes(value)
