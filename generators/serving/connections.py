"""Open connections, their phases, and which to close: pure, the clock is an argument.

A connection that has not brought a whole request is worth less than one that has, and the less of
it has come, the less. When there are too many, the source that has the most incomplete ones loses
one: of those that are least far the oldest. Without any, the one that has idled longest goes; what
is being answered stays. Not safe for threads: the server locks.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Phase(StrEnum):
    """How far a connection is."""

    NEW = "new"
    """No whole ClientHello has come; on a plain port nothing."""
    HANDSHAKE = "handshake"
    HEAD = "head"
    BODY = "body"
    QUEUED = "queued"
    BUSY = "busy"
    ANSWER = "answer"
    IDLE = "idle"
    LINGER = "linger"
    """Answered and closed on our side; the rest of what the client sends is thrown away."""


INCOMPLETE = (Phase.NEW, Phase.HANDSHAKE, Phase.HEAD, Phase.BODY)
"""In the order of what they are worth."""
HELD = frozenset({Phase.BUSY})
"""A thread of the pool has it: nothing else may close it."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one server."""

    threads: int = 2
    connections: int = 64
    handshake_seconds: float = 2.0
    head_seconds: float = 2.0
    """From the first byte, on a new connection from its start, to the end of the head."""
    request_seconds: float = 5.0
    """From the first byte to the last, and to the thread that answers."""
    answer_seconds: float = 5.0
    idle_seconds: float = 75.0
    body: int = 0
    """Most bytes of a body."""
    small: int = 32 * 1024
    large_bytes: int = 0
    """Bytes of all bodies above `small` together, until they are answered."""

    def seconds(self, phase: Phase) -> float:
        """How long a phase may take; a thread's own time is not bounded here."""
        match phase:
            case Phase.NEW | Phase.HANDSHAKE:
                return self.handshake_seconds
            case Phase.HEAD | Phase.LINGER:
                return self.head_seconds
            case Phase.ANSWER:
                return self.answer_seconds
            case Phase.IDLE:
                return self.idle_seconds
        return self.request_seconds


@dataclass(slots=True, eq=False)
class ServerConnection:
    """One connection; the server keeps socket and parser in a subclass."""

    source: str
    phase: Phase = Phase.NEW
    deadline: float = 0.0
    large: int = field(default=0)
    """Bytes of its body that count as large."""


class Connections:
    """All connections of one server."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.timed_out: Counter[Phase] = Counter()
        self.refused: Counter[str] = Counter()
        """Connections that were not let in or had to go: `source`, `connections`, `large`."""
        self.large = 0
        self._all: dict[ServerConnection, None] = {}
        self._idle: dict[ServerConnection, None] = {}
        self._incomplete: dict[str, dict[Phase, dict[ServerConnection, None]]] = {}
        self._counts: Counter[str] = Counter()
        """Incomplete ones by source."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(list(self._all))

    def phases(self) -> Counter[Phase]:
        """How many are in each phase."""
        return Counter(each.phase for each in list(self._all))

    @property
    def full(self) -> bool:
        """Whether no other may be let in."""
        return len(self._all) >= self.limits.connections

    def worst(self) -> ServerConnection | None:
        """The one that is worth least."""
        if self._counts:
            greediest = max(self._counts, key=self._counts.__getitem__)
            phases = self._incomplete[greediest]
            return next(each for phase in INCOMPLETE for each in phases.get(phase, ()))
        return next(iter(self._idle), None)

    def add(self, connection: ServerConnection, phase: Phase, now: float) -> None:
        """A connection was accepted."""
        self._all[connection] = None
        connection.phase, connection.deadline = phase, now + self.limits.seconds(phase)
        self._list(connection)

    def move(self, connection: ServerConnection, phase: Phase, now: float) -> None:
        """It got further; the time of one request runs from its first byte to the thread."""
        self._unlist(connection)
        before, connection.phase = connection.phase, phase
        if (before, phase) not in _SAME_CLOCK:
            connection.deadline = now + self.limits.seconds(phase)
        if before is Phase.HEAD and phase in (Phase.BODY, Phase.QUEUED):
            rest = self.limits.request_seconds - self.limits.head_seconds
            connection.deadline += max(rest, 0.0)
        self._list(connection)

    def weigh(self, connection: ServerConnection, body: int) -> Sequence[ServerConnection]:
        """Its body has that many bytes now; who has to go for it, itself at worst."""
        large = body if body > self.limits.small else 0
        self.large += large - connection.large
        connection.large = large
        over, going = self.large - self.limits.large_bytes, []
        if over <= 0 or not large:
            return ()
        receiving = (
            each
            for phases in self._incomplete.values()
            for each in phases.get(Phase.BODY, ())
            if each.large
        )
        for each in sorted(receiving, key=lambda each: each.deadline):
            if over <= 0:
                break
            if each is not connection:
                going.append(each)
                over -= each.large
        return going if over <= 0 else [connection]

    def remove(self, connection: ServerConnection) -> None:
        """It is closed."""
        self._unlist(connection)
        self.large -= connection.large
        connection.large = 0
        self._all.pop(connection, None)

    def expired(self, now: float) -> list[ServerConnection]:
        """Whose time is over; they are counted."""
        late = [each for each in self._all if each.deadline < now and each.phase not in HELD]
        self.timed_out.update(each.phase for each in late)
        return late

    def _list(self, connection: ServerConnection) -> None:
        phase = connection.phase
        if phase in INCOMPLETE:
            phases = self._incomplete.setdefault(connection.source, {})
            phases.setdefault(phase, {})[connection] = None
            self._counts[connection.source] += 1
        elif phase is Phase.IDLE:
            self._idle[connection] = None

    def _unlist(self, connection: ServerConnection) -> None:
        self._idle.pop(connection, None)
        source = connection.source
        mates = self._incomplete.get(source, {}).get(connection.phase, {})
        if connection not in mates:
            return
        del mates[connection]
        self._counts[source] -= 1
        if not self._counts[source]:
            del self._counts[source], self._incomplete[source]


_SAME_CLOCK = frozenset(
    {
        (Phase.NEW, Phase.HANDSHAKE),
        (Phase.HEAD, Phase.BODY),
        (Phase.HEAD, Phase.QUEUED),
        (Phase.BODY, Phase.QUEUED),
        (Phase.QUEUED, Phase.BUSY),
    }
)


def source_of(host: str) -> str:
    """Who counts as one: an IPv4 address, or the 64 bits of an IPv6 network."""
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def admitted(host: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; without any, everybody is."""
    wanted = tuple(networks)
    address = _address(host)
    return not wanted or any(address.version == each.version and address in each for each in wanted)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """As the network has it: an IPv4 client of a dual-stack socket is an IPv4 client."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
