"""The record of namespace UID -> tenant, as its only writer keeps it: written in bulk.

The reconciler asks `entry` and calls `submit`; one thread writes what has gathered, one ConfigMap
for each shard that changed, and then reports the namespaces so that their next step is taken.
`entry` shows what the API server has confirmed, never what is only submitted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from generators.errors import RingfenceError
from generators.isolation.record import SHARDS, RecordEntry, entry_text, parse_entry, shard
from generators.kube.errors import Conflict
from generators.process.logs import event
from generators.tenants.consents import Consent
from webhook.controller.shards import Shards
from webhook.kept import Content

LOG = logging.getLogger("ringfence.controller")
LINGER_SECONDS = 0.05
"""How long submissions gather before they are written together."""
RETRY_SECONDS = 1.0


class RecordWriter:
    """`load` when leading begins, `entry` and `submit` from any thread, `close` at the end."""

    def __init__(
        self,
        shards: Shards,
        changed: Callable[[str], None],
        may_write: Callable[[], bool],
        wrote: Callable[[], None] = lambda: None,
    ) -> None:
        self._kept = shards
        self._changed = changed
        self._may_write = may_write
        self._wrote = wrote
        self._lock = threading.Condition()
        self._shards = {name: Content() for name in SHARDS}
        self._entries: dict[str, RecordEntry] = {}
        self._uids: dict[str, set[str]] = {}
        self._consents: Mapping[str, tuple[Consent, ...]] = {}
        self._pending: dict[str, RecordEntry | None] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    # --- for the owner --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is pending, once, and end."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join(5)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def load(self) -> None:
        """Read all shards again: what another leader wrote counts, what was pending here does
        not."""
        fresh = {name: self._kept.read(name) for name in SHARDS}
        with self._lock:
            self._pending.clear()
            for name, kept in fresh.items():
                self._adopt(name, kept)

    def follow(self, versions: Mapping[str, str]) -> None:
        """Shard -> version as a watch has it; changes by others are believed."""
        for name in SHARDS:
            ours, seen = self._shards[name].version, versions.get(name, "")
            if ours != seen and not _older(seen, ours):
                self._reload(name)

    def _reload(self, name: str) -> None:
        fresh = self._kept.read(name)
        with self._lock:
            before = self._shards[name]
            if fresh.version == before.version or _older(fresh.version, before.version):
                return
            self._adopt(name, fresh)
        touched = before.data.items() ^ fresh.data.items()
        for namespace in sorted({e.namespace for _, t in touched if (e := parse_entry(t))}):
            self._changed(namespace)

    def entry(self, uid: str) -> RecordEntry | None:
        """What is recorded of a namespace."""
        with self._lock:
            return self._entries.get(uid)

    def uids(self, namespace: str) -> frozenset[str]:
        """All UIDs recorded under a name: one that was deleted may still be there."""
        with self._lock:
            return frozenset(self._uids.get(namespace, ()))

    def snapshot(self) -> Mapping[str, RecordEntry]:
        """All entries."""
        with self._lock:
            return dict(self._entries)

    @property
    def consents(self) -> Mapping[str, tuple[Consent, ...]]:
        """Namespace -> what its tenant agreed to; the same object until that changes."""
        return self._consents

    def submit(self, uid: str, entry: RecordEntry | None) -> None:
        """Have `entry` recorded soon; None removes what is recorded."""
        with self._lock:
            self._pending[uid] = entry
            self._lock.notify_all()

    @property
    def idle(self) -> bool:
        """Nothing waits to be written."""
        with self._lock:
            return not self._pending

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._pending and not self._closed:
                    self._lock.wait()
                if not self._closed:
                    self._lock.wait(LINGER_SECONDS)
                ended = self._closed
                batch = dict(self._pending)
            failed = self._write(batch)
            if ended:
                return
            if failed:
                threading.Event().wait(RETRY_SECONDS)

    def _write(self, batch: Mapping[str, RecordEntry | None]) -> bool:
        """Write every shard that the batch changes; whether any could not be written."""
        failed = False
        for name in SHARDS:
            mine = {uid: entry for uid, entry in batch.items() if shard(uid) == name}
            if not mine:
                continue
            if not self._may_write():
                self._settle(mine)
                continue
            try:
                self._write_shard(name, mine)
            except Conflict:
                failed = True
                self._recover(name)
            except RingfenceError as error:
                failed = True
                event(LOG, "record_not_written", logging.WARNING, shard=name, problem=str(error))
        return failed

    def _write_shard(self, name: str, mine: Mapping[str, RecordEntry | None]) -> None:
        before = self._shards[name]
        data = {k: v for k, v in before.data.items() if k not in mine}
        data |= {uid: entry_text(entry) for uid, entry in mine.items() if entry is not None}
        written = self._kept.write(name, dict(sorted(data.items())), before)
        if written is not before:
            self._wrote()
            with self._lock:
                self._adopt(name, written)
        self._settle(mine)
        for namespace in sorted({e.namespace for e in mine.values() if e is not None}):
            self._changed(namespace)

    def _settle(self, mine: Mapping[str, RecordEntry | None]) -> None:
        """Forget submissions that are done, unless a newer one has come for the same UID."""
        with self._lock:
            for uid, entry in mine.items():
                if uid in self._pending and self._pending[uid] == entry:
                    del self._pending[uid]

    def _recover(self, name: str) -> None:
        """Another writer changed the shard: take it as it is, the next attempt adds ours."""
        try:
            fresh = self._kept.read(name)
        except RingfenceError as error:
            event(LOG, "record_not_read", logging.WARNING, shard=name, problem=str(error))
            return
        with self._lock:
            self._adopt(name, fresh)

    def _adopt(self, name: str, fresh: Content) -> None:
        """Take over a shard and index what differs; the lock is held."""
        before = self._shards[name]
        self._shards[name] = fresh
        for uid in [uid for uid, text in before.data.items() if fresh.data.get(uid) != text]:
            entry = self._entries.pop(uid, None)
            if entry is not None:
                self._uids[entry.namespace].discard(uid)
                if not self._uids[entry.namespace]:
                    del self._uids[entry.namespace]
        for uid, text in fresh.data.items():
            if before.data.get(uid) == text:
                continue
            entry = parse_entry(text)
            if entry is None:
                event(LOG, "record_entry_unreadable", logging.ERROR, uid=uid, text=text)
                continue
            self._entries[uid] = entry
            self._uids.setdefault(entry.namespace, set()).add(uid)
        said = {e.namespace: e.consents for e in self._entries.values() if e.consents}
        if said != self._consents:
            self._consents = said


def _older(version: str, than: str) -> bool:
    """Resource versions of one kind are numbers that grow; where they are not, nothing is older."""
    return version.isdigit() and than.isdigit() and int(version) < int(than)
