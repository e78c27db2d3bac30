"""Everybody who may send a packet to an endpoint, or be sent one, as bits: of one address family.

Every pod and every address of a node is an end; of addresses outside there is one for each part of
the address space that some block or pod range sets apart. An address of a node is there twice: as
the node itself, proven by a local socket, and as whoever is masked behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from generators.addresses import Family, family, parse_address, parse_network
from generators.cluster import in_pod_range
from generators.objects import Pod
from generators.reachability.classes import Classes
from generators.reachability.packets import EXTERNAL_PREFIX, Party
from generators.reachability.reference import Evaluator

_VERSIONS = {4: Family.IPV4, 6: Family.IPV6}
Block = tuple[int, int, int]
"""IP version, length and first address."""


@dataclass(frozen=True, slots=True)
class PeerEnd:
    """One of them. `masked`: not the node whose address it is, but who hides behind it."""

    party: Party
    masked: bool = False

    @property
    def is_node(self) -> bool:
        """Whether it has an address of some node."""
        return self.party.pod is None and bool(self.party.node or self.party.interface_of)


class Ends:
    """All ends of one family; `beside`: further addresses, `blocks`: what else cuts the outside."""

    def __init__(
        self,
        evaluator: Evaluator,
        classes: Classes,
        of: Family,
        beside: Iterable[str] = (),
        blocks: Iterable[Block] = (),
    ) -> None:
        self.family = of
        self._evaluator, self._classes = evaluator, classes
        known: dict[str, None] = dict.fromkeys(evaluator.owners)
        known.update(dict.fromkeys(evaluator.node_addresses))
        known.update(dict.fromkeys(evaluator.interface_addresses))
        known.update(dict.fromkeys(beside))
        ranges = [block_of(cidr) for cidr in evaluator.cluster.pod_cidrs]
        cutting = {*classes.blocks(), *blocks, *ranges}
        known.update(dict.fromkeys(_atoms(of, cutting, known)))
        self.all: tuple[PeerEnd, ...] = tuple(
            end
            for address in known
            if family(address) is of
            for end in _ends(evaluator.at_address(self._name(address), address))
        )
        self.everybody = (1 << len(self.all)) - 1

    def _name(self, address: str) -> str:
        pod = self._evaluator.owners.get(address)
        return pod.key if pod is not None else f"{EXTERNAL_PREFIX}{address}"

    @cached_property
    def classes(self) -> tuple[tuple[int, PeerEnd], ...]:
        """Ends that no policy can tell apart, with the first of them; nodes each by itself."""
        found: dict[Hashable, int] = {}
        first: dict[Hashable, PeerEnd] = {}
        for index, end in enumerate(self.all):
            key = self._class(end)
            found[key] = found.get(key, 0) | 1 << index
            first.setdefault(key, end)
        return tuple((bits, first[key]) for key, bits in found.items())

    def _class(self, end: PeerEnd) -> Hashable:
        party = end.party
        if party.pod is not None:
            return self._classes.of(party.pod.key, self.family).alike
        blocks = self._classes.blocks_of(party.address)
        inside = in_pod_range(self._evaluator.cluster, party.address)
        return party.node, party.interface_of, end.masked, blocks, inside

    @cached_property
    def by_namespace(self) -> Mapping[str, int]:
        """Pods by namespace."""
        found: dict[str, int] = defaultdict(int)
        for index, end in enumerate(self.all):
            if end.party.pod is not None:
                found[end.party.pod.namespace] |= 1 << index
        return found

    @cached_property
    def nodes(self) -> int:
        """Addresses of nodes, masked or not; of those that only interfaces have, none."""
        return self._where(lambda end: end.party.pod is None and end.party.node is not None)

    @cached_property
    def masked(self) -> int:
        """Those behind which somebody hides."""
        return self._where(lambda end: end.masked)

    @cached_property
    def outside(self) -> int:
        """Whoever is no pod and no node, and in no pod range."""
        cluster = self._evaluator.cluster
        return self._where(
            lambda end: (
                end.party.pod is None
                and end.party.node is None
                and not in_pod_range(cluster, end.party.address)
            )
        )

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The address of each end, as a number."""
        return tuple(int(parse_address(end.party.address)) for end in self.all)

    def own(self, pod: Pod) -> int:
        """The pod itself."""
        return sum(self._by_address.get(ip, 0) for ip in pod.ips)

    def host(self, node: str) -> int:
        """A node's own addresses, those of its interfaces too; masked or not."""
        return self._hosts.get(node, 0) if node else 0

    @cached_property
    def _by_address(self) -> Mapping[str, int]:
        found: dict[str, int] = defaultdict(int)
        for index, end in enumerate(self.all):
            found[end.party.address] |= 1 << index
        return found

    @cached_property
    def _hosts(self) -> Mapping[str, int]:
        found: dict[str, int] = defaultdict(int)
        for index, end in enumerate(self.all):
            if end.party.pod is None:
                for node in {end.party.node or "", *end.party.interface_of}:
                    found[node] |= 1 << index
        return found

    def _where(self, holds: Callable[[PeerEnd], bool]) -> int:
        bits = 0
        for index, end in enumerate(self.all):
            if holds(end):
                bits |= 1 << index
        return bits


def _ends(party: Party) -> tuple[PeerEnd, ...]:
    end = PeerEnd(party)
    return (end, PeerEnd(party, masked=True)) if end.is_node else (end,)


def block_of(cidr: str) -> Block:
    """A block of addresses as values to compare."""
    network = parse_network(cidr)
    return network.version, network.prefixlen, int(network.network_address)


def _atoms(of: Family, blocks: Iterable[Block], taken: Mapping[str, None]) -> Iterable[str]:
    """An address that nobody has for each part of the address space that blocks set apart."""
    version = 4 if of is Family.IPV4 else 6
    bits = 32 if version == 4 else 128
    edges = {0}
    for found, length, first in blocks:
        if found == version:
            edges |= {first, first + (1 << (bits - length))}
    used = {int(parse_address(ip)) for ip in taken if family(ip) is of}
    starts = sorted(edge for edge in edges if edge < 1 << bits)
    for first, after in zip(starts, (*starts[1:], 1 << bits), strict=True):
        free = max(first, 1)
        while free in used and free < after:
            free += 1
        if free < after:
            yield str(IPv4Address(free) if version == 4 else IPv6Address(free))
