"""Who is connected, how far each is, and who has to go: pure, the clock is an argument.

A connection that has not brought a whole request is worth less than one that has. When there are
too many, the oldest incomplete one of the source that has the most of them goes first, then the
one that has idled longest; what is being answered stays. Not safe for threads: the server locks.
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

    HANDSHAKE = "handshake"
    HEAD = "head"
    BODY = "body"
    QUEUED = "queued"
    BUSY = "busy"
    ANSWER = "answer"
    IDLE = "idle"
    LINGER = "linger"
    """Answered and closed on our side; the rest of what the client sends is thrown away."""


INCOMPLETE = frozenset({Phase.HANDSHAKE, Phase.HEAD, Phase.BODY})
HELD = frozenset({Phase.BUSY})
"""A thread of the pool has it: nobody else may close it."""


@dataclass(frozen=True, slots=True)
class Limits:
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
            case Phase.HANDSHAKE:
                return self.handshake_seconds
            case Phase.HEAD | Phase.LINGER:
                return self.head_seconds
            case Phase.ANSWER:
                return self.answer_seconds
            case Phase.IDLE:
                return self.idle_seconds
        return self.request_seconds


@dataclass(slots=True, eq=False)
class Connection:
    """One connection; the server keeps socket and parser in a subclass."""

    source: str
    phase: Phase = Phase.HANDSHAKE
    deadline: float = 0.0
    large: int = field(default=0)
    """Bytes of its body that count as large."""


class Connections:
    """All connections of one server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.timed_out: Counter[Phase] = Counter()
        self.refused: Counter[str] = Counter()
        """Connections that were not let in or had to go: `source`, `connections`, `large`."""
        self.large = 0
        self._all: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._incomplete: dict[str, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def phases(self) -> Counter[Phase]:
        """How many are in each phase."""
        return Counter(each.phase for each in list(self._all))

    def room(self) -> Connection | None:
        """Who has to go before another is let in: None when nobody has to, or nobody can."""
        return self.worst() if len(self._all) >= self.limits.connections else None

    @property
    def full(self) -> bool:
        """Whether no other may be let in."""
        return len(self._all) >= self.limits.connections

    def worst(self) -> Connection | None:
        """The one that is worth least."""
        if self._incomplete:
            greediest = max(self._incomplete.values(), key=len)
            return next(iter(greediest))
        return next(iter(self._idle), None)

    def add(self, connection: Connection, phase: Phase, now: float) -> None:
        """A connection was accepted."""
        self._all[connection] = None
        self.move(connection, phase, now)

    def move(self, connection: Connection, phase: Phase, now: float) -> None:
        """It got further; the time of one request runs from its first byte to the thread."""
        self._unlist(connection)
        before, connection.phase = connection.phase, phase
        if (before, phase) not in _SAME_CLOCK:
            connection.deadline = now + self.limits.seconds(phase)
        if before is Phase.HEAD and phase in (Phase.BODY, Phase.QUEUED):
            rest = self.limits.request_seconds - self.limits.head_seconds
            connection.deadline += max(rest, 0.0)
        if phase in INCOMPLETE:
            self._incomplete.setdefault(connection.source, {})[connection] = None
        elif phase is Phase.IDLE:
            self._idle[connection] = None

    def weigh(self, connection: Connection, body: int) -> Sequence[Connection]:
        """Its body has that many bytes now; who has to go for it, itself at worst."""
        large = body if body > self.limits.small else 0
        self.large += large - connection.large
        connection.large = large
        over, going = self.large - self.limits.large_bytes, []
        if over <= 0 or not large:
            return ()
        receiving = (each for held in self._incomplete.values() for each in held if each.large)
        for each in sorted(receiving, key=lambda each: each.deadline):
            if over <= 0:
                break
            if each is not connection:
                going.append(each)
                over -= each.large
        return going if over <= 0 else [connection]

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self._unlist(connection)
        self.large -= connection.large
        connection.large = 0
        self._all.pop(connection, None)

    def expired(self, now: float) -> list[Connection]:
        """Whose time is over; they are counted."""
        late = [each for each in self._all if each.deadline < now and each.phase not in HELD]
        self.timed_out.update(each.phase for each in late)
        return late

    def _unlist(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        mates = self._incomplete.get(connection.source)
        if mates is not None and connection in mates:
            del mates[connection]
            if not mates:
                del self._incomplete[connection.source]


_SAME_CLOCK = frozenset(
    {
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
