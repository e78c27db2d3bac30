"""Tables as rows: what the programs would make of all packets, read as bpf/lib/policy.h reads.

Unlike policy/interpret.py, which answers for one packet with the rule that speaks, and expects
tables that the compiler made, this reads whatever the maps of a node hold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    ICMP_PORT,
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNKNOWN,
    PEER_ANY,
    PEER_TENANT,
    PORT_ANY,
    PROTO_ANY,
    RULE_DENY,
    RULE_REDIRECT,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    Dir,
    EndpointEntry,
    EndpointFlag,
    Tables,
    cidr_peer,
    place_peer,
)
from generators.addresses import Family, parse_network
from generators.objects import Pod
from generators.proof.ends import Block, Ends
from generators.proof.letters import Alphabet, Cuts
from generators.proof.rows import Masks, Row, Stretch, row_of
from generators.reachability.protocols import (
    CARRIER_NUMBERS,
    ICMP_NUMBERS,
    TUNNEL_PORTS,
    WITH_PORTS,
)

NODES = (IDENTITY_HOST, IDENTITY_REMOTE_NODE)
# Plain numbers: there are millions of looks at them.
WALL = EndpointFlag.WALL.value
WALL_AUDIT = EndpointFlag.WALL_AUDIT.value
ALLOW_MASKED = EndpointFlag.ALLOW_MASKED.value
ISOLATED_INGRESS = EndpointFlag.ISOLATED_INGRESS.value
ISOLATED_EGRESS = EndpointFlag.ISOLATED_EGRESS.value
AUDIT = EndpointFlag.AUDIT.value
AUDIT_INGRESS = EndpointFlag.AUDIT_INGRESS.value
USES_CIDR = EndpointFlag.USES_CIDR.value
USES_RANGE = EndpointFlag.USES_RANGE.value
USES_PLACES = EndpointFlag.USES_PLACES.value
ENCAPSULATES = EndpointFlag.ENCAPSULATES.value
_NOBODY = AddressEntry(IDENTITY_UNKNOWN)
_NO_BLOCK = CidrEntry(0)
_SOME_POD = -1
"""The identity of a pod that nothing names."""
_NONE: frozenset[int] = frozenset()
_WHOLE = 16
"""Bits of a port."""


def cuts_of(tables: Tables) -> Cuts:
    """Where the entries of a node tell packets apart."""
    ports: set[int] = set()
    types: set[int] = set()
    protocols: set[int] = set()
    spans = [(key.protocol, key.port, key.port) for key in tables.policy]
    spans += [
        (key.protocol, key.port, key.port + (1 << _WHOLE - key.length) - 1) for key in tables.ranges
    ]
    for number, first, last in set(spans):
        protocols.add(number)
        edges = {first, last + 1}
        if number in ICMP_NUMBERS.values():
            types |= {edge - ICMP_PORT for edge in edges if edge >= ICMP_PORT}
        else:
            ports |= edges
    return Cuts(frozenset(ports), frozenset(types), frozenset(protocols - {PROTO_ANY}))


def blocks_of(tables: Tables) -> Iterator[Block]:
    """The blocks that tries of a node know."""
    for text in {key.prefix for key in tables.cidrs}:
        network = parse_network(text)
        yield network.version, network.prefixlen, int(network.network_address)


def signature(endpoint: EndpointEntry | None) -> Hashable:
    """Endpoints with the same are judged alike."""
    if endpoint is None:
        return None
    return endpoint.group, endpoint.wall, endpoint.tenant, endpoint.flags


@dataclass(frozen=True, slots=True)
class _Said:
    """What entries say: letters that they answer, those they deny, and leave to HTTP rules."""

    answered: int = 0
    denied: int = 0
    judged: int = 0


_SILENT = _Said()


class Entries:
    """The tables of one node, asked about ends of one family."""

    def __init__(self, tables: Tables, ends: Ends, alphabet: Alphabet) -> None:
        self._tables, self._ends, self._alphabet = tables, ends, alphabet
        self._tries: dict[int, _Trie] = {}
        self._rows: dict[Hashable, Row] = {}
        self._said: dict[Hashable, _Said] = {}
        self._slots = _by_peer(tables)
        self._named: dict[int, set[int]] = defaultdict(set)
        """Group -> the peers that its entries name."""
        for group, _, peer in self._slots:
            self._named[group].add(peer)
        self._known: dict[Hashable, dict[tuple[AddressEntry, bool], int]] = {}
        self._owners: dict[tuple[AddressEntry, bool], int] = defaultdict(int)
        for index, end in enumerate(ends.all):
            known = tables.addresses.get(end.party.address, _NOBODY)
            known = replace(known, interface=0) if known.interface else known
            self._owners[known, end.is_node and not end.masked] |= 1 << index

    def row(self, direction: Dir, pod: Pod, ifindex: int | None) -> Row:
        """What the programs at an interface make of everybody; None: it has no endpoint."""
        own, full = self._ends.own(pod), self._alphabet.full
        endpoint = self._tables.endpoints.get(ifindex) if ifindex is not None else None
        if endpoint is None or EndpointFlag.READY not in endpoint.flags:
            return (Stretch(self._ends.everybody, full),)
        key = direction, signature(endpoint)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._row(direction, endpoint)
        others = (Stretch(part.ends & ~own, *part.masks) for part in row)
        return (Stretch(own, 0), *(part for part in others if part.ends))

    def _row(self, direction: Dir, endpoint: EndpointEntry) -> Row:
        found: dict[Masks, int] = {}
        for known, local, block, ends in self._peers(endpoint):
            masks = self._judge(endpoint, direction, known, local, block)
            found[masks] = found.get(masks, 0) | ends
        return row_of(found)

    def owner(self, index: int) -> Hashable:
        """Ends that the map of addresses cannot tell apart have the same."""
        return self._tables.addresses.get(self._ends.all[index].party.address, _NOBODY)

    def _peers(
        self, endpoint: EndpointEntry
    ) -> Iterator[tuple[AddressEntry, bool, CidrEntry, int]]:
        """Who the ends are to an endpoint; with the block that holds them, where that counts."""
        by_block = int(endpoint.flags) & USES_CIDR
        for (known, local), ends in self._met(endpoint).items():
            if not by_block and known.identity != IDENTITY_UNKNOWN:
                yield known, local, _NO_BLOCK, ends
                continue
            for block, holding in self._trie(endpoint.tenant).items():
                if ends & holding:
                    yield known, local, block, ends & holding

    def _met(self, endpoint: EndpointEntry) -> Mapping[tuple[AddressEntry, bool], int]:
        """The owners of addresses, those as one that no entry of the endpoint's groups names."""
        key = endpoint.group, endpoint.wall
        found = self._known.get(key)
        if found is None:
            named = self._named.get(endpoint.group, _NONE) | self._named.get(endpoint.wall, _NONE)
            found = self._known[key] = defaultdict(int)
            for (known, local), ends in self._owners.items():
                seen = known
                if known.identity >= FIRST_POD_IDENTITY:
                    identity = known.identity if known.identity in named else _SOME_POD
                    tenant = known.tenant if PEER_TENANT | known.tenant in named else 0
                    seen = AddressEntry(identity, tenant, known.flags & AddressFlag.QUARANTINE)
                found[seen, local] |= ends
        return found

    def _trie(self, tenant: int) -> Mapping[CidrEntry, int]:
        """The blocks of a tenant's trie, and the ends in each that are in no longer one."""
        if tenant not in self._tries:
            self._tries[tenant] = _Trie(self._tables, tenant, self._ends)
        return self._tries[tenant].holding

    def _judge(
        self,
        endpoint: EndpointEntry,
        direction: Dir,
        known: AddressEntry,
        local: bool,
        block: CidrEntry,
    ) -> Masks:
        """Letters by what becomes of them."""
        flags, ingress, banned = int(endpoint.flags), direction is Dir.INGRESS, 0
        if ingress and known.identity == IDENTITY_HOST and local:
            return 0, 0, 0
        if not ingress and known.identity in NODES and not flags & ENCAPSULATES:
            banned = self._carriers
        if not ingress and known.identity == IDENTITY_HOST:
            return banned, 0, 0
        peer = _Peer.of(flags, known, block)
        kept = self._wall(endpoint, peer) if ingress and flags & WALL else 0
        said = _Said(self._alphabet.full)
        if flags & (ISOLATED_INGRESS if ingress else ISOLATED_EGRESS):
            said = self._rules(endpoint, direction, peer)
        closed, denied, judged = self._alphabet.full & ~said.answered, said.denied, said.judged
        if flags & AUDIT or (ingress and flags & AUDIT_INGRESS):
            judged = 0
        if flags & AUDIT:
            hard = 0
        elif ingress and flags & AUDIT_INGRESS:
            hard = denied
        else:
            hard = closed | denied
        if not flags & WALL_AUDIT:
            hard |= kept
        hard |= banned
        return hard, (closed | denied | kept) & ~hard, judged & ~hard & ~kept

    @cached_property
    def _carriers(self) -> int:
        found = 0
        for number in CARRIER_NUMBERS:
            found |= self._alphabet.protocol(number)
        for port in TUNNEL_PORTS:
            found |= self._alphabet.span(WITH_PORTS["UDP"], port, port)
        return found

    def _wall(self, endpoint: EndpointEntry, peer: _Peer) -> int:
        """Letters that the wall keeps out."""
        full = self._alphabet.full
        if peer.identity == IDENTITY_UNKNOWN:
            return full if peer.around else 0
        if peer.identity in NODES and int(endpoint.flags) & ALLOW_MASKED:
            return 0
        said = self._probe(endpoint, endpoint.wall, Dir.INGRESS, (peer.identity, peer.tenant))
        return full & ~said.answered

    def _rules(self, endpoint: EndpointEntry, direction: Dir, peer: _Peer) -> _Said:
        wanted = peer.identity, peer.tenant, peer.block, peer.place
        return self._probe(endpoint, endpoint.group, direction, wanted, anyone=True)

    def _probe(
        self,
        endpoint: EndpointEntry,
        group: int,
        direction: Dir,
        peers: Sequence[int],
        *,
        anyone: bool = False,
    ) -> _Said:
        """The first peer that has an entry speaks, for each letter."""
        answered = denied = judged = 0
        candidates = [peer for peer in peers if peer != PEER_ANY]
        ranged = bool(int(endpoint.flags) & USES_RANGE)
        for peer in (*candidates, *((PEER_ANY,) if anyone else ())):
            said = self._entries(group, direction, peer, ranged)
            denied |= said.denied & ~answered
            judged |= said.judged & ~answered
            answered |= said.answered
        return _Said(answered, denied, judged)

    def _entries(self, group: int, direction: Dir, peer: int, ranged: bool) -> _Said:
        key = group, direction, peer
        slots = self._slots.get(key)
        if slots is None:
            return _SILENT
        found = self._said.get((key, ranged))
        if found is None:
            found = self._said[key, ranged] = self._read(slots, ranged)
        return found

    def _read(self, slots: _Slots, ranged: bool) -> _Said:
        """In the order that the programs probe: the port, the longest range, then any port."""
        areas = [(self._at(proto, port, port), rule) for port, proto, rule in slots.exact]
        if ranged:
            longest = sorted(slots.ranges, key=lambda found: -found[2])
            areas += [
                (self._at(proto, max(port, 1), port + (1 << _WHOLE - length) - 1), rule)
                for proto, port, length, rule in longest
            ]
        areas += [(self._alphabet.protocol(proto), rule) for proto, rule in slots.whole]
        areas += [(self._alphabet.full, rule) for rule in slots.any]
        answered = denied = judged = 0
        for letters, rule in areas:
            fresh = letters & ~answered if rule else 0  # 0 is no rule to the programs
            answered |= fresh
            denied |= fresh if rule & RULE_DENY else 0
            judged |= fresh if rule & RULE_REDIRECT and not rule & RULE_DENY else 0
        return _Said(answered, denied, judged)

    def _at(self, number: int, first: int, last: int) -> int:
        if number == ICMP_NUMBERS[self._alphabet.family]:
            first, last = first - ICMP_PORT, last - ICMP_PORT
        elif number not in WITH_PORTS.values():
            return 0  # its packets have no port
        return self._alphabet.span(number, max(first, 0), last)


