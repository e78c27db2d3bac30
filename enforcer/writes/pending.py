"""What the maps should hold beside what they hold: current values, and the old ones of changes.

The compiler writes what it wants, transition.py reads both sides, and `commit` forgets the old side
once the kernel has it. Nothing is ever taken back. Where a change is refused (a map is too small),
the old values stay until a later change fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from enforcer.policy.buckets import EMPTY, Bucket, ExactSlot, RangeSlot
from enforcer.policy.tables import AddressEntry, CidrEntry, CidrKey, EndpointEntry, Tables
from generators.reachability.services import Backend, ServiceKey

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Place = tuple[int, int]
"""(group, peer)"""


@dataclass(slots=True)
class Layer(Generic[K, V]):
    """One map: `now` as it should be, `was` (None = absent) where the kernel may differ."""

    now: dict[K, V] = field(default_factory=dict)
    was: dict[K, V | None] = field(default_factory=dict)

    def put(self, key: K, value: V | None) -> None:
        """Want this value; None removes."""
        current = self.now.get(key)
        if value == current:
            return
        self.was.setdefault(key, current)
        if value is None:
            del self.now[key]
        else:
            self.now[key] = value

    def in_force(self, key: K) -> V | None:
        """What the kernel holds."""
        return self.was[key] if key in self.was else self.now.get(key)

    def changed(self) -> dict[K, tuple[V | None, V | None]]:
        """Key -> (in force, wanted), where they differ."""
        if not self.was:
            return {}
        return {
            key: (old, new) for key, old in self.was.items() if (new := self.now.get(key)) != old
        }

    def count_in_force(self) -> int:
        """How many entries the kernel holds."""
        pairs = self.changed().values()
        return len(self.now) + sum((new is None) - (old is None) for old, new in pairs)

    def resync(self, kernel: Mapping[K, V]) -> None:
        """Learn what the kernel holds."""
        self.was = {
            key: kernel.get(key)
            for key in (*self.now, *(k for k in kernel if k not in self.now))
            if kernel.get(key) != self.now.get(key)
        }


@dataclass(slots=True)
class PendingTables:
    """The maps of a node; entries of policies are kept by group and peer."""

    endpoints: Layer[int, EndpointEntry] = field(default_factory=Layer)
    addresses: Layer[str, AddressEntry] = field(default_factory=Layer)
    cidrs: Layer[CidrKey, CidrEntry] = field(default_factory=Layer)
    services: Layer[ServiceKey, tuple[Backend, ...]] = field(default_factory=Layer)
    buckets: Layer[Place, Bucket] = field(default_factory=Layer)
    groups_of: dict[int, dict[int, None]] = field(default_factory=dict)
    """Peer -> the groups that should have entries for it."""
    peers_of: dict[int, dict[int, None]] = field(default_factory=dict)
    """Group -> its peers."""
    exact: int = 0
    """How many entries with an exact port there should be."""
    ranged: int = 0
    cidr_uses: Counter[int] = field(default_factory=Counter)
    """How many prefixes should have each number."""
    cidr_lengths: Counter[int] = field(default_factory=Counter)
    """How long the prefixes are that there should be."""
    flagged: dict[CidrKey, None] = field(default_factory=dict)
    """Those in which unknown senders are kept out."""

    def put_cidr(self, key: CidrKey, entry: CidrEntry | None) -> None:
        """Want this prefix; None removes."""
        old = self.cidrs.now.get(key)
        self.cidrs.put(key, entry)
        self.flagged.pop(key, None)
        for found, step in ((old, -1), (entry, 1)):
            if found is not None:
                self.cidr_uses[found.cidr] += step
                self.cidr_lengths[key.length] += step
        if old is not None and not self.cidr_uses[old.cidr]:
            del self.cidr_uses[old.cidr]
        if entry is not None and entry.flags:
            self.flagged[key] = None

    @classmethod
    def of(cls, tables: Tables) -> PendingTables:
        """Wants these tables, and takes them for what is in force."""
        ledger = cls(Layer(dict(tables.endpoints)), Layer(dict(tables.addresses)))
        ledger.services = Layer(dict(tables.services))
        for key, entry in tables.cidrs.items():
            ledger.put_cidr(key, entry)
        for (group, peer), bucket in to_buckets(tables).items():
            ledger.put_bucket(group, peer, bucket)
        ledger.commit()
        return ledger

    def put_bucket(self, group: int, peer: int, bucket: Bucket) -> None:
        """Want these entries; an empty bucket removes."""
        place = (group, peer)
        old = self.buckets.now.get(place, EMPTY)
        self.buckets.put(place, bucket or None)
        self.exact += len(bucket.policy) - len(old.policy)
        self.ranged += len(bucket.ranges) - len(old.ranges)
        if bucket:
            self.groups_of.setdefault(peer, {})[group] = None
            self.peers_of.setdefault(group, {})[peer] = None
        elif old:
            _unlink(self.groups_of, peer, group)
            _unlink(self.peers_of, group, peer)

    def commit(self) -> None:
        """All of it is in force."""
        for layer in (self.endpoints, self.addresses, self.cidrs, self.services, self.buckets):
            layer.was.clear()

    def resync(self, kernel: Tables) -> None:
        """Learn what the kernel holds, at the start and after a failed write."""
        self.endpoints.resync(kernel.endpoints)
        self.addresses.resync(kernel.addresses)
        self.cidrs.resync(kernel.cidrs)
        self.services.resync(kernel.services)
        self.buckets.resync(to_buckets(kernel))


def _unlink(index: dict[int, dict[int, None]], key: int, member: int) -> None:
    del index[key][member]
    if not index[key]:
        del index[key]


def to_buckets(tables: Tables) -> Mapping[Place, Bucket]:
    """Entries by group and peer."""
    policy: dict[Place, dict[ExactSlot, int]] = {}
    ranges: dict[Place, dict[RangeSlot, int]] = {}
    for key, rule in tables.policy.items():
        slot = (key.port, key.protocol, key.direction)
        policy.setdefault((key.group, key.peer), {})[slot] = rule
    for item, rule in tables.ranges.items():
        place = (item.group, item.peer)
        part = (item.protocol, item.direction, item.port, item.length)
        ranges.setdefault(place, {})[part] = rule
    return {
        place: Bucket(policy.get(place, {}), ranges.get(place, {}))
        for place in _places((policy, ranges))
    }


def _places(found: Iterable[Iterable[Place]]) -> Iterable[Place]:
    return dict.fromkeys(place for places in found for place in places)
