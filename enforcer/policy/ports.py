"""The ports of one peer as map slots: exact ports, port prefixes of ranges, and wildcards.

compiler/compile.py calls `slots` for each peer of a policy group. Rules have ranks (their place in
policy order). A narrower slot names the first rule of *all* that match there, broader ones
included, because the kernel stops at the narrowest slot it finds and has to report the rule that
the evaluator reports.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise

from enforcer.policy.tables import PORT_ANY, PROTO_ANY
from generators.reachability.protocols import WITH_PORTS

PORTS = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Ports `first..last` of a protocol; 0..65535 also means packets that have no port."""

    protocol: int
    first: int
    last: int

    @property
    def whole(self) -> bool:
        """Every port of the protocol."""
        return (self.first, self.last) == (0, PORTS - 1)


def every_port(protocol: str) -> Span:
    """All of one protocol."""
    return Span(WITH_PORTS[protocol], 0, PORTS - 1)


EVERYTHING = Span(PROTO_ANY, 0, PORTS - 1)

Ranked = tuple[int, Span]
"""A rank and what its rule opens."""

_Piece = tuple[int, int, int]
"""First port, last port, and the rank that answers for them."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Which rank answers for (port, protocol), and for (port, prefix length, protocol)."""

    exact: Mapping[tuple[int, int], int]
    prefixes: Mapping[tuple[int, int, int], int]


def slots(allowed: Sequence[Ranked]) -> Slots:
    """The fewest slots that answer every packet with the lowest rank that opens its port."""
    exact: dict[tuple[int, int], int] = {}
    prefixes: dict[tuple[int, int, int], int] = {}
    anything = _best(rank for rank, span in allowed if span.protocol == PROTO_ANY)
    if anything is not None:
        exact[PORT_ANY, PROTO_ANY] = anything
    for protocol in sorted({s.protocol for _, s in allowed} - {PROTO_ANY}):
        own = [(rank, span) for rank, span in allowed if span.protocol == protocol]
        wild = _best(rank for rank, span in own if span.whole)
        if wild is not None and (anything is None or wild < anything):
            exact[PORT_ANY, protocol] = wild
        fallback = _best(r for r in (wild, anything) if r is not None)
        ranges = [(r, s) for r, s in own if not s.whole and s.first != s.last]
        pieces = list(_segments(ranges, fallback))
        for first, last, rank in pieces:
            for port, length in port_prefixes(first, last):
                prefixes[port, length, protocol] = rank
        for rank, span in sorted(own):
            broader = _at(span.first, pieces, fallback)
            key = (span.first, protocol)
            if span.first == span.last and key not in exact and (broader is None or rank < broader):
                exact[key] = rank
    return Slots(exact, prefixes)


def pieces(spans: Sequence[Ranked]) -> Iterable[tuple[tuple[int, ...], Span]]:
    """Spans cut where any begins or ends, each piece with all the ranks that cover it."""
    for protocol in sorted({span.protocol for _, span in spans}):
        own = [(rank, span) for rank, span in spans if span.protocol == protocol]
        cuts = sorted({s.first for _, s in own} | {s.last + 1 for _, s in own})
        for first, end in pairwise(cuts):
            ranks = {rank for rank, span in own if span.first <= first and end - 1 <= span.last}
            if ranks:
                yield tuple(sorted(ranks)), Span(protocol, first, end - 1)


def port_prefixes(first: int, last: int) -> Iterable[tuple[int, int]]:
    """The range as aligned blocks: (first port, number of leading bits that count), at most 30."""
    while first <= last:
        size = first & -first or PORTS
        while size > last - first + 1:
            size //= 2
        yield first, 16 - (size.bit_length() - 1)
        first += size


def _segments(ranges: Sequence[Ranked], fallback: int | None) -> Iterable[_Piece]:
    """Cut overlapping ranges into pieces of one answer; what `fallback` answers is left out."""
    starting = sorted((span.first, rank, span.last) for rank, span in ranges)
    cuts = sorted({s.first for _, s in ranges} | {s.last + 1 for _, s in ranges})
    begun: list[tuple[int, int]] = []
    """A heap of (rank, last port) of the ranges that began; those that ended go when they top."""
    position, open_first, open_rank = 0, 0, None
    for cut in cuts:
        while position < len(starting) and starting[position][0] == cut:
            heappush(begun, starting[position][1:])
            position += 1
        while begun and begun[0][1] < cut:
            heappop(begun)
        rank = begun[0][0] if begun else None
        if rank is not None and fallback is not None and rank >= fallback:
            rank = None
        if rank != open_rank:
            if open_rank is not None:
                yield open_first, cut - 1, open_rank
            open_first, open_rank = cut, rank


def _at(port: int, pieces: Sequence[_Piece], fallback: int | None) -> int | None:
    """What applies to a port that has no slot of its own."""
    index = bisect_right(pieces, port, key=lambda piece: piece[0]) - 1
    if index >= 0 and port <= pieces[index][1]:
        return pieces[index][2]
    return fallback


def _best(ranks: Iterable[int]) -> int | None:
    return min(ranks, default=None)
