"""The owner of every address, and the backends at addresses of Services, in the ledger.

The compiler calls `write` after the identities have settled. A node's own address is never a pod's;
and what finds no room in its map is left out, for its owner alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from enforcer.compiler.placement import Known
from enforcer.policy.blocks import Net
from enforcer.policy.groups import ASKS_NOBODY, Asks
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

NARROW, WIDER = {4: 24, 6: 64}, 8
"""Bits of a block around addresses without a place, by IP version, and by how many it grows."""
MOST_BLOCKS = 128
"""Of an IP version: every tenant here has them in its map of prefixes."""

NO_FLAGS = AddressFlag(0)


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
        self._asks = ASKS_NOBODY
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
        if any(g.definition.asks is not ASKS_NOBODY for g in (*turnover.added, *turnover.removed)):
            groups = self._groups.by_number.values()
            self._ask(Asks.of(group.definition.asks for group in groups))
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

    def crowded(self, pod_cidrs: tuple[str, ...]) -> tuple[str, ...]:
        """Blocks around pods' addresses that have no place and lie in no pod range."""
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
        flags = AddressFlag.QUARANTINE if identity.pods.quarantine else NO_FLAGS
        owner = self._population.owners[address]
        home = self._known.homes[owner.namespace]
        if home.audited or home.tried:
            flags |= AddressFlag.AUDIT
        place = self._placed.get(owner.key, 0) if self._known.shortcut else 0
        return _entry_of(identity.number, tenant, flags, place)


class Strangers:
    """Addresses of pods that the map has no place for, and the blocks around them.

    Within the pod ranges who is not known is kept out. Where a CNI gives pods other addresses, they
    would pass for the outside of the cluster, which is not the wall's business: so whoever sends
    from these blocks is kept out as well. A few addresses are blocks of their own, which concern
    nobody else; more of them become wider blocks, rather too wide than too narrow.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Net] = {}
        self._blocks: Counter[Net] = Counter()
        """With NARROW bits: looked at where there are many addresses."""
        self._answer: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        """Pod ranges, and what was found for them since the last change."""

    def put(self, address: str, *, waits: bool) -> None:
        """It has no place, or needs none any more."""
        if waits is (address in self._waiting):
            return
        self._answer = None
        net = self._waiting[address] if not waits else Net.of(address)
        block = net.shortened(NARROW[net.version])
        if waits:
            self._waiting[address] = net
            self._blocks[block] += 1
            return
        del self._waiting[address]
        self._blocks[block] -= 1
        if not self._blocks[block]:
            del self._blocks[block]

    def around(self, pod_cidrs: tuple[str, ...]) -> tuple[str, ...]:
        """The blocks outside of the pod ranges, sorted; MOST_BLOCKS of an IP version at most."""
        if not self._waiting:
            return ()
        if self._answer is None or self._answer[0] != pod_cidrs:
            self._answer = pod_cidrs, self._found(frozenset(map(Net.of, pod_cidrs)))
        return self._answer[1]

    def _found(self, ranges: frozenset[Net]) -> tuple[str, ...]:
        lengths = {(net.version, net.length) for net in ranges}

        def is_beyond(net: Net) -> bool:
            return not any(
                net.shortened(length) in ranges
                for version, length in lengths
                if version == net.version and length <= net.length
            )

        few = len(self._waiting) <= MOST_BLOCKS
        beyond = set(filter(is_beyond, self._waiting.values() if few else self._blocks))
        found: list[str] = []
        for version, narrow in NARROW.items():
            length, blocks = narrow, {net for net in beyond if net.version == version}
            while len(blocks) > MOST_BLOCKS:
                length -= WIDER
                blocks = {net.shortened(length) for net in blocks}
            found += (net.text for net in blocks)
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
