"""What the kernel tells about packets: ring buffer -> FlowRecord -> Flow as Hubble's tools read it.

The agent owns the one FlowReader of a node (a ring buffer has a single consumer). Events are news,
not counts: a full ring loses events, and `Maps.statistics` still counts every packet.
"""

from __future__ import annotations

import hashlib
import mmap
import select
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Protocol

from enforcer import kernel, layout
from enforcer.tables import IDENTITY_HOST, IDENTITY_REMOTE_NODE, Dir
from generators.verdicts import Verdict

Flow = dict[str, object]
"""A flow as JSON: only dicts, lists, strings, numbers and booleans inside."""

PAGE = mmap.PAGESIZE
BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = 8
ETHERTYPE_ARP = 0x0806
EVENT_DROP = 1
EVENT_POLICY_VERDICT = 5
IDENTITY_WORLD = 2
NANOSECONDS = 1_000_000_000


class ForwardReason(IntEnum):
    """Why a packet was let through; `enum reason` below DROP_FIRST in bpf/lib/drop_reasons.h."""

    SELF = 1
    HOST = 2
    NOT_ISOLATED = 3
    POLICY_ALLOWED = 4
    REPLY = 5
    RELATED = 6
    LINK = 7


class DropReason(IntEnum):
    """Why a packet was dropped: numbers and names as Cilium's where one fits, 240 is ours."""

    INVALID_SOURCE_IP = 132
    POLICY_DENIED = 133
    INVALID_PACKET_DROPPED = 134
    UNSUPPORTED_L3_PROTOCOL = 139
    UNKNOWN_L4_PROTOCOL = 142
    CT_MAP_INSERTION_FAILED = 155
    INVALID_IPV6_EXTENSION_HEADER = 156
    IP_FRAGMENTATION_NOT_SUPPORTED = 157
    UNSUPPORTED_L2_PROTOCOL = 166
    UNKNOWN_SENDER = 172
    FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND = 175
    DROP_EP_NOT_READY = 203
    TENANT_WALL = 240


class EventFlag(IntFlag):
    """enum event_flag."""

    REPLY = 1
    MID_STREAM = 2
    REJUDGED = 4
    MASKED = 8


VERDICTS = (Verdict.FORWARDED, Verdict.DROPPED, Verdict.AUDIT)
"""Indexed by enum verdict."""

