"""What would be dropped, counted by who, whom, port and who refused; kept over restarts.

The feed notes each audited flow here, apart from the flows that it remembers, so that a busy peer
never pushes a quiet one out of `ringfence audit report`. Bounded: the many ports of one peer and
the many addresses outside the cluster become one line, and when all is full the pair of tenants
with the most lines gives up those that were seen longest ago, which are counted as forgotten.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from enforcer.datapath.flows import FlowRecord
from enforcer.observe.names import NamedEvent, NamedParty
from enforcer.observe.shape import PROTOCOLS
from enforcer.policy.tables import IDENTITY_HOST, IDENTITY_REMOTE_NODE, Dir
from generators.process.files import StateFile
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")
FILE = "audited.json"
ROOM = 16384
"""Lines in all."""
FORGOTTEN = 64
"""So many go at once: finding the largest pair takes a look at all."""
PORTS = 32
"""Of one peer at one workload; the others become one line."""
OUTSIDE = 64
"""Addresses outside the cluster at one workload; the others become one line."""
OTHER_PORTS = 0
OTHER_ADDRESSES = "other addresses"
UNNAMED = 256
"""Flows of interfaces whose pod is not known yet."""
NODES = {IDENTITY_HOST: "host", IDENTITY_REMOTE_NODE: "remote-node"}


class Would(NamedTuple):
    """One kind of packet that would be dropped."""

    subject: str
    """`namespace/pod`, with a workload `namespace/kind/name`; an address where it is no pod's."""
    subject_tenant: str
    direction: str
    peer: str
    peer_tenant: str
    port: int
    """0: no ports, or one of very many."""
    protocol: str
    reason: str
    by: tuple[str, ...]


@dataclass(slots=True)
class Seen:
    """How often and when, in nanoseconds since 1970, and where the last one's rule was written."""

    flows: int
    first: int
    last: int
    source: tuple[str, ...]


