"""Events of the kernel about packets: ring buffer -> FlowRecord; observe/ adds names.

The agent owns the one FlowReader of a node (a ring buffer has a single consumer). Events are news,
not counts: a full ring loses events, and `Maps.statistics` still counts every packet.
"""

from __future__ import annotations

import mmap
import select
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

from enforcer.datapath import kernel, layout
from enforcer.policy.tables import Dir
from generators.reachability.verdicts import VERDICTS, Verdict

PAGE = mmap.PAGESIZE
BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = 8
ETHERTYPE_ARP = 0x0806


class ForwardReason(IntEnum):
    """Why a packet was let through; `enum reason` below DROP_FIRST in bpf/lib/drop_reasons.h."""

    SELF = 1
    HOST = 2
    NOT_ISOLATED = 3
    POLICY_ALLOWED = 4
    REPLY = 5
    RELATED = 6
    LINK = 7
    REDIRECTED = 8
    PROXIED = 9


class DropReason(IntEnum):
    """Why a packet was dropped: numbers and names as Cilium's where one fits; from 240 ours."""

    INVALID_SOURCE_MAC = 130
    INVALID_SOURCE_IP = 132
    POLICY_DENIED = 133
    INVALID_PACKET_DROPPED = 134
    UNSUPPORTED_L3_PROTOCOL = 139
    UNKNOWN_L4_PROTOCOL = 142
    CT_MAP_INSERTION_FAILED = 155
    INVALID_IPV6_EXTENSION_HEADER = 156
    IP_FRAGMENTATION_NOT_SUPPORTED = 157
    NO_CONFIGURATION_AVAILABLE_TO_DETERMINE_POLICY_DECISION = 165
    UNSUPPORTED_L2_PROTOCOL = 166
    ENCAP_PROHIBITED = 170
    UNKNOWN_SENDER = 172
    FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND = 175
    PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL = 180
    POLICY_DENY = 181
    DROP_RATE_LIMITED = 198
    DROP_EP_NOT_READY = 203
    TENANT_WALL = 240
    INVALID_DESTINATION_IP = 241
    INVALID_CHECKSUM = 242
    FORGED = 243


class EventFlag(IntFlag):
    """enum event_flag."""

    REPLY = 1
    MID_STREAM = 2
    REJUDGED = 4
    MASKED = 8


POLICY_REASONS = frozenset(
    reason.name
    for reason in (
        DropReason.POLICY_DENIED,
        DropReason.POLICY_DENY,
        DropReason.TENANT_WALL,
        DropReason.UNKNOWN_SENDER,
        DropReason.UNKNOWN_L4_PROTOCOL,
    )
)
"""Drops that policies or the tenant wall decided, as metrics count them."""


def reason_of(code: int) -> ForwardReason | DropReason:
    """The reason of a code in events and statistics."""
    return DropReason(code) if code >= DropReason.INVALID_SOURCE_MAC else ForwardReason(code)


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """One event of the kernel; identity and tenant are the peer's.

    `time` is nanoseconds since the epoch. With verdict AUDIT the reason is the one that would have
    dropped. Addresses are empty for what is neither IP nor ARP.
    """

    time: int
    endpoint: int
    ifindex: int
    direction: Dir
    verdict: Verdict
    reason: ForwardReason | DropReason
    rule: int
    group: int
    identity: int
    tenant: int
    length: int
    family: int
    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    ethertype: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    flags: EventFlag


REASONS: Mapping[int, ForwardReason | DropReason] = {
    int(r): r for kind in (ForwardReason, DropReason) for r in kind
}
FLAGS = tuple(EventFlag(value) for value in range(16))
DIRECTIONS = tuple(Dir)
EVENT = struct.Struct("<Q8I16s16s6x9Bx")
"""struct flow_event without its ports: several times as fast as the ctypes mirror in layout.py,
with which a test compares it.
"""
PORTS = struct.Struct(">3H")
"""Ports and EtherType, in network order."""
PORTS_AT = 72


def decode(event: bytes, clock_offset: int) -> FlowRecord:
    """The record of one event; `clock_offset` turns the monotonic clock into the wall's."""
    head = EVENT.unpack(event)
    stamp, endpoint, ifindex, rule, group, identity, tenant, length = head[:8]
    source, destination = head[9:11]
    family, protocol, direction, verdict, reason, tcp_flags, icmp_type, icmp_code, flags = head[11:]
    source_port, destination_port, ethertype = PORTS.unpack_from(event, PORTS_AT)
    known = family != 0 or ethertype == ETHERTYPE_ARP
    return FlowRecord(
        time=stamp + clock_offset,
        endpoint=endpoint,
        ifindex=ifindex,
        direction=DIRECTIONS[direction],
        verdict=VERDICTS[verdict],
        reason=REASONS[reason],
        rule=rule,
        group=group,
        identity=identity,
        tenant=tenant,
        length=length,
        family=family,
        protocol=protocol,
        source=layout.unpack_address(source) if known else "",
        destination=layout.unpack_address(destination) if known else "",
        source_port=source_port,
        destination_port=destination_port,
        ethertype=ethertype,
        tcp_flags=tcp_flags,
        icmp_type=icmp_type,
        icmp_code=icmp_code,
        flags=FLAGS[flags],
    )


class FlowReader:
    """The consumer's end of the ring buffer, mapped into this process; the only one of its node."""

    def __init__(self, handle: kernel.Handle) -> None:
        self._handle = handle
        self._size = kernel.map_info(handle.fd).max_entries
        # The kernel maps the data twice in a row, so that no record ever wraps.
        self._consumer = mmap.mmap(handle.fd, PAGE)
        self._producer = mmap.mmap(
            handle.fd, PAGE + 2 * self._size, prot=mmap.PROT_READ, offset=PAGE
        )
        self._consumed = memoryview(self._consumer).cast("Q")
        self._produced = memoryview(self._producer).cast("Q")
        self._lengths = memoryview(self._producer).cast("I")

    @classmethod
    def open(cls, pin_path: Path) -> FlowReader:
        """Open the ring pinned below the directory that loader.ensure_loaded returned."""
        return cls(kernel.open_pin(pin_path / "events"))

    def fileno(self) -> int:
        """For select and poll: readable when there are events."""
        return self._handle.fd

    def close(self) -> None:
        """Unmap and close; events wait in the ring for the next reader."""
        for view in (self._consumed, self._produced, self._lengths):
            view.release()
        self._consumer.close()
        self._producer.close()
        self._handle.close()

    def __enter__(self) -> FlowReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float) -> bool:
        """Is there something to read, within `timeout` seconds?"""
        poller = select.poll()
        poller.register(self._handle.fd, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def read(self, limit: int = 4096) -> tuple[FlowRecord, ...]:
        """Up to `limit` records that are there now; frees their room in the ring."""
        offset = time.time_ns() - time.monotonic_ns()
        records: list[FlowRecord] = []
        position = self._consumed[0]
        while len(records) < limit and position < self._produced[0]:
            start = PAGE + (position & (self._size - 1))
            header = self._lengths[start // 4]
            if header & BUSY:  # being written: it and what follows come next time
                break
            length = header & ~(BUSY | DISCARDED)
            if not header & DISCARDED:
                begin = start + HEADER
                records.append(decode(self._producer[begin : begin + length], offset))
            position += (length + HEADER + 7) // 8 * 8
            self._consumed[0] = position
        return tuple(records)
