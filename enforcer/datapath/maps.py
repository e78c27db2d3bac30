"""The kernel's maps: reads tables, applies changes in the order given, and reports counts and
connections.

The agent calls `read` once, and `apply` for each plan of the compiler, whose order matters.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from enforcer.datapath import kernel, layout
from enforcer.datapath.connections import (
    IDLE_TCP,
    NANOSECONDS,
    TrackedConnection,
    has_ended,
    unpack,
)
from enforcer.datapath.pinned import PinnedMaps
from enforcer.datapath.proof import slot
from enforcer.policy.tables import (
    CAPACITY,
    AddressEntry,
    CidrEntry,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    Key,
    MapWrite,
    PolicyKey,
    RangeKey,
    Table,
    Tables,
    Value,
)
from generators.errors import Refused
from generators.reachability.services import ServiceKey

GRACE_NANOSECONDS = 30 * 1_000_000_000
LOST_COUNTERS = 3
TUNNELS, TUNNEL_WORDS = "tunnel_map", 1024
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


SIZES = (64, 1 << 22)
"""The smallest and the largest map that can be asked for."""
UNLIMITED: Mapping[Table, int] = dict.fromkeys(Table, sys.maxsize)
"""For questions about what is written, regardless of a node's room."""


def map_sizes(given: Iterable[str]) -> Mapping[Table, int]:
    """The sizes of all maps, some of them given as `cidr_map=131072`."""
    sizes, names = dict(CAPACITY), [table.value for table in Table]
    for text in given:
        name, _, number = text.partition("=")
        least, most = SIZES
        sound = number.isascii() and number.isdecimal() and len(number) < 10
        if name not in names or not sound or not least <= int(number) <= most:
            raise Refused(
                f'map size "{text}" is not MAP=NUMBER: write one of {", ".join(names)}, and from '
                f"{least} to {most} entries"
            )
        sizes[Table(name)] = int(number)
    return sizes


@dataclass(frozen=True, slots=True, order=True)
class Statistic:
    """Packets of one endpoint and direction with one outcome.

    `rule` or `group` is what decided; both may be 0.
    """

    endpoint: int
    direction: Dir
    verdict: int
    reason: int
    rule: int
    group: int
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class Lost:
    """What the programs could not tell: events for want of room or beyond a sender's share, counts
    for want of an entry.
    """

    events: int
    counts: int
    held_back: int = 0
    """Those of the events that were beyond a sender's share."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What the last removal of ended connections found."""

    alive: int = 0
    deleted: int = 0


def _pack_key(key: Key) -> bytes:
    if isinstance(key, PolicyKey):
        return layout.pack_policy(key)
    if isinstance(key, RangeKey):
        return layout.pack_range(key)
    if isinstance(key, ServiceKey):
        return layout.pack_service(key)
    if isinstance(key, int):
        return layout.pack_interface(key)
    return layout.pack_cidr(key) if isinstance(key, CidrKey) else layout.pack_address(key)


def _pack(table: Table, key: Key, value: Value) -> tuple[bytes, bytes]:
    """An element; the value names its owner."""
    packed = _pack_key(key)
    if isinstance(value, int):
        ranged = table is Table.RANGES
        return packed, layout.pack_range_rule(value) if ranged else layout.pack_rule(packed, value)
    if isinstance(value, AddressEntry):
        return packed, layout.pack_address_entry(packed, value)
    if isinstance(value, CidrEntry):
        return packed, layout.pack_cidr_value(value)
    if isinstance(value, tuple):
        return packed, layout.pack_backends(packed, value)
    return packed, layout.pack_endpoint(packed, value)


OTHERS = ("ct_map", "tenure_map", "idle_map", "quota_map", "stats_map", "lost_map", TUNNELS)
"""Maps that hold no tables."""
IDLE_SIZE = 8


