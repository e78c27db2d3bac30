"""Who is behind every address, and what is called at the addresses of Services, in the ledger.

The compiler calls `write` after the identities have settled. What may surprise: a node's own
address is never a pod's; and what finds no room in its map is left out, for its owner alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from enforcer.budgets import NOBODY
from enforcer.calls import Calls
from enforcer.ledger import Ledger
from enforcer.placement import Known
from enforcer.population import Population, Settled
from enforcer.rooms import Rooms
from enforcer.tables import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    AddressEntry,
    AddressFlag,
)
from generators.objects import Node


class Addressing:
    """Addresses and Services of one node's tables."""

    def __init__(
        self,
        known: Known,
        population: Population,
        calls: Calls,
        rooms: Rooms,
        ledger: Ledger,
    ) -> None:
        self.nodes: dict[str, AddressEntry] = {}
        self._known = known
        self._population = population
        self._calls = calls
        self._rooms = rooms
        self._ledger = ledger
        self._touched: dict[str, None] = {}

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """All nodes, with their addresses."""
        before, self.nodes = self.nodes, _node_addresses(nodes, self._known.node)
        self._touched.update(dict.fromkeys((*before, *self.nodes)))

    def touch_all(self) -> None:
        """Tenants have other numbers."""
        self.touch(self._population.owners)

    def touch(self, addresses: Iterable[str]) -> None:
        """Something else is to be said of who is there."""
        self._touched.update(dict.fromkeys(addresses))

    def write(self, settled: Settled) -> None:
        """Bring the ledger up to date."""
        changed, self._touched = {**dict.fromkeys(settled.addresses), **self._touched}, {}
        places = self._rooms.addresses
        for address in changed:
            places.put(address, self._owner(address))
        for address in (*changed, *(a for a in places.changed() if a not in changed)):
            self._ledger.addresses.put(address, self._entry(address))
            self._calls.touch_address(address)
        self._write_services()

    def _write_services(self) -> None:
        known, places = self._ledger.addresses.now, self._rooms.services
        entries = {key: self._calls.entry(key, known) for key in self._calls.refresh()}
        for key, entry in entries.items():
            namespace = self._calls.owner(key) if entry is not None else None
            owner = self._known.record.get(namespace, NOBODY) if namespace is not None else None
            places.put(key, owner)
        for key in (*entries, *(k for k in places.changed() if k not in entries)):
            entry = entries[key] if key in entries else self._calls.entry(key, known)
            self._ledger.services.put(key, entry if places.holds(key) else None)

    def _owner(self, address: str) -> str | None:
        """The tenant whose budget a pod's address counts for; None: it is no pod's."""
        pod = self._population.owners.get(address)
        if pod is None or address in self.nodes:
            return None
        return self._known.record.get(pod.namespace, NOBODY)

    def _entry(self, address: str) -> AddressEntry | None:
        """Who an address is."""
        node = self.nodes.get(address)
        if node is not None:
            return node
        identity = self._population.identity(address)
        if identity is None or not self._rooms.addresses.holds(address):
            return None
        tenant = self._known.tenants.ids.get(identity.pods.tenant, 0)
        flags = AddressFlag.QUARANTINE if identity.pods.quarantine else AddressFlag(0)
        if self._known.homes[self._population.owners[address].namespace].audited:
            flags |= AddressFlag.AUDIT
        return _entry_of(identity.number, tenant, flags)


@lru_cache(maxsize=16_384)
def _entry_of(identity: int, tenant: int, flags: AddressFlag) -> AddressEntry:
    """One object for all addresses of an identity: there are many, and they stay."""
    return AddressEntry(identity, tenant, flags)


def _node_addresses(nodes: Iterable[Node], own: str) -> dict[str, AddressEntry]:
    """An address that two nodes claim is this node's, if it is one of them."""
    found: dict[str, AddressEntry] = {}
    for node in sorted(nodes, key=lambda n: n.name == own):
        identity = IDENTITY_HOST if node.name == own else IDENTITY_REMOTE_NODE
        found.update(dict.fromkeys(node.ips, AddressEntry(identity)))
    return found
