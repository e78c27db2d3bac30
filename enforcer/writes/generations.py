"""Before a plan is written: which groups get new numbers, and which connections are judged again.

Called by the compiler's `plan`. An endpoint's connections are judged again when its generation
moves on: because it is another endpoint now, because its groups are others, or because it may have
let in a peer whose identity has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from operator import or_

from enforcer.policy.buckets import EMPTY
from enforcer.policy.rulebook import Group, Groups
from enforcer.policy.tables import FIRST_POD_IDENTITY, PEER_ANY, PEER_TENANT, AddressEntry
from enforcer.writes.pending import PendingTables

UNKNOWN = AddressEntry(0)


def renumber(
    ledger: PendingTables, groups: Groups, interfaces: Mapping[str, int], number: int
) -> Group:
    """A new number for a group, so that who had it and who gets it are judged apart."""
    peers = tuple(ledger.peers_of.get(number, ()))
    group = groups.renumber(number)
    for peer in peers:
        bucket = ledger.buckets.now[number, peer]
        ledger.put_bucket(number, peer, EMPTY)
        ledger.put_bucket(group.number, peer, bucket)
    for key in group.users:
        ifindex = interfaces[key]
        entry = ledger.endpoints.now[ifindex]
        was, now = number, group.number
        entry = replace(
            entry,
            group=now if entry.group == was else entry.group,
            wall=now if entry.wall == was else entry.wall,
            reach=now if entry.reach == was else entry.reach,
        )
        ledger.endpoints.put(ifindex, entry)
    return group


def stamp(
    ledger: PendingTables,
    groups: Groups,
    interfaces: Mapping[str, int],
    fresh: Callable[[], int],
    *,
    everybody: bool,
) -> None:
    """Generations: a `fresh` one, never used before, where connections are judged again."""
    endpoints = ledger.endpoints
    again = _rejudged(ledger, groups, interfaces, everybody=everybody)
    for ifindex in dict.fromkeys((*endpoints.was, *again)):
        old, new = endpoints.in_force(ifindex), endpoints.now.get(ifindex)
        if new is None:
            continue
        kept = old is not None and new.is_judged_as(old) and ifindex not in again
        generation = old.generation if old is not None and kept else fresh()
        endpoints.put(ifindex, replace(new, generation=generation))


def _rejudged(
    ledger: PendingTables, groups: Groups, interfaces: Mapping[str, int], *, everybody: bool
) -> dict[int, None]:
    """Endpoints that may have let in, or let out to, a peer whose identity has changed."""
    changed = ledger.addresses.changed().values()
    pairs = dict.fromkeys(
        (old, new or UNKNOWN)
        for old, new in changed
        if old is not None and old.identity != UNKNOWN.identity
    )
    if everybody or any(old.identity < FIRST_POD_IDENTITY for old, _ in pairs):
        return dict.fromkeys(ledger.endpoints.now)
    if not pairs:
        return {}
    groups_was: dict[int, dict[int, None]] = {}
    for group, peer in ledger.buckets.was:
        groups_was.setdefault(peer, {})[group] = None
    found: dict[int, None] = {}
    for old, new in pairs:
        # What anyone may do, the pod may as well, before and after.
        for peer in {*_peers(old), *_peers(new)} - {PEER_ANY}:
            for number in (*ledger.groups_of.get(peer, ()), *groups_was.get(peer, ())):
                using = groups.by_number.get(number)
                if using is not None and _loses(ledger, number, old, new):
                    found.update(dict.fromkeys(interfaces[key] for key in using.users))
    return found


def _loses(ledger: PendingTables, group: int, old: AddressEntry, new: AddressEntry) -> bool:
    """Whether a group opens less to who an address is now."""
    buckets = ledger.buckets
    was = [b for peer in _peers(old) if (b := buckets.in_force((group, peer))) is not None]
    now = [b for peer in _peers(new) if (b := buckets.now.get((group, peer))) is not None]
    return was != now and not reduce(or_, now, EMPTY).opens_all_of(reduce(or_, was, EMPTY))


def _peers(entry: AddressEntry) -> tuple[int, ...]:
    return (entry.identity, PEER_TENANT | entry.tenant) if entry.tenant else (entry.identity,)
