"""All packets between two ends, cut where something in the cluster may tell them apart.

A letter is an interval of ports of one protocol; a set of letters is an integer with a bit for
each, so that unions and differences of whole port ranges cost one operation. Messages of ICMP have
their type in the place of a port; all protocols that nothing names are one letter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from generators.addresses import Family
from generators.cluster import Cluster
from generators.objects import PolicyPort
from generators.reachability.protocols import (
    CARRIER_NUMBERS,
    ECHO_REQUEST,
    ICMP,
    ICMP_NUMBERS,
    ICMP_PROTOCOLS,
    NO_PORT,
    PORT_PROTOCOLS,
    TUNNEL_PORTS,
    WITH_PORTS,
)

LAST_PORT = 65535
LAST_TYPE = 255
_ANYTHING_ELSE = 253
"""For experiments, says IANA: stands for all protocols that nothing names."""


@dataclass(frozen=True, slots=True, order=True)
class Letter:
    """Ports `first` to `last` of a protocol by its IANA number; of ICMP types."""

    number: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where something begins or ends: of ports, of ICMP's types; and the protocols with a name."""

    ports: frozenset[int] = frozenset()
    types: frozenset[int] = frozenset()
    protocols: frozenset[int] = frozenset()

    def __or__(self, other: Cuts) -> Cuts:
        return Cuts(
            self.ports | other.ports, self.types | other.types, self.protocols | other.protocols
        )


def cuts_of(cluster: Cluster, bounds: Iterable[int]) -> Cuts:
    """What the objects cut; `bounds` are those of the ports that rules and the tenant file name."""
    types = set(ECHO_REQUEST.values())
    for policy in cluster.policies:
        for rule in (*policy.ingress, *policy.egress):
            types.update(
                port.port
                for port in rule.ports
                if port.protocol in ICMP_PROTOCOLS.values() and isinstance(port.port, int)
            )
    tunnels = {edge for port in TUNNEL_PORTS for edge in (port, port + 1)}
    edges = frozenset({edge for value in types for edge in (value, value + 1)})
    return Cuts(frozenset(bounds) | tunnels, edges, frozenset(CARRIER_NUMBERS))


def file_cuts(cluster: Cluster) -> Cuts:
    """What the tenant file alone cuts."""
    config = cluster.config
    if config is None:
        return Cuts()
    tenants = config.tenants.values()
    lists = [part.ports for part in config.shared]
    lists += [grant.ports for each in tenants for grant in (*each.allow_from, *each.allow_to)]
    spans = (port.span for ports in lists for port in ports)
    return Cuts(frozenset(edge for first, last in spans for edge in (first, last + 1)))


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The letters of one address family."""

    family: Family
    letters: tuple[Letter, ...]
    _places: dict[int, tuple[int, tuple[int, ...]]] = field(repr=False, compare=False)
    """Protocol -> index of its first letter, and where its letters begin."""

    @classmethod
    def of(cls, family: Family, cuts: Cuts) -> Alphabet:
        """Of all packets of the family."""
        icmp = ICMP_NUMBERS[family]
        letters: list[Letter] = []
        for number in WITH_PORTS.values():
            letters += _intervals(number, {0, 1, *cuts.ports}, LAST_PORT)
        letters += _intervals(icmp, {0, *cuts.types}, LAST_TYPE)
        others = cuts.protocols | {_ANYTHING_ELSE}
        portless = sorted(others - {icmp, *WITH_PORTS.values()})
        letters += [Letter(number, NO_PORT, NO_PORT) for number in portless]
        places: dict[int, tuple[int, tuple[int, ...]]] = {}
        for index, letter in enumerate(letters):
            start, begins = places.get(letter.number, (index, ()))
            places[letter.number] = start, (*begins, letter.first)
        return cls(family, tuple(letters), places)

    @property
    def full(self) -> int:
        """Every packet."""
        return (1 << len(self.letters)) - 1

    def protocol(self, number: int) -> int:
        """All packets of a protocol."""
        start, begins = self._places.get(number, (0, ()))
        return _bits(start, start + len(begins))

    def span(self, number: int, first: int, last: int) -> int:
        """Its packets to these ports, which begin and end where letters do."""
        start, begins = self._places.get(number, (0, ()))
        return _bits(start + bisect_left(begins, first), start + bisect_right(begins, last))

    def refined(self, coarse: Alphabet, letters: int) -> int:
        """The letters of an alphabet with fewer cuts, by these."""
        found, named = 0, 0
        for index, letter in enumerate(coarse.letters):
            if letter.number == _ANYTHING_ELSE:
                continue
            area = self.span(letter.number, letter.first, letter.last)
            named |= area
            found |= area if letters >> index & 1 else 0
        rest = coarse.span(_ANYTHING_ELSE, NO_PORT, NO_PORT)
        return found | (self.full & ~named if letters & rest else 0)

    def of_rule(self, wanted: PolicyPort, named: int | None, *, one: bool = False) -> int:
        """What an item of `ports` means; `named`: the number behind its name, `one`: that alone."""
        if wanted.protocol in ICMP_PROTOCOLS.values():
            if wanted.protocol != ICMP_PROTOCOLS[self.family] or not isinstance(wanted.port, int):
                return 0
            return self.span(ICMP_NUMBERS[self.family], wanted.port, wanted.port)
        number = WITH_PORTS[wanted.protocol]
        if wanted.port is None:
            return self.protocol(number)
        first = wanted.port if isinstance(wanted.port, int) else named
        if first is None:
            return 0
        last = first if one and isinstance(wanted.port, str) else wanted.end_port or first
        return self.span(number, first, max(first, last))

    def spelled(self, letters: int) -> Iterator[tuple[str, int, Letter]]:
        """Protocol and first port of each letter of a set, as questions name them, TCP first."""
        while letters:
            lowest = letters & -letters
            letters ^= lowest
            letter = self.letters[lowest.bit_length() - 1]
            yield self.protocol_name(letter.number), letter.first, letter

    def protocol_name(self, number: int) -> str:
        """`TCP`, `ICMP` or `IP/47`."""
        if number == ICMP_NUMBERS[self.family]:
            return ICMP
        return PORT_PROTOCOLS.get(number, f"IP/{number}")


def _intervals(number: int, begins: Iterable[int], last: int) -> Iterator[Letter]:
    starts = sorted(begin for begin in begins if begin <= last)
    for first, after in zip(starts, (*starts[1:], last + 1), strict=True):
        yield Letter(number, first, after - 1)


def _bits(first: int, after: int) -> int:
    return (1 << after) - (1 << first) if after > first else 0
