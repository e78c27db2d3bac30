"""Whether the maps have room for the next writes, counted before the first of them.

For a moment the maps hold both the old and the new entries, so a change needs more room than its
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.policy.buckets import EMPTY
from enforcer.policy.tables import (
    CAPACITY,
    AddressEntry,
    CidrEntry,
    CidrKey,
    EndpointEntry,
    MapOverflow,
    MapWrite,
    PolicyKey,
    RangeKey,
    Table,
)
from enforcer.writes.pending import PendingTables
from generators.reachability.services import ServiceKey


def peaks(ledger: PendingTables, writes: Iterable[MapWrite]) -> Mapping[Table, int]:
    """The most entries that each map will hold on the way."""
    held = _in_force(ledger)
    most = dict(held)
    changed: dict[tuple[Table, object], bool] = {}
    for write in writes:
        key = (write.table, write.key)
        before = changed[key] if key in changed else _holds(ledger, write)
        changed[key] = write.value is not None
        held[write.table] += changed[key] - before
        most[write.table] = max(most[write.table], held[write.table])
    return most


def overflows(
    ledger: PendingTables, writes: Iterable[MapWrite], capacity: Mapping[Table, int] = CAPACITY
) -> bool:
    """Whether some map would overflow."""
    return any(needed > capacity[table] for table, needed in peaks(ledger, writes).items())


def refuse_overflow(needed: Mapping[Table, int], capacity: Mapping[Table, int] = CAPACITY) -> None:
    """Raise MapOverflow where a map would overflow: by peaks of writes, or the sizes of tables."""
    for table, count in needed.items():
        if count > capacity[table]:
            raise MapOverflow(table, count, capacity[table])


def _in_force(ledger: PendingTables) -> dict[Table, int]:
    """How many entries each map holds now."""
    exact, ranged = ledger.exact, ledger.ranged
    for old, new in ledger.buckets.changed().values():
        exact += len((old or EMPTY).policy) - len((new or EMPTY).policy)
        ranged += len((old or EMPTY).ranges) - len((new or EMPTY).ranges)
    return {
        Table.POLICY: exact,
        Table.RANGES: ranged,
        Table.CIDRS: ledger.cidrs.count_in_force(),
        Table.SERVICES: ledger.services.count_in_force(),
        Table.ADDRESSES: ledger.addresses.count_in_force(),
        Table.ENDPOINTS: ledger.endpoints.count_in_force(),
    }


def _holds(ledger: PendingTables, write: MapWrite) -> bool:
    """Whether the kernel has an entry with this key."""
    key = write.key
    if isinstance(key, PolicyKey):
        bucket = ledger.buckets.in_force((key.group, key.peer)) or EMPTY
        return (key.port, key.protocol, key.direction) in bucket.policy
    if isinstance(key, RangeKey):
        bucket = ledger.buckets.in_force((key.group, key.peer)) or EMPTY
        return (key.protocol, key.direction, key.port, key.length) in bucket.ranges
    if isinstance(key, ServiceKey):
        return ledger.services.in_force(key) is not None
    found: AddressEntry | CidrEntry | EndpointEntry | None
    if isinstance(key, int):
        found = ledger.endpoints.in_force(key)
    elif isinstance(key, CidrKey):
        found = ledger.cidrs.in_force(key)
    else:
        found = ledger.addresses.in_force(key)
    return found is not None
