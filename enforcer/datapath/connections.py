"""Tracked connections as values: the content of an entry of ct_map, and when it has ended.

maps.py reads and collects them; the timeouts are those of bpf/lib/conntrack.h, as a test compares.
The programs ignore an entry that has ended; collecting only keeps the map's fill level honest.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntFlag

from enforcer.datapath import layout
from enforcer.policy.tables import Dir

NANOSECONDS = 1_000_000_000
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


class ConnectionFlag(IntFlag):
    """enum ct_flag."""

    REPLIED = 1
    FIN_OPENER = 2
    FIN_REPLY = 4
    RST = 8
    ADOPTED = 16
    REFUSED = 32
    KEPT = 64


TIMEOUTS = {
    "TCP_SYN": 20,
    "TCP": 8000,
    "TCP_FIN": 30,
    "TCP_RST": 40,
    "UDP": 60,
    "UDP_REPLIED": 180,
    "ICMP": 5,
    "OTHER": 600,
}
"""Seconds without a packet, by the name of the C constant without CT_TIMEOUT_."""
IDLE_TCP = TIMEOUTS["TCP"]
"""The default timeout of an established TCP connection."""

BOTH_FINS = ConnectionFlag.FIN_OPENER | ConnectionFlag.FIN_REPLY


@dataclass(frozen=True, slots=True, order=True)
class TrackedConnection:
    """One tracked connection of an endpoint; `idle` in seconds."""

    endpoint: int
    protocol: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    opener: Dir
    generation: int
    rule: int
    flags: ConnectionFlag
    reason: int
    idle: float
    allowed: int
    """Seconds that it may be idle in its state."""

    @property
    def ended(self) -> bool:
        """Has it been silent for longer than its state allows?"""
        return self.idle > self.allowed


def timeout(protocol: int, flags: ConnectionFlag, idle_tcp: int) -> int:
    """Seconds that a connection in this state may be silent."""
    if protocol == UDP:
        return TIMEOUTS["UDP_REPLIED" if ConnectionFlag.REPLIED in flags else "UDP"]
    if protocol in (ICMP, ICMPV6):
        return TIMEOUTS["ICMP"]
    if protocol != TCP:
        return TIMEOUTS["OTHER"]
    if flags & BOTH_FINS == BOTH_FINS:
        return TIMEOUTS["TCP_FIN"]
    if ConnectionFlag.RST in flags:
        return TIMEOUTS["TCP_RST"]
    if flags & (ConnectionFlag.REPLIED | ConnectionFlag.ADOPTED):
        return idle_tcp
    return TIMEOUTS["TCP_SYN"]


def unpack(key: bytes, value: bytes, now: int, idle_tcp: int = IDLE_TCP) -> TrackedConnection:
    """The connection of an entry; `now` is the monotonic clock in nanoseconds."""
    k = layout.ConnectionKey.from_buffer_copy(key)
    v = layout.ConnectionValue.from_buffer_copy(value)
    return TrackedConnection(
        endpoint=k.endpoint,
        protocol=k.protocol,
        local=layout.unpack_address(bytes(k.local)),
        local_port=k.local_port,
        remote=layout.unpack_address(bytes(k.remote)),
        remote_port=k.remote_port,
        opener=Dir(v.opener),
        generation=v.generation,
        rule=v.rule,
        flags=ConnectionFlag(v.flags),
        reason=v.reason,
        idle=max(0, _silence(v.last, now)) / NANOSECONDS,
        allowed=timeout(k.protocol, ConnectionFlag(v.flags), idle_tcp),
    )


def has_ended(key: bytes, value: bytes, now: int, idle_tcp: int = IDLE_TCP) -> bool:
    """`TrackedConnection.ended`, without unpacking what it does not need."""
    protocol = layout.ConnectionKey.from_buffer_copy(key).protocol
    v = layout.ConnectionValue.from_buffer_copy(value)
    allowed = timeout(protocol, ConnectionFlag(v.flags), idle_tcp) * NANOSECONDS
    return _silence(v.last, now) > allowed


def _silence(last: int, now: int) -> int:
    """Nanoseconds, as `ct_silence` in the kernel reckons them."""
    return ctypes.c_int64(now - last).value