class _Peer(NamedTuple):
    """An end as the programs find it; the last four as peers of entries."""

    identity: int
    around: bool
    tenant: int
    block: int
    place: int

    @classmethod
    def of(cls, flags: int, known: AddressEntry, block: CidrEntry) -> _Peer:
        speaks = known.tenant and not int(known.flags) & AddressFlag.QUARANTINE.value
        placed = flags & USES_PLACES and known.identity < FIRST_POD_IDENTITY
        cidr = PEER_ANY
        if block.cidr and flags & USES_CIDR:
            cidr = cidr_peer(block.cidr, known.identity if placed else None)
        return cls(
            known.identity,
            bool(block.flags),
            PEER_TENANT | known.tenant if speaks else PEER_ANY,
            cidr,
            place_peer(known.identity) if placed else PEER_ANY,
        )


class _Slots:
    """The entries of one peer of a group in one direction."""

    def __init__(self) -> None:
        self.exact: list[tuple[int, int, int]] = []
        self.ranges: list[tuple[int, int, int, int]] = []
        self.whole: list[tuple[int, int]] = []
        self.any: list[int] = []


def _by_peer(tables: Tables) -> Mapping[tuple[int, Dir, int], _Slots]:
    found: dict[tuple[int, Dir, int], _Slots] = defaultdict(_Slots)
    for key, rule in tables.policy.items():
        slots = found[key.group, key.direction, key.peer]
        if key.port != PORT_ANY:
            slots.exact.append((key.port, key.protocol, rule))
        elif key.protocol != PROTO_ANY:
            slots.whole.append((key.protocol, rule))
        else:
            slots.any.append(rule)
    for each, rule in tables.ranges.items():
        slots = found[each.group, each.direction, each.peer]
        slots.ranges.append((each.protocol, each.port, each.length, rule))
    return dict(found)


