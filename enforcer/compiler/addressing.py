"""The owner of every address, and the backends at addresses of Services, in the ledger.

The compiler calls `write` after the identities have settled. A node's own address is never a pod's;
and what finds no room in its map is left out, for its owner alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache, reduce
from operator import or_

from enforcer.compiler.placement import Known
from enforcer.policy.blocks import Net
from enforcer.policy.groups import Asks
from enforcer.policy.identity import PeerTerm
from enforcer.policy.peers import Population, Settled
from enforcer.policy.rulebook import Groups, Turnover
from enforcer.policy.services import Calls
from enforcer.policy.tables import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNKNOWN,
    AddressEntry,
    AddressFlag,
)
from enforcer.writes.budgets import NOBODY
from enforcer.writes.pending import PendingTables
from enforcer.writes.rooms import Rooms
from generators.objects import BlockList, Node
from generators.reachability.protocols import WITH_PORTS
from generators.reachability.services import Backend, ServiceKey

FIRST_BLOCKS = {4: 24, 6: 64}
"""Length of the blocks around addresses without a place, by IP version."""
WIDER = 8
MOST_BLOCKS = 4
"""Of a version: with more of them they become wider, as the map of prefixes may be full as well."""


class Addressing:
    """Addresses and Services of one node's tables."""

    def __init__(
        self,
        known: Known,
        population: Population,
        groups: Groups,
        calls: Calls,
        rooms: Rooms,
        ledger: PendingTables,
        placed: Mapping[str, int],
    ) -> None:
        self.nodes: dict[str, AddressEntry] = {}
        self._known = known
        self._population = population
        self._groups = groups
        self._calls = calls
        self._rooms = rooms
        self._ledger = ledger
        self._placed = placed
        self._shown: dict[str, None] = {}
        """Addresses whose interfaces are known."""
        self._touched: dict[str, None] = {}
        self._asks = Asks()
        self._strangers = Strangers()
        self._waiting: dict[str, dict[ServiceKey, None]] = {}
        """Address of a Service -> its ports that are asked for and found no place."""

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """All nodes, with their addresses."""
        before, self.nodes = self.nodes, _node_addresses(nodes, self._known.node)
        self._touched.update(dict.fromkeys((*before, *self.nodes)))

    def touch_all(self) -> None:
        """Tenants have other numbers."""
        self.touch(self._population.owners)

    def touch(self, addresses: Iterable[str]) -> None:
        """The owner at an address has changed."""
        self._touched.update(dict.fromkeys(addresses))

    def touch_places(self, pods: Iterable[str]) -> None:
        """These local pods may be behind other interfaces now, which addresses say or not."""
        if not self._known.shortcut:
            self.touch(self._shown)
            self._shown = {}
            return
        for key in pods:
            pod = self._known.pods.get(key)
            if pod is not None:
                self._shown.update(dict.fromkeys(pod.ips))
                self.touch(pod.ips)

    def write(self, settled: Settled, turnover: Turnover) -> None:
        """Bring the ledger up to date."""
        if turnover.added or turnover.removed:
            groups = self._groups.by_number.values()
            self._ask(reduce(or_, (group.definition.asks for group in groups), Asks()))
        changed, self._touched = {**dict.fromkeys(settled.addresses), **self._touched}, {}
        for address in self._put(changed):
            self._calls.touch_address(address)
        self._write_services()

    def _put(self, addresses: Iterable[str]) -> Iterable[str]:
        """Bring these up to date, and who steps in or out because of them; all of those."""
        places, changed = self._rooms.addresses, dict.fromkeys(addresses)
        for address in changed:
            places.put(address, self._owner(address))
        changed.update(dict.fromkeys(places.changed()))
        for address in changed:
            self._ledger.addresses.put(address, self._entry(address))
            waits = address in self._population.owners and address not in self.nodes
            self._strangers.put(address, waits=waits and not places.holds(address))
        return changed

    def strangers(self, pod_cidrs: Iterable[str]) -> tuple[str, ...]:
        """Blocks around the pods' addresses that have no place and lie in no pod range."""
        return self._strangers.around(pod_cidrs)

    def _ask(self, asks: Asks) -> None:
        """Isolated pods here may call these: look again at the Services that this concerns."""
        before, self._asks = self._asks, asks
        fresh = asks.words - before.words
        fewer = before.words - asks.words
        others = (asks.anyone, asks.nodes) != (before.anyone, before.nodes)
        if fewer or others or any(isinstance(w, BlockList) for w in fresh):
            self._calls.touch_all()
        for identity in self._population.meant_by(fresh):
            for address in identity.addresses:
                self._calls.touch_address(address)

    def _called(self, key: ServiceKey) -> tuple[Backend, ...] | None:
        """What stands behind a Service, as far as policies may let an isolated pod here call it."""
        if not self._is_asked_for(key):
            return None
        return self._calls.entry(key, self._ledger.addresses.now)

    def _is_asked_for(self, key: ServiceKey) -> bool:
        """Whether an answer depends on it: else its address and its backends are all refused."""
        protocol, backends = WITH_PORTS[key.protocol], self._calls.backends(key)
        return (
            any(self._asks.at(protocol, port) for port in {key.port, *(b.port for b in backends)})
            or self._is_named(key.address)
            or any(self._is_named(backend.address) for backend in backends)
        )

    def _is_named(self, address: str) -> bool:
        """Whether an egress rule means who is at an address, or it is this node, which is open."""
        node = self.nodes.get(address)
        if node is not None and (node.identity == IDENTITY_HOST or self._asks.nodes):
            return True
        identity = self._population.identity(address)
        words: Iterable[PeerTerm] = (
            identity.pods.words if identity else self._population.holding(Net.of(address))
        )
        return any(word in self._asks.words for word in words)

    def _write_services(self) -> None:
        places = self._rooms.services
        entries = {key: self._called(key) for key in self._calls.refresh()}
        for key, entry in entries.items():
            namespace = self._calls.owner(key) if entry is not None else None
            owner = self._known.record.get(namespace, NOBODY) if namespace is not None else None
            places.put(key, owner)
        crowded: dict[str, None] = {}
        for key in (*entries, *(k for k in places.changed() if k not in entries)):
            entry = entries[key] if key in entries else self._called(key)
            self._ledger.services.put(key, entry if places.holds(key) else None)
            if self._is_crowded(key, entry is not None and not places.holds(key)):
                crowded[key.address] = None
        for address in self._put(crowded):
            if address not in crowded:
                self._calls.touch_address(address)

    def _is_crowded(self, key: ServiceKey, waits: bool) -> bool:
        """Note whether a port waits for a place; whether its address is another one for that."""
        waiting = self._waiting.setdefault(key.address, {})
        before = bool(waiting)
        waiting.pop(key, None)
        if waits:
            waiting[key] = None
        if not waiting:
            del self._waiting[key.address]
        return bool(waiting) != before

    def _owner(self, address: str) -> str | None:
        """The tenant whose budget an address counts for; None: it is no pod's, and no Service's
        that has to be closed.
        """
        pod = self._population.owners.get(address)
        if address in self.nodes:
            return None
        namespace = pod.namespace if pod is not None else None
        for key in self._waiting.get(address, ()) if pod is None else ():
            namespace = self._calls.owner(key)
        return self._known.record.get(namespace, NOBODY) if namespace is not None else None

    def _entry(self, address: str) -> AddressEntry | None:
        """Who an address is."""
        node = self.nodes.get(address)
        if node is not None:
            return node
        identity = self._population.identity(address)
        if not self._rooms.addresses.holds(address):
            return None
        if identity is None:
            return AddressEntry(IDENTITY_UNKNOWN, 0, AddressFlag.SERVICE)
        tenant = self._known.tenants.ids.get(identity.pods.tenant, 0)
        flags = AddressFlag.QUARANTINE if identity.pods.quarantine else AddressFlag(0)
        owner = self._population.owners[address]
        home = self._known.homes[owner.namespace]
        if home.audited or home.tried:
            flags |= AddressFlag.AUDIT
        place = self._placed.get(owner.key, 0) if self._known.shortcut else 0
        return _entry_of(identity.number, tenant, flags, place)


