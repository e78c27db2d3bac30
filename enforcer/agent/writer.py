"""From the compiler's plan to the kernel's maps, and the comparison of both.

The agent calls `write` after each batch of changes, and `audit` periodically. A write that fails
leaves the compiler unsure of the kernel; the next one reads all maps first and plans again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from enforcer.agent.delays import Tally, WorkKind
from enforcer.agent.state import Audit
from enforcer.compiler.compile import Compiler
from enforcer.policy.buckets import EMPTY
from enforcer.policy.tables import (
    SERVICE_BACKENDS,
    EndpointEntry,
    MapOverflow,
    MapWrite,
    Table,
    Tables,
)
from enforcer.writes.pending import PendingTables
from generators.errors import RingfenceError
from generators.http import RuleSet
from generators.reachability.services import ServiceKey


def _no_proxy(_sets: Mapping[int, RuleSet], _endpoints: Mapping[int, EndpointEntry]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class MapAccess:
    """What is done to the maps, and before."""

    read: Callable[[], Tables]
    apply: Callable[[Iterable[MapWrite]], None]
    prepare: Callable[[Mapping[int, RuleSet], Mapping[int, EndpointEntry]], None] = _no_proxy
    """Has the proxy judge by rule sets what entries are about to lead to it, for these pods."""


class TableWriter:
    """Writes what one compiler wants."""

    def __init__(
        self,
        compiler: Compiler,
        kernel: MapAccess,
        tally: Tally,
        forget: Callable[[frozenset[int]], None],
    ) -> None:
        self._compiler = compiler
        self._kernel = kernel
        self._tally = tally
        self._forget = forget
        self._unsure = True
        """The kernel may hold something else than was last committed."""
        self._closed: dict[ServiceKey, None] = {}
        self.audited = Audit()

    def write(self) -> int:
        """Bring everything into force; how many writes that took."""
        compiler = self._compiler
        if self._unsure:
            compiler.resync(self._swept())
            self._unsure = False
            closed = (k for k, backends in compiler.ledger.services.now.items() if not backends)
            self._closed = dict.fromkeys(closed)
        try:
            writes = compiler.plan()
        except MapOverflow as error:
            self._tally.add(WorkKind("map", error.table.value, "update", "refused"))
            self._hurry()
            raise
        gone = compiler.leaving()
        self._kernel.prepare(compiler.rule_sets.admitted(), compiler.ledger.endpoints.now)
        try:
            self._kernel.apply(writes)
        except RingfenceError:
            self._count(writes, "fail")
            self._hurry()
            raise
        compiler.commit()
        self._count(writes, "success")
        if gone:
            self._forget(gone)
        return len(writes)

    def _hurry(self) -> None:
        """After a failure: at least nothing that is gone keeps a place or is taken for another."""
        self._unsure = True
        self._compiler.resync(self._kernel.read())
        self._kernel.apply(self._compiler.urgent())

    def _swept(self) -> Tables:
        """What the kernel holds, without groups that no endpoint uses.

        A write that failed left them there, and the next one needs their room.
        """
        kernel = self._kernel.read()
        used = {number for e in kernel.endpoints.values() for number in e.groups}
        idle = [MapWrite(Table.POLICY, key, None) for key in kernel.policy if key.group not in used]
        idle += [
            MapWrite(Table.RANGES, key, None) for key in kernel.ranges if key.group not in used
        ]
        if not idle:
            return kernel
        self._kernel.apply(idle)
        return replace(
            kernel,
            policy={key: rule for key, rule in kernel.policy.items() if key.group in used},
            ranges={key: rule for key, rule in kernel.ranges.items() if key.group in used},
        )

    def excess(self) -> Mapping[str, str]:
        """What is closed because the maps cannot express it."""
        if not self._closed:
            return {}
        closed = sorted(f"{key.address}:{key.port}/{key.protocol}" for key in self._closed)
        told = f"calls from isolated pods to {', '.join(closed)} are closed: policies distinguish "
        told += f"more than {SERVICE_BACKENDS} kinds of backends there; use fewer kinds"
        return {"services": told}

    def audit(self) -> None:
        """Compare the kernel's maps with the wanted ones, and set right what differs."""
        if self._unsure or self._compiler.pending:
            return
        self._compiler.resync(self._kernel.read())
        drift = _drift(self._compiler.ledger)
        if drift:
            self.write()
        self.audited = replace(
            self.audited,
            runs=self.audited.runs + 1,
            corrections=self.audited.corrections + sum(drift.values()),
            drift=drift,
            at=time.monotonic(),
        )

    def _count(self, writes: Iterable[MapWrite], outcome: str) -> None:
        done: Counter[tuple[Table, str]] = Counter()
        for write in writes:
            done[write.table, "delete" if write.value is None else "update"] += 1
            if write.table is Table.SERVICES and isinstance(write.key, ServiceKey):
                self._closed.pop(write.key, None)
                if write.value == ():
                    self._closed[write.key] = None
        for (table, operation), amount in done.items():
            self._tally.add(WorkKind("map", table.value, operation, outcome), amount)
        if changed := done[Table.ENDPOINTS, "update"]:
            self._tally.add(WorkKind("regeneration", outcome=outcome), changed)


def _drift(ledger: PendingTables) -> Mapping[str, int]:
    """How many entries of each map are not as they should be."""
    found = {
        Table.ENDPOINTS: len(ledger.endpoints.changed()),
        Table.ADDRESSES: len(ledger.addresses.changed()),
        Table.CIDRS: len(ledger.cidrs.changed()),
        Table.SERVICES: len(ledger.services.changed()),
        Table.POLICY: 0,
        Table.RANGES: 0,
    }
    for old, new in ledger.buckets.changed().values():
        before, wanted = old or EMPTY, new or EMPTY
        found[Table.POLICY] += len(before.policy.items() ^ wanted.policy.items())
        found[Table.RANGES] += len(before.ranges.items() ^ wanted.ranges.items())
    return {table.value: count for table, count in sorted(found.items()) if count}