class _Trie:
    """One tenant's blocks, and the ends in each of them."""

    def __init__(self, tables: Tables, tenant: int, ends: Ends) -> None:
        starts, entries = _flat(tables, tenant, ends.family)
        found: dict[CidrEntry, int] = defaultdict(int)
        for index, value in enumerate(ends.numbers):
            found[entries[bisect_right(starts, value) - 1]] |= 1 << index
        self.holding: Mapping[CidrEntry, int] = found


def _flat(tables: Tables, tenant: int, of: Family) -> tuple[list[int], list[CidrEntry]]:
    """Where the entry of the longest block changes, from the first address on, and to which."""
    version, bits = (4, 32) if of is Family.IPV4 else (6, 128)
    blocks = []
    for key, entry in tables.cidrs.items():
        if key.tenant == tenant and (":" in key.prefix) == (version == 6):
            network = parse_network(key.prefix)
            first = int(network.network_address)
            blocks.append((first, network.prefixlen, entry))
    starts, entries = [0], [_NO_BLOCK]
    around: list[tuple[int, CidrEntry]] = [(1 << bits, _NO_BLOCK)]

    def step(at: int, entry: CidrEntry) -> None:
        if starts[-1] == at:
            entries[-1] = entry
        else:
            starts.append(at)
            entries.append(entry)

    for first, length, entry in sorted(blocks, key=lambda block: block[:2]):
        while around[-1][0] <= first:
            end, _ = around.pop()
            step(end, around[-1][1])
        step(first, entry)
        around.append((first + (1 << bits - length), entry))
    while len(around) > 1:
        end, _ = around.pop()
        if end < 1 << bits:
            step(end, around[-1][1])
    return starts, entries