class Audited:
    """`note` each audited flow; `kinds` are those that are remembered, sorted."""

    def __init__(self, run_dir: Path | None = None) -> None:
        """Kept in a file below `run_dir`; without one, only here."""
        self._file = StateFile(run_dir / FILE, "audit") if run_dir is not None else None
        self._pairs: dict[tuple[str, str], OrderedDict[Would, Seen]] = {}
        """By tenant and tenant of the peer; what was seen longest ago first."""
        self._kept = 0
        self._ports: Counter[Would] = Counter()
        """Lines of each, its port left out."""
        self._outside: dict[tuple[str, str], Counter[str]] = {}
        """Addresses outside the cluster and their lines, by subject and direction."""
        self._unnamed: deque[FlowRecord] = deque()
        self.forgotten: Counter[str] = Counter()
        """Flows that are in no line any more, by tenant; empty name: without one."""
        self._dirty = False
        self._load()

    def note(self, seen: NamedEvent) -> None:
        """Count one flow; whose pod is not known yet waits for `name_late`."""
        if not seen.local.pod:
            if len(self._unnamed) >= UNNAMED:
                self._unnamed.popleft()
                self.forgotten[""] += 1
            self._unnamed.append(seen.record)
            return
        moment = seen.record.time
        source = tuple(speaker.origin for speaker in seen.speakers if speaker.origin)
        self._add(self._room_for(_would(seen)), Seen(1, moment, moment, source))

    def name_late(self, see: Callable[[FlowRecord], NamedEvent]) -> None:
        """Try again with the flows that had no name; `see` knows today's pods."""
        waiting, self._unnamed = self._unnamed, deque()
        for record in waiting:
            self.note(see(record))

    def kinds(self) -> list[tuple[Would, Seen]]:
        """Everything that is remembered, sorted."""
        return sorted((would, replace(times)) for would, times in self._all())

    def unsaved(self) -> bytes | None:
        """What the file should hold; None where it does."""
        if self._file is None or not self._dirty:
            return None
        self._dirty = False
        kinds = [(tuple(would), times) for would, times in self._all()]
        return orjson.dumps({"kinds": kinds, "forgotten": self.forgotten})

    def save(self, data: bytes | None) -> None:
        """Write what was `unsaved`; a file that cannot be written is an error in the log."""
        if data is not None and self._file is not None and not self._file.write(data):
            self._dirty = True

    def _load(self) -> None:
        """What a former agent left; a file that is damaged is as good as none, and said so."""
        if self._file is None or not self._file.path.exists():
            return
        try:
            found = orjson.loads(self._file.path.read_bytes())
            rows = [_read(row) for row in found["kinds"]]
            forgotten = {str(name): int(count) for name, count in found["forgotten"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            event(log, "audit_not_read", logging.ERROR, file=str(self._file.path), error=str(error))
            return
        for would, times in rows:
            self._add(would, times)
        self.forgotten.update(forgotten)
        self._dirty = False

    def _all(self) -> Iterator[tuple[Would, Seen]]:
        for lines in self._pairs.values():
            yield from lines.items()

    def _room_for(self, would: Would) -> Would:
        """The line that counts it: its own, or that of all the others of its kind."""
        if would in self._pairs.get(_pair(would), ()):
            return would
        known = self._outside.get((would.subject, would.direction), ())
        if _is_outside(would.peer) and would.peer not in known and len(known) >= OUTSIDE:
            would = would._replace(peer=OTHER_ADDRESSES)
        if self._ports[would._replace(port=OTHER_PORTS)] >= PORTS:
            would = would._replace(port=OTHER_PORTS)
        return would

    def _add(self, would: Would, times: Seen) -> None:
        self._dirty = True
        lines = self._pairs.setdefault(_pair(would), OrderedDict())
        known = lines.get(would)
        if known is not None:
            known.flows += times.flows
            known.last, known.source = times.last, times.source
            lines.move_to_end(would)
            return
        lines[would] = times
        self._kept += 1
        self._account(would, 1)
        if self._kept > ROOM:
            self._forget()

    def _account(self, would: Would, lines: int) -> None:
        self._ports[would._replace(port=OTHER_PORTS)] += lines
        if _is_outside(would.peer):
            place = would.subject, would.direction
            known = self._outside.setdefault(place, Counter())
            known[would.peer] += lines
            if not known[would.peer]:
                del known[would.peer]
            if not known:
                del self._outside[place]

    def _forget(self) -> None:
        pair = max(self._pairs, key=lambda pair: len(self._pairs[pair]))
        lines = self._pairs[pair]
        for _ in range(min(FORGOTTEN, len(lines))):
            would, times = lines.popitem(last=False)
            self._kept -= 1
            self._account(would, -1)
            self.forgotten[would.subject_tenant] += times.flows
        if not lines:
            del self._pairs[pair]
        self._ports += Counter()


def _pair(would: Would) -> tuple[str, str]:
    return would.subject_tenant, would.peer_tenant


def _is_outside(peer: str) -> bool:
    return "/" not in peer and peer not in NODES.values() and peer != OTHER_ADDRESSES


def _would(seen: NamedEvent) -> Would:
    record = seen.record
    inward = record.direction is Dir.INGRESS
    near, far = seen.local, seen.source if inward else seen.destination
    return Would(
        subject=_name(near, record.destination if inward else record.source),
        subject_tenant=near.tenant,
        direction=record.direction.name,
        peer=_name(far, record.source if inward else record.destination),
        peer_tenant=far.tenant,
        port=record.destination_port,
        protocol=PROTOCOLS.get(record.protocol, str(record.protocol)),
        reason=record.reason.name,
        by=tuple(speaker.name for speaker in seen.speakers),
    )


def _name(party: NamedParty, address: str) -> str:
    if party.workload is not None:
        return f"{party.namespace}/{party.workload.kind.lower()}/{party.workload.name}"
    if party.pod:
        return f"{party.namespace}/{party.pod}"
    return NODES.get(party.identity, address)


def _read(row: list[Any]) -> tuple[Would, Seen]:
    """A line of the file; raises what Python raises where it is none."""
    (*names, port, protocol, reason, by), seen = row
    subject, subject_tenant, direction, peer, peer_tenant = map(str, names)
    would = Would(
        subject,
        subject_tenant,
        direction,
        peer,
        peer_tenant,
        int(port),
        str(protocol),
        str(reason),
        tuple(map(str, by)),
    )
    moments = int(seen["flows"]), int(seen["first"]), int(seen["last"])
    return would, Seen(*moments, tuple(map(str, seen["source"])))
