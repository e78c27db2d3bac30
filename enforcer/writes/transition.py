"""From what is in force to what is wanted, in an order in which no packet meets a mixture.

The agent applies `writes(ledger)` in order. A packet is judged by its endpoint and by its peer's
address; where both change, one write comes first. So an address on the move gets an identity of its
own, "was A and will be B": old groups treat it as A and new ones as B, and the endpoints are
switched in between. Blocks of addresses that only one side knows are bridged to the block around,
those that go out of a list under a number of their own.

    entries, bridges -> blocks -> addresses on the move, or new ones -> services with both backends
    -> switched endpoints -> addresses -> services -> other endpoints -> what is gone

Where only one endpoint or none is switched, nothing has to be bridged, so a pod that is added or
relabelled is one write for each of its addresses. Endpoints whose connections are only to be judged
again come after the addresses, or they would be judged by outdated ones. An entry that denies never
gets another rule in a group that judges: a lookup could miss it meanwhile, and find a broader one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from enforcer.policy.blocks import Net
from enforcer.policy.buckets import EMPTY, Bucket
from enforcer.policy.groups import CIDR_PLACES
from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    PEER_TENANT,
    PORT_ANY,
    PROTO_ANY,
    RULE_DENY,
    SERVICE_BACKENDS,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    MapWrite,
    Table,
    cidr_peer,
)
from enforcer.writes.pending import PendingTables, Place
from generators.reachability.services import Backend, ServiceKey

Fresh = Callable[[], int]
"""A number that no identity ever had."""

Switch = tuple[EndpointEntry, EndpointEntry]
Move = tuple[AddressEntry | None, AddressEntry | None]

ENTERS_BY_ANY_PORT = Bucket({(PORT_ANY, PROTO_ANY, Dir.INGRESS): 1})
"""An address outside the pod ranges that had no owner: the wall does not look at it.