class Strangers:
    """Addresses of pods that the map has no place for.

    Within the pod ranges who is not known is kept out. Where a CNI gives pods other addresses, they
    would pass for the outside of the cluster, which is not the wall's business: so the blocks
    around them are pod ranges, too, few of them and rather too wide than too narrow.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Net] = {}
        self._blocks: Counter[Net] = Counter()

    def put(self, address: str, *, waits: bool) -> None:
        """It has no place, or needs none any more."""
        before = self._waiting.pop(address, None)
        if before is not None:
            self._blocks[before] -= 1
            if not self._blocks[before]:
                del self._blocks[before]
        if waits:
            net = Net.of(address)
            self._waiting[address] = block = net.shortened(FIRST_BLOCKS[net.version])
            self._blocks[block] += 1

    def around(self, pod_cidrs: Iterable[str]) -> tuple[str, ...]:
        """The blocks outside of these ranges, sorted, four of a family at most."""
        if not self._blocks:
            return ()
        ranges = tuple(map(Net.of, pod_cidrs))
        beyond = {b for b in self._blocks if not any(b.inside(r) for r in ranges)}
        found: list[str] = []
        for version, first in FIRST_BLOCKS.items():
            length, blocks = first, {block for block in beyond if block.version == version}
            while len(blocks) > MOST_BLOCKS:
                length -= WIDER
                blocks = {block.shortened(length) for block in blocks}
            found += (block.text for block in blocks)
        return tuple(sorted(found))


@lru_cache(maxsize=16_384)
def _entry_of(identity: int, tenant: int, flags: AddressFlag, interface: int) -> AddressEntry:
    """One object for all addresses of an identity: there are many, and they stay."""
    return AddressEntry(identity, tenant, flags, interface)


def _node_addresses(nodes: Iterable[Node], own: str) -> dict[str, AddressEntry]:
    """An address that two nodes claim is this node's, if it is one of them.

    What the interfaces of others have is theirs alone, and may well be that of a bridge here.
    """
    found: dict[str, AddressEntry] = {}
    for node in sorted(nodes, key=lambda n: n.name == own):
        if node.name == own:
            ips, identity = (*node.ips, *node.interface_ips), IDENTITY_HOST
        else:
            ips, identity = node.ips, IDENTITY_REMOTE_NODE
        found.update(dict.fromkeys(ips, AddressEntry(identity)))
    return found