def _possible_cpus() -> int:
    """How many values a per-CPU element has."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(ranges.replace(",", "-").split("-")[-1]) + 1


class Maps(PinnedMaps):
    """The pinned maps of one node. Open with `Maps.open`, close or use as a context."""

    NAMES = (*(table.value for table in Table), *OTHERS)

    def __init__(self, handles: Mapping[str, kernel.Handle]) -> None:
        super().__init__(handles)
        self._info = {name: kernel.map_info(handle.fd) for name, handle in handles.items()}
        self._cpus = _possible_cpus()
        self.collected = Collected()

    def lead_to_tunnels(self, ports: Iterable[int]) -> None:
        """Exactly these UDP ports of nodes unpack what they get."""
        words = [0] * TUNNEL_WORDS
        for port in ports:
            words[port // 64] |= 1 << port % 64
        packed = [(i.to_bytes(4, "little"), w.to_bytes(8, "little")) for i, w in enumerate(words)]
        kernel.map_update_batch(self._handles[TUNNELS].fd, packed)

    def _scan(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        return kernel.map_scan(self._handles[name].fd, self._info[name])

    def _dump(self, name: str) -> list[tuple[bytes, bytes]]:
        return kernel.map_dump(self._handles[name].fd, self._info[name])

    def _dump_per_cpu(self, name: str) -> Iterator[tuple[bytes, list[bytes]]]:
        info = self._info[name]
        size = (info.value_size + 7) // 8 * 8
        for key, values in kernel.map_dump(self._handles[name].fd, info, size * self._cpus):
            yield key, [values[i * size : (i + 1) * size] for i in range(self._cpus)]

    def read(self) -> Tables:
        """What the kernel holds; `rules` and `isolating` are not in the kernel and stay empty."""
        return Tables(
            endpoints={
                int.from_bytes(k, "little"): layout.unpack_endpoint(v)
                for k, v in self._dump(Table.ENDPOINTS)
            },
            addresses={
                layout.unpack_address(k): layout.unpack_address_entry(v)
                for k, v in self._dump(Table.ADDRESSES)
            },
            policy={
                layout.unpack_policy(k): layout.unpack_rule(v) for k, v in self._dump(Table.POLICY)
            },
            ranges={
                layout.unpack_range(k): layout.unpack_range_rule(v)
                for k, v in self._dump(Table.RANGES)
            },
            cidrs={
                layout.unpack_cidr(k): layout.unpack_cidr_value(v)
                for k, v in self._dump(Table.CIDRS)
            },
            services={
                layout.unpack_service(k): layout.unpack_backends(v)
                for k, v in self._dump(Table.SERVICES)
            },
        )

    def apply(self, changes: Iterable[MapWrite]) -> None:
        """Write changes in the given order, neighbours of one map and kind as one batch."""
        by_kind: Callable[[MapWrite], tuple[Table, bool]] = lambda c: (c.table, c.value is None)  # noqa: E731
        for (table, deletes), group in groupby(changes, key=by_kind):
            descriptor = self._handles[table].fd
            batch = tuple(group)
            if deletes:
                kernel.map_delete_batch(descriptor, [_pack_key(c.key) for c in batch])
            elif table is Table.ENDPOINTS:
                for change in batch:
                    self._write_endpoint(change)
            else:
                kernel.map_update_batch(
                    descriptor,
                    [_pack(table, c.key, c.value) for c in batch if c.value is not None],
                )
            if table is Table.ADDRESSES:
                self._end_tenures(batch)

    def _end_tenures(self, changes: Iterable[MapWrite]) -> None:
        """Have every connection with these addresses judged again, whoever owns them now."""
        now = time.monotonic_ns().to_bytes(8, "little")
        packed = (_pack_key(change.key) for change in changes)
        slots = {slot(address) for address in packed}
        entries = [(layout.pack_interface(number), now) for number in sorted(slots)]
        kernel.map_update_batch(self._handles["tenure_map"].fd, entries)

    def _write_endpoint(self, change: MapWrite) -> None:
        """Grace begins once: rewriting an endpoint does not prolong it."""
        if not isinstance(change.value, EndpointEntry):
            raise TypeError(f"{change.table} holds endpoints, not {change.value!r}")
        descriptor, size = self._handles[Table.ENDPOINTS].fd, ctypes.sizeof(layout.Endpoint)
        key = _pack_key(change.key)
        until = 0
        if EndpointFlag.GRACE in change.value.flags:
            present = kernel.map_lookup(descriptor, key, size)
            until = layout.Endpoint.from_buffer_copy(present).grace_until if present else 0
            until = until or time.monotonic_ns() + GRACE_NANOSECONDS
        kernel.map_update(descriptor, key, layout.pack_endpoint(key, change.value, until))

    def adoption(self) -> Mapping[int, float]:
        """Seconds for which endpoints of before the first agent still adopt connections, by
        interface; those that adopt none any more are left out.
        """
        now, found = time.monotonic_ns(), {}
        for key, value in self._dump(Table.ENDPOINTS):
            held = layout.Endpoint.from_buffer_copy(value)
            if EndpointFlag.GRACE & held.flags and held.grace_until > now:
                found[int.from_bytes(key, "little")] = (held.grace_until - now) / NANOSECONDS
        return found

    def memory(self) -> int:
        """Bytes of all maps when they are full, as the kernel accounts them."""
        return sum(kernel.map_memory(handle.fd) for handle in self._handles.values())

    @property
    def name(self) -> str:
        """Of just these maps: others on this machine, or after its next start, have another."""
        ids = "-".join(str(self._info[table.value].id) for table in Table)
        return f"{BOOT_ID.read_text().strip()}/{ids}"

    def capacity(self) -> Mapping[Table, int]:
        """How many entries each map holds at most."""
        return {table: self._info[table].max_entries for table in Table}

    def statistics(self) -> tuple[Statistic, ...]:
        """Exact counts of packets and bytes since the programs were loaded, sorted."""
        found = []
        for key, values in self._dump_per_cpu("stats_map"):
            raw = layout.StatsKey.from_buffer_copy(key)
            counts = [layout.StatsValue.from_buffer_copy(v) for v in values]
            found.append(
                Statistic(
                    endpoint=raw.endpoint,
                    direction=Dir(raw.direction),
                    verdict=raw.verdict,
                    reason=raw.reason,
                    rule=0 if raw.by_group else raw.rule,
                    group=raw.rule if raw.by_group else 0,
                    packets=sum(c.packets for c in counts),
                    octets=sum(c.bytes for c in counts),
                )
            )
        return tuple(sorted(found))

    def lost(self) -> Lost:
        """Events and counts that were lost, summed over CPUs."""
        descriptor, totals = self._handles["lost_map"].fd, []
        for counter in range(LOST_COUNTERS):
            raw = kernel.map_lookup(descriptor, counter.to_bytes(4, "little"), 8 * self._cpus)
            values = memoryview(raw or bytes(8)).cast("Q")
            totals.append(sum(values))
        events, counts, held_back = totals
        return Lost(events + held_back, counts, held_back)

    def share_events(self, quota: int) -> None:
        """Have no sender make more than `quota` events a second, of drops and of what passed; 0:
        any number.
        """
        kernel.map_update(self._handles["quota_map"].fd, bytes(4), quota.to_bytes(8, "little"))

    def connections(self) -> tuple[TrackedConnection, ...]:
        """Every tracked connection, sorted; ended ones stay until they are pushed out or expire."""
        return tuple(sorted(read() for read in self.tracked()))

    def tracked(self, endpoint: int | None = None) -> Iterator[Callable[[], TrackedConnection]]:
        """The same of one endpoint or all, unordered, each decoded by the caller if wanted.

        There may be many: a few of them are in memory at a time, and counting them reads none.
        """
        now, idle = time.monotonic_ns(), self.idle_tcp
        at = layout.ConnectionKey.endpoint
        wanted = endpoint.to_bytes(at.size, "little") if endpoint is not None else None
        for key, value in self._scan("ct_map"):
            if wanted is None or key[at.offset : at.offset + at.size] == wanted:
                yield partial(unpack, key, value, now, idle)

    @property
    def idle_tcp(self) -> int:
        """Seconds that an established TCP connection may be silent."""
        raw = kernel.map_lookup(self._handles["idle_map"].fd, bytes(4), IDLE_SIZE) or b""
        return int.from_bytes(raw, "little") // NANOSECONDS or IDLE_TCP

    @idle_tcp.setter
    def idle_tcp(self, seconds: int) -> None:
        value = (seconds * NANOSECONDS).to_bytes(IDLE_SIZE, "little")
        kernel.map_update(self._handles["idle_map"].fd, bytes(4), value)

    def collect(self) -> int:
        """Remove connections that have ended; how many are left. For every half minute or so.

        An entry is read again right before it goes: a packet may have revived it meanwhile.
        """
        now, idle = time.monotonic_ns(), self.idle_tcp
        descriptor, size = self._handles["ct_map"].fd, self._info["ct_map"].value_size
        found = deleted = 0
        for key, value in self._scan("ct_map"):
            found += 1
            if not has_ended(key, value, now, idle):
                continue
            latest = kernel.map_lookup(descriptor, key, size)
            if latest is not None and has_ended(key, latest, now, idle):
                deleted += kernel.map_delete(descriptor, key)
        self.collected = Collected(found - deleted, deleted)
        return found - deleted

    def forget(self, endpoints: Iterable[int]) -> None:
        """Drop connections and counts of endpoints that are gone, so that an id starts clean."""
        gone = frozenset(endpoints)
        connections = [
            k
            for k, _ in self._scan("ct_map")
            if layout.ConnectionKey.from_buffer_copy(k).endpoint in gone
        ]
        kernel.map_delete_batch(self._handles["ct_map"].fd, connections)
        for key, _ in self._dump_per_cpu("stats_map"):
            if layout.StatsKey.from_buffer_copy(key).endpoint in gone:
                kernel.map_delete(self._handles["stats_map"].fd, key)
