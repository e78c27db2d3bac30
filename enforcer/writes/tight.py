"""Writes for when the usual order finds no room, or the kernel refused some of it.

`squeezed` needs no more room than the larger of both sides: whatever is switched is closed for that
moment. `urgent` writes never wait for anything else. Neither has bridges. An address that is
written early has a number that old groups do not know, or still mean alike, so it can enter less
than before and never more. Where groups deny, not to be known may be more: endpoints whose group
lacks an entry that denies are closed until it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from enforcer.policy.buckets import Bucket
from enforcer.policy.tables import (
    CAPACITY,
    RULE_DENY,
    EndpointEntry,
    EndpointFlag,
    MapWrite,
    Table,
)
from enforcer.writes.capacity import peaks, refuse_overflow
from enforcer.writes.pending import PendingTables, Place
from enforcer.writes.transition import closing, opening, switched

Changed = Mapping[Place, tuple[Bucket | None, Bucket | None]]


def squeezed(ledger: PendingTables) -> tuple[MapWrite, ...]:
    """All that is wanted: removals first, and endpoints closed until their new groups are there."""
    switches = switched(ledger)
    services, buckets = ledger.services.changed(), ledger.buckets.changed()
    cidrs, addresses = ledger.cidrs.changed(), ledger.addresses.changed()
    endpoints = ledger.endpoints.changed()
    used = {g for e in ledger.endpoints.now.values() for g in e.groups}
    left = {place: pair for place, pair in buckets.items() if place[0] not in used}
    stay = {place: pair for place, pair in buckets.items() if place[0] in used}
    return (
        *(
            MapWrite(Table.ENDPOINTS, i, replace(old, flags=old.flags & ~EndpointFlag.READY))
            for i, (old, _) in switches.items()
        ),
        *_gone(ledger),
        *closing(left, {}),
        *(MapWrite(Table.SERVICES, k, None) for k, (_, new) in services.items() if new is None),
        *(MapWrite(Table.CIDRS, p, None) for p, (_, new) in cidrs.items() if new is None),
        *opening(buckets, {}),
        *(MapWrite(Table.CIDRS, p, new) for p, (_, new) in cidrs.items() if new is not None),
        *(
            MapWrite(Table.ADDRESSES, a, new)
            for a, (_, new) in addresses.items()
            if new is not None
        ),
        *(MapWrite(Table.SERVICES, k, new) for k, (_, new) in services.items() if new is not None),
        *(
            MapWrite(Table.ENDPOINTS, i, new)
            for i, (_, new) in endpoints.items()
            if new is not None
        ),
        *closing(stay, {}),
    )


def fitting(ledger: PendingTables, limits: Mapping[Table, int] = CAPACITY) -> tuple[MapWrite, ...]:
    """The same; MapOverflow where even that finds no room."""
    writes = squeezed(ledger)
    refuse_overflow(peaks(ledger, writes), limits)
    return writes


def urgent(ledger: PendingTables) -> tuple[MapWrite, ...]:
    """Removals, changed owners, and connections to be judged again.

    What is there already is changed before anything is added, so that a full map stops none of it.
    """
    addresses, doubted = ledger.addresses.changed(), _doubted(ledger)
    return (
        *(
            MapWrite(Table.ENDPOINTS, i, replace(entry, flags=entry.flags & ~EndpointFlag.READY))
            for i, entry in _in_force(ledger)
            if entry.group in doubted
        ),
        *_gone(ledger),
        *(
            MapWrite(Table.ADDRESSES, address, new)
            for known in (True, False)
            for address, (old, new) in addresses.items()
            if new is not None and (old is not None) is known
        ),
        *(
            MapWrite(Table.ENDPOINTS, i, replace(old, generation=new.generation))
            for i, (old, new) in ledger.endpoints.changed().items()
            if old is not None and new is not None and old.endpoint == new.endpoint
            if old.group not in doubted
        ),
    )


def _doubted(ledger: PendingTables) -> frozenset[int]:
    """Groups without an entry that denies a peer, or that denied what its address was before."""
    found = {
        group
        for (group, _), (old, new) in ledger.buckets.changed().items()
        if not _denied(new) <= _denied(old)
    }
    denying = {e.group for _, e in _in_force(ledger) if EndpointFlag.USES_DENY in e.flags}
    of = ledger.buckets.in_force
    for old, new in ledger.addresses.changed().values():
        if denying and old is not None and new is not None and old.identity != new.identity:
            before = {group: _denied(of((group, old.identity))) for group in denying}
            now = {group: _denied(of((group, new.identity))) for group in denying}
            found |= {group for group in denying if not before[group] <= now[group]}
    return frozenset(found)


def _denied(bucket: Bucket | None) -> frozenset[object]:
    slots = (*bucket.policy.items(), *bucket.ranges.items()) if bucket is not None else ()
    return frozenset(slot for slot, rule in slots if rule & RULE_DENY)


def _in_force(ledger: PendingTables) -> Iterable[tuple[int, EndpointEntry]]:
    for ifindex in dict.fromkeys((*ledger.endpoints.now, *ledger.endpoints.was)):
        entry = ledger.endpoints.in_force(ifindex)
        if entry is not None:
            yield ifindex, entry


def _gone(ledger: PendingTables) -> Iterable[MapWrite]:
    for ifindex, (_, entry) in ledger.endpoints.changed().items():
        if entry is None:
            yield MapWrite(Table.ENDPOINTS, ifindex, None)
    for address, (_, known) in ledger.addresses.changed().items():
        if known is None:
            yield MapWrite(Table.ADDRESSES, address, None)