A wall only asks whether there is a rule, so any number will do but 0, which reads as none.
"""


CLOSED = Bucket({(PORT_ANY, PROTO_ANY, direction): RULE_DENY for direction in Dir})
"""An address that nobody had, or has any more, to groups that tell pods from who is outside: it is
both for that moment, and enters by no rule.
"""


def switched(ledger: PendingTables) -> dict[int, Switch]:
    """Endpoints that are judged by other groups or flags than before: (in force, wanted)."""
    return {
        ifindex: (old, new)
        for ifindex, (old, new) in ledger.endpoints.changed().items()
        if old is not None and new is not None and not new.is_judged_as(old)
    }


def moved(ledger: PendingTables) -> dict[str, Move]:
    """Addresses of pods that mean another class than before."""
    return {
        address: (old, new)
        for address, (old, new) in ledger.addresses.changed().items()
        if (old is None or old.identity >= FIRST_POD_IDENTITY)
        and (new is None or new.identity >= FIRST_POD_IDENTITY)
    }


def needs_bridges(switches: Mapping[int, Switch], moves: Iterable[str]) -> bool:
    """Whether some address moves while the endpoint of another pod is switched."""
    if len(switches) != 1:
        return bool(switches) and any(True for _ in moves)
    (pair,) = switches.values()
    own = {address for entry in pair for address in (*entry.ip4, *entry.ip6)}
    return not own.issuperset(moves)


def conflicts(ledger: PendingTables) -> list[int]:
    """Groups that some endpoint leaves and another one enters, while addresses move.

    An address on the move would have to be both to them; a new number for those that want the group
    settles it.
    """
    switches = switched(ledger)
    if not needs_bridges(switches, moved(ledger)):
        return []
    left = {group for old, _ in switches.values() for group in old.groups}
    entered = {group for _, new in switches.values() for group in new.groups}
    return sorted((left & entered) - {0})


def writes(ledger: PendingTables, fresh: Fresh, fresh_block: Fresh) -> tuple[MapWrite, ...]:
    """All of them, in order; `fresh_block`: a number that no block ever had."""
    switches, moves = switched(ledger), moved(ledger)
    bridges = _Bridges(ledger, switches)
    leaving = bridges.blocks(fresh_block)
    meanwhile: Mapping[str, AddressEntry] = {}
    if needs_bridges(switches, moves):
        meanwhile = bridges.addresses(moves, fresh)
    services = ledger.services.changed()
    buckets = ledger.buckets.changed()
    cidrs = ledger.cidrs.changed()
    addresses = ledger.addresses.changed()
    endpoints = ledger.endpoints.changed()
    return (
        *opening(buckets, bridges.made),
        *(MapWrite(Table.CIDRS, p, new) for p, (_, new) in cidrs.items() if new is not None),
        *(MapWrite(Table.CIDRS, p, entry) for p, entry in leaving.items()),
        *(MapWrite(Table.ADDRESSES, a, entry) for a, entry in meanwhile.items()),
        *_put({} if meanwhile else {a: p for a, p in addresses.items() if p[0] is None}),
        *_joined(services),
        *(MapWrite(Table.ENDPOINTS, i, new) for i, (_, new) in switches.items()),
        *_put(addresses if meanwhile else {a: p for a, p in addresses.items() if p[0]}),
        *(MapWrite(Table.SERVICES, k, new) for k, (_, new) in services.items() if new is not None),
        *(
            MapWrite(Table.ADDRESSES, a, None)
            for a, (old, new) in addresses.items()
            if new is None and (old is not None or a in meanwhile)
        ),
        *(
            MapWrite(Table.ENDPOINTS, i, new)
            for i, (_, new) in endpoints.items()
            if new is not None and i not in switches
        ),
        *(MapWrite(Table.ENDPOINTS, i, None) for i, (_, new) in endpoints.items() if new is None),
        *(MapWrite(Table.SERVICES, k, None) for k, (_, new) in services.items() if new is None),
        *(MapWrite(Table.CIDRS, p, None) for p, (_, new) in cidrs.items() if new is None),
        *closing(buckets, bridges.made),
    )


def _put(addresses: Mapping[str, Move]) -> Iterable[MapWrite]:
    for address, (_, new) in addresses.items():
        if new is not None:
            yield MapWrite(Table.ADDRESSES, address, new)


def _joined(
    services: Mapping[ServiceKey, tuple[tuple[Backend, ...] | None, tuple[Backend, ...] | None]],
) -> Iterable[MapWrite]:
    """Services with the backends of both sides: all of them have to be allowed.

    Closed where they do not fit, and where one of the two is.
    """
    for key, (old, new) in services.items():
        if old is not None and new is not None:
            joined = tuple(dict.fromkeys((*old, *new))) if old and new else ()
            joined = joined if len(joined) <= SERVICE_BACKENDS else ()
            if joined not in (old, new):
                yield MapWrite(Table.SERVICES, key, joined)


def opening(
    buckets: Mapping[Place, tuple[Bucket | None, Bucket | None]], bridges: Mapping[Place, Bucket]
) -> Iterable[MapWrite]:
    """Entries of policies to add; ranges after exact ports."""
    wanted = [(place, old or EMPTY, new or EMPTY) for place, (old, new) in buckets.items()]
    wanted += [(place, EMPTY, bucket) for place, bucket in bridges.items()]
    for (group, peer), old, new in wanted:
        for key, rule in new.policy_entries(group, peer):
            if old.policy.get((key.port, key.protocol, key.direction)) != rule:
                yield MapWrite(Table.POLICY, key, rule)
    for (group, peer), old, new in wanted:
        for item, rule in new.range_entries(group, peer):
            if old.ranges.get((item.protocol, item.direction, item.port, item.length)) != rule:
                yield MapWrite(Table.RANGES, item, rule)


def closing(
    buckets: Mapping[Place, tuple[Bucket | None, Bucket | None]], bridges: Mapping[Place, Bucket]
) -> Iterable[MapWrite]:
    """Entries of policies to remove; ranges first."""
    gone = [(place, old or EMPTY, new or EMPTY) for place, (old, new) in buckets.items()]
    gone += [(place, bucket, EMPTY) for place, bucket in bridges.items()]
    for (group, peer), old, new in gone:
        for item, _ in old.range_entries(group, peer):
            if (item.protocol, item.direction, item.port, item.length) not in new.ranges:
                yield MapWrite(Table.RANGES, item, None)
    for (group, peer), old, new in gone:
        for key, _ in old.policy_entries(group, peer):
            if (key.port, key.protocol, key.direction) not in new.policy:
                yield MapWrite(Table.POLICY, key, None)


@dataclass(slots=True)
class _Bridges:
    """Entries that are there during the switch only."""

    ledger: PendingTables
    switches: Mapping[int, Switch]
    made: dict[Place, Bucket] = field(default_factory=dict)

    def blocks(self, fresh: Fresh) -> Mapping[CidrKey, CidrEntry]:
        """Blocks that only one side knows, to the block around them on the other.

        Those that leave others with the same number behind get one of their own meanwhile.
        """
        cidrs, found = self.ledger.cidrs, dict[CidrKey, CidrEntry]()
        changed = cidrs.changed()
        if not changed or not self.switches:
            return found
        lengths = {*self.ledger.cidr_lengths, *(key.length for key in changed)}
        around, around_now = _Around(cidrs.in_force, lengths), _Around(cidrs.now.get, lengths)
        left, entered, wanted = self._left, self._entered, self._wanted
        used = self.ledger.cidr_uses
        numbers: dict[tuple[int, int], int] = {}
        for key, (old, new) in changed.items():
            if new is not None and (old is None or old.cidr != new.cidr):
                outer = old or around.entry(key)
                for group in left:
                    self._as(group, new, outer, old_side=True)
            elif old is not None and new is None:
                outer = around_now.entry(key)
                if old.cidr in used:
                    pair = old.cidr, outer.cidr if outer is not None else 0
                    number = numbers.get(pair) or numbers.setdefault(pair, fresh())
                    found[key] = replace(old, cidr=number)
                    for group in wanted - left:
                        self._as(group, found[key], outer, old_side=False)
                    for group in left:
                        self._as(group, found[key], old, old_side=True)
                    continue
                for group in entered:
                    self._as(group, old, outer, old_side=False)
        return found

    def addresses(self, moves: Mapping[str, Move], fresh: Fresh) -> Mapping[str, AddressEntry]:
        """Who moves, under identities of their own."""
        numbers: dict[tuple[object, ...], int] = {}
        found: dict[str, AddressEntry] = {}
        ranges = self._closed_ranges()
        for address, (old, new) in moves.items():
            inside = any(Net.of(address).inside(net) for net in ranges)
            key = (old and (old.identity, old.tenant), new and (new.identity, new.tenant), inside)
            if key not in numbers:
                numbers[key] = fresh()
                self._treat(numbers[key], old, new, inside=inside)
            kept = (new or old or AddressEntry(0)).flags
            if any(side is not None and side.tenant for side in (old, new)):
                kept |= AddressFlag.MOVING
            found[address] = AddressEntry(numbers[key], 0, kept)
        return found

    def _closed_ranges(self) -> Iterable[Net]:
        """The widest prefixes that keep unknown senders out, as they are in force or wanted."""
        before = (
            key for key, entry in self.ledger.cidrs.was.items() if entry is not None and entry.flags
        )
        found: list[Net] = []
        for net in sorted(Net.of(key.prefix) for key in (*self.ledger.flagged, *before)):
            if not any(net.inside(wider) for wider in found):
                found.append(net)
        return found

    def _treat(
        self, number: int, old: AddressEntry | None, new: AddressEntry | None, *, inside: bool
    ) -> None:
        left = self._left
        for group in left:
            self._one(group, number, old, old_side=True, inside=inside)
        for group in self._wanted - left:
            self._one(group, number, new, old_side=False, inside=inside)

    def _one(
        self, group: int, number: int, entry: AddressEntry | None, *, old_side: bool, inside: bool
    ) -> None:
        if entry is None:
            if group in self._walls and not inside:
                self.made[group, number] = ENTERS_BY_ANY_PORT
            elif group in self._telling:
                self.made[group, number] = CLOSED
            return
        found = self._bucket(group, entry.identity, old_side=old_side)
        if entry.tenant:
            found = found | self._bucket(group, PEER_TENANT | entry.tenant, old_side=old_side)
        if found:
            self.made[group, number] = found

    def _as(self, group: int, block: CidrEntry, outer: CidrEntry | None, *, old_side: bool) -> None:
        if outer is None:
            return
        peers = {place: cidr_peer(block.cidr, place) for place in CIDR_PLACES}
        if any(self._bucket(group, p, old_side=s) for p in peers.values() for s in (True, False)):
            return  # a group that stays knows this block by itself
        for place, peer in peers.items():
            found = self._bucket(group, cidr_peer(outer.cidr, place), old_side=old_side)
            if found:
                self.made[group, peer] = found

    def _bucket(self, group: int, peer: int, *, old_side: bool) -> Bucket:
        buckets, place = self.ledger.buckets, (group, peer)
        return (buckets.in_force(place) if old_side else buckets.now.get(place)) or EMPTY

    @property
    def _left(self) -> set[int]:
        """Groups by which endpoints are judged until they are switched."""
        return {g for old, _ in self.switches.values() for g in old.groups} - {0}

    @property
    def _entered(self) -> set[int]:
        return {g for _, new in self.switches.values() for g in new.groups} - {0}

    @property
    def _wanted(self) -> set[int]:
        return {g for e in self.ledger.endpoints.now.values() for g in e.groups} - {0}

    @property
    def _telling(self) -> set[int]:
        """Policy groups to which pods and whoever is outside are not alike."""
        entries = [old for old, _ in self.switches.values()]
        entries += self.ledger.endpoints.now.values()
        return {e.group for e in entries if EndpointFlag.USES_PLACES in e.flags} - {0}

    @property
    def _walls(self) -> set[int]:
        olds = {old.wall for old, _ in self.switches.values()}
        return olds | {entry.wall for entry in self.ledger.endpoints.now.values()}


class _Around:
    """Finds the longest of the blocks of a trie that hold a prefix and more."""

    def __init__(
        self, entries: Callable[[CidrKey], CidrEntry | None], lengths: Iterable[int]
    ) -> None:
        self._entries = entries
        self._lengths = sorted(lengths, reverse=True)

    def entry(self, key: CidrKey) -> CidrEntry | None:
        """The block around a prefix."""
        net = Net.of(key.prefix)
        for length in self._lengths:
            if length < net.length:
                found = self._entries(CidrKey(key.tenant, net.shortened(length).text))
                if found is not None:
                    return found
        return None
