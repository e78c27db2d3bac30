"""Who gets a place in a map that is filled one thing at a time: addresses, endpoints, Services.

Everything does while there is room. In a full map owners under their budget still get in, and the
latest entry of the owner furthest above its own leaves and waits. Waiting entries come in by
themselves as soon as one leaves; `changed` returns those that came in or went out meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from enforcer.policy.tables import Table
from enforcer.writes.budgets import RoomUsage, Shares
from generators.reachability.services import ServiceKey

K = TypeVar("K", bound=Hashable)


class Room(Generic[K]):
    """Places in one map, each with its owner: a tenant or none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._shares = Shares()
        self._owner: dict[K, str] = {}
        self._inside: dict[str, dict[K, None]] = {}
        self._waiting: dict[str, dict[K, None]] = {}
        self._count = 0
        self._changed: dict[K, None] = {}

    def put(self, key: K, owner: str | None) -> None:
        """Something of this owner wants a place; None: it wants none any more."""
        old = self._owner.get(key)
        if old == owner:
            return
        if old is not None:
            self._leave(key, old)
        if owner is not None:
            self._owner[key] = owner
            _enqueue(self._waiting, owner, key)
        self._settle()

    def resize(self, limit: int, shares: Shares) -> None:
        """The map, or the budgets, are others."""
        if (limit, shares) == (self.limit, self._shares):
            return
        self.limit, self._shares = limit, shares
        self._settle()

    def holds(self, key: K) -> bool:
        """Whether it has a place."""
        owner = self._owner.get(key)
        return owner is not None and key in self._inside.get(owner, ())

    def changed(self) -> Iterable[K]:
        """What came in or went out since the last time this was asked."""
        changed, self._changed = self._changed, {}
        return changed

    def used(self) -> Mapping[str, int]:
        """Places by owner."""
        return {owner: len(keys) for owner, keys in list(self._inside.items())}

    def waiting(self) -> Mapping[str, int]:
        """How many have no place, by owner."""
        return {owner: len(keys) for owner, keys in list(self._waiting.items())}

    def usage(self) -> RoomUsage:
        """Who uses what; may be asked from any thread."""
        used, waiting = self.used(), self.waiting()
        owners = dict.fromkeys((*used, *waiting))
        return RoomUsage(self.limit, used, {o: self.budget(o) for o in owners}, waiting)

    def budget(self, owner: str) -> int:
        """Places that are kept for an owner."""
        return self._shares.budget(owner, self.limit)

    def _leave(self, key: K, owner: str) -> None:
        del self._owner[key]
        if key in self._inside.get(owner, ()):
            _dequeue(self._inside, owner, key)
            self._count -= 1
            self._changed[key] = None
        else:
            _dequeue(self._waiting, owner, key)

    def _settle(self) -> None:
        while self._count > self.limit:
            self._out(max(self._inside, key=self._excess))
        while self._waiting:
            owner = min(self._waiting, key=self._excess)
            if self._count >= self.limit:
                most = max(self._inside, key=self._excess, default=owner)
                if self._excess(owner)[0] >= 0 or self._excess(most)[0] <= 0:
                    return
                self._out(most)
            key = next(iter(self._waiting[owner]))
            _dequeue(self._waiting, owner, key)
            _enqueue(self._inside, owner, key)
            self._count += 1
            self._changed[key] = None

    def _out(self, owner: str) -> None:
        key = next(reversed(self._inside[owner]))
        _dequeue(self._inside, owner, key)
        self._waiting[owner] = {key: None, **self._waiting.get(owner, {})}
        self._count -= 1
        self._changed[key] = None

    def _excess(self, owner: str) -> tuple[int, str]:
        return len(self._inside.get(owner, ())) - self.budget(owner), owner


def _enqueue(places: dict[str, dict[K, None]], owner: str, key: K) -> None:
    places.setdefault(owner, {})[key] = None


def _dequeue(places: dict[str, dict[K, None]], owner: str, key: K) -> None:
    del places[owner][key]
    if not places[owner]:
        del places[owner]


CLOSED: Mapping[Table, str] = {
    Table.ADDRESSES: "addresses of pods that are unknown senders",
    Table.ENDPOINTS: "pods that are closed",
    Table.SERVICES: "ports of Services that isolated pods cannot call",
}


class Rooms:
    """The three maps that are filled so."""

    def __init__(self, capacity: Mapping[Table, int]) -> None:
        self._capacity = capacity
        self.addresses = Room[str](capacity[Table.ADDRESSES])
        self.endpoints = Room[str](capacity[Table.ENDPOINTS])
        self.services = Room[ServiceKey](capacity[Table.SERVICES])

    def resize(self, shares: Shares, nodes: int) -> None:
        """The budgets are these; addresses of nodes always have their place."""
        self.addresses.resize(self._capacity[Table.ADDRESSES] - nodes, shares)
        self.endpoints.resize(self._capacity[Table.ENDPOINTS], shares)
        self.services.resize(self._capacity[Table.SERVICES], shares)

    def excess(self) -> Mapping[str, str]:
        """Who found no place, by map and owner."""
        found = {}
        for table, closed in CLOSED.items():
            usage = self[table].usage()
            for owner, count in usage.waiting.items():
                who = f"tenant {owner}" if owner else "no tenant"
                found[f"{table.value} {owner}"] = (
                    f"{count} {closed} ({who}) found no room in {table.value}: {who} has "
                    f"{usage.used.get(owner, 0)} entries, its budget is {usage.budget[owner]} of "
                    f"{usage.room}; remove some, raise the tenant's mapShare, or start agents "
                    f"with --map-size {table.value}=NUMBER"
                )
        return found

    def __getitem__(self, table: Table) -> Room[str] | Room[ServiceKey]:
        """The places of one of the maps."""
        if table is Table.SERVICES:
            return self.services
        return self.addresses if table is Table.ADDRESSES else self.endpoints