PROTOCOLS = {1: "ICMPv4", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
RESERVED = {
    IDENTITY_HOST: "host",
    IDENTITY_WORLD: "world",
    IDENTITY_REMOTE_NODE: "remote-node",
}


def reason_of(code: int) -> ForwardReason | DropReason:
    """The reason of a code in events and statistics."""
    return DropReason(code) if code >= DropReason.INVALID_SOURCE_IP else ForwardReason(code)


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


def decode(event: bytes, clock_offset: int) -> FlowRecord:
    """The record of one event; `clock_offset` turns the monotonic clock into the wall's."""
    raw = layout.FlowEvent.from_buffer_copy(event)
    known = raw.family != 0 or raw.ethertype == ETHERTYPE_ARP
    return FlowRecord(
        time=raw.time + clock_offset,
        endpoint=raw.endpoint,
        ifindex=raw.ifindex,
        direction=Dir(raw.direction),
        verdict=VERDICTS[raw.verdict],
        reason=reason_of(raw.reason),
        rule=raw.rule,
        group=raw.group,
        identity=raw.identity,
        tenant=raw.tenant,
        length=raw.length,
        family=raw.family,
        protocol=raw.protocol,
        source=layout.unpack_address(bytes(raw.source)) if known else "",
        destination=layout.unpack_address(bytes(raw.destination)) if known else "",
        source_port=raw.source_port,
        destination_port=raw.destination_port,
        ethertype=raw.ethertype,
        tcp_flags=raw.tcp_flags,
        icmp_type=raw.icmp_type,
        icmp_code=raw.icmp_code,
        flags=EventFlag(raw.flags),
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


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a flow as people know it; what is empty is left out of the flow."""

    endpoint: int = 0
    identity: int = 0
    namespace: str = ""
    pod: str = ""
    tenant: str = ""
    labels: tuple[str, ...] = field(default=())


class Names(Protocol):
    """What the agent knows behind the numbers."""

    def party(self, address: str) -> Party | None:
        """The pod or node that has an address now."""

    def rule(self, rule: int) -> str | None:
        """Name of a rule, as in verdicts.Judgement.rule."""

    def isolating(self, group: int, direction: Dir) -> tuple[str, ...]:
        """The policies (`namespace/name`) behind a policy group, or the wall of its group."""


def _timestamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _party(party: Party) -> Flow:
    labels = list(party.labels)
    if party.tenant:
        labels.append(f"tenant:name={party.tenant}")
    if party.identity in RESERVED:
        labels.append(f"reserved:{RESERVED[party.identity]}")
    values: Flow = {
        "ID": party.endpoint,
        "identity": party.identity,
        "namespace": party.namespace,
        "labels": sorted(labels),
        "pod_name": party.pod,
    }
    return {key: value for key, value in values.items() if value}


def _l4(record: FlowRecord) -> Flow:
    name = PROTOCOLS.get(record.protocol)
    if name is None:
        return {}
    if name.startswith("ICMP"):
        return {name: {"type": record.icmp_type, "code": record.icmp_code}}
    ports: Flow = {
        "source_port": record.source_port,
        "destination_port": record.destination_port,
    }
    if name == "TCP":
        ports["flags"] = {f: True for i, f in enumerate(TCP_FLAGS) if record.tcp_flags >> i & 1}
    return {name: ports}


def _summary(record: FlowRecord) -> str:
    name = PROTOCOLS.get(record.protocol, f"protocol {record.protocol}")
    if not record.family:
        return f"EtherType 0x{record.ethertype:04x}"
    if name == "TCP":
        flags = ", ".join(f for i, f in enumerate(TCP_FLAGS) if record.tcp_flags >> i & 1)
        return f"TCP Flags: {flags or 'none'}"
    if name.startswith("ICMP"):
        return f"{name} type {record.icmp_type} code {record.icmp_code}"
    return name


def _reference(name: str) -> Flow:
    """`namespace/policy`, `namespace/policy#ingress[0]` or `tenant/NAME#...` as a reference."""
    owner, _, rule = name.partition("#")
    namespace, _, policy = owner.partition("/")
    kind = {"tenant": "Tenant", "quarantine": "Namespace"}.get(namespace, "NetworkPolicy")
    reference: Flow = {"name": policy, "kind": kind}
    if kind == "NetworkPolicy":
        reference["namespace"] = namespace
    if rule:
        reference["labels"] = [f"ringfence:rule={name}"]
    return reference


def _speakers(record: FlowRecord, names: Names) -> Flow:
    """Who let in, or who refused, under Hubble's field for it."""
    side = record.direction.name.lower()
    if record.verdict is Verdict.FORWARDED:
        rule = names.rule(record.rule) if record.rule else None
        return {f"{side}_allowed_by": [_reference(rule)]} if rule else {}
    denied = names.isolating(record.group, record.direction) if record.group else ()
    return {f"{side}_denied_by": [_reference(name) for name in denied]} if denied else {}


def _end(address: str, record: FlowRecord, names: Names, *, local: bool) -> Flow:
    known = names.party(address) if address else None
    identity = record.endpoint if local else record.identity or IDENTITY_WORLD
    if known is None:
        known = Party(endpoint=identity) if local else Party(identity=identity)
    return _party(known)


def to_flow(record: FlowRecord, names: Names, node: str) -> Flow:
    """One line of the observer's JSON: the flow, and outside of it the node and the time."""
    inward = record.direction is Dir.INGRESS
    moment = _timestamp(record.time)
    drop = isinstance(record.reason, DropReason)
    fingerprint = hashlib.blake2b(repr(record).encode(), digest_size=16).digest()
    flow: Flow = {
        "time": moment,
        "uuid": str(uuid.UUID(bytes=fingerprint, version=4)),
        "verdict": record.verdict.value,
        "IP": {
            "source": record.source,
            "destination": record.destination,
            "ipVersion": f"IPv{record.family}",
        },
        "l4": _l4(record),
        "source": _end(record.source, record, names, local=not inward),
        "destination": _end(record.destination, record, names, local=inward),
        "Type": "L3_L4",
        "node_name": node,
        "event_type": {
            "type": EVENT_DROP if record.verdict is Verdict.DROPPED else EVENT_POLICY_VERDICT,
            "sub_type": int(record.reason) if drop else 0,
        },
        "traffic_direction": record.direction.name,
        "is_reply": EventFlag.REPLY in record.flags,
        **_speakers(record, names),
        "Summary": _summary(record),
    }
    if drop:
        flow["drop_reason_desc"] = record.reason.name
    if not record.family:
        del flow["IP"]
    return {"flow": flow, "node_name": node, "time": moment}
