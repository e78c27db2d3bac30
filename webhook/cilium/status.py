"""Writes condition Valid of Cilium's policies: the one writer of a cluster that has no Cilium.

The controller's leader runs it, as Cilium's operator does in its place, and leaves it to that one
where any CiliumNode is there. So many writes a second at most, the namespaces in turn: what a
tenant does with a thousand policies costs the others and the API server little. Nodes write
nothing: what each enforces is asked of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from generators.documents.json import Document, Key, key_of
from generators.errors import RingfenceError
from generators.kube.client import Client, OnConflict
from generators.kube.errors import Conflict, Fenced, NotFound
from generators.kube.events import EventSubject, Recorder, Severity
from generators.kube.reflector import ReflectorStats
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_NODES,
    CILIUM_POLICIES,
    Resource,
)
from generators.kube.served import ServedKind
from generators.process.logs import event
from webhook.cilium.validity import REASON, JudgedPolicy, NamespaceTurns, judge, status_of
from webhook.settings import FIELD_MANAGER

LOG = logging.getLogger("ringfence.controller")
WRITES_A_SECOND = 10
LOOK_SECONDS = 1.0
KINDS = (CILIUM_POLICIES, CILIUM_CLUSTERWIDE_POLICIES)


class ValidityWriter:
    """`start`, `stop`; a thread of its own does the rest."""

    def __init__(
        self,
        client: Client,
        fenced: Client,
        leads: Callable[[], bool],
        written: Callable[[str, str], None],
    ) -> None:
        """`written` is told kind and action of each write."""
        self._fenced = fenced
        self._leads = leads
        self._written = written
        self._recorder: Recorder | None = None
        self._lock = threading.Lock()
        self._turns = NamespaceTurns()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._works = self._left = False
        self._kinds: Mapping[Resource, ServedKind[JudgedPolicy]] = {
            resource: ServedKind(client, resource, judge, self._changed_in(resource))
            for resource in KINDS
        }
        self._nodes: ServedKind[str] = ServedKind(
            client, CILIUM_NODES, lambda d: key_of(d).name, lambda _: self._woken.set()
        )
        self._thread = threading.Thread(target=self._run, name="cilium-status", daemon=True)

    def start(self, recorder: Recorder) -> None:
        """Begin; returns at once."""
        self._recorder = recorder
        self._nodes.start()
        for kind in self._kinds.values():
            kind.start()
        self._thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stopping.set()
        self._woken.set()
        for kind in self._kinds.values():
            kind.stop()
        self._nodes.stop()

    @property
    def alive(self) -> bool:
        """Whether its thread has not died."""
        return self._thread.is_alive()

    def stats(self) -> tuple[ReflectorStats, ...]:
        """Of what is followed."""
        return tuple(kind.stats() for kind in self._kinds.values())

    def _changed_in(self, resource: Resource) -> Callable[[Key | None], None]:
        def changed(key: Key | None) -> None:
            with self._lock:
                if key is not None and self._works:
                    self._turns.add(resource, key)
            self._woken.set()

        return changed

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            self._nodes.follow()
            for kind in self._kinds.values():
                kind.follow()
            if self._may_write():
                self._write_some()
            self._woken.wait(LOOK_SECONDS)

    def _may_write(self) -> bool:
        """Whether this is the one writer now; when that begins, everything is looked at."""
        synced = self._nodes.synced and all(kind.synced for kind in self._kinds.values())
        here = len(self._nodes.store)
        if bool(here) is not self._left:
            self._left = bool(here)
            told = "policies_left_to_cilium" if here else "policies_taken_over_from_cilium"
            event(LOG, told, logging.WARNING, nodes=here)
        works = synced and self._leads() and not here
        if works is not self._works:
            with self._lock:
                self._works = works
                self._turns.clear()
                for resource, kind in self._kinds.items() if works else ():
                    for key in kind.store.snapshot():
                        self._turns.add(resource, key)
        return works

    def _write_some(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                found = self._turns.take()
            if found is None:
                return
            try:
                wrote = self._bring(*found)
            except Fenced:
                return
            except (NotFound, Conflict):
                continue  # it is another one by now, and comes again if it is there
            except RingfenceError as error:
                event(LOG, "policy_status_not_written", logging.WARNING, problem=str(error))
                with self._lock:
                    self._turns.add(*found)
                return
            if wrote:
                self._stopping.wait(1 / WRITES_A_SECOND)

    def _bring(self, resource: Resource, key: Key) -> bool:
        """Have an object's status say what is so; whether it had to be written."""
        judged = self._kinds[resource].store.get(key)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        wanted = status_of(resource, key, judged, now) if judged is not None else None
        if judged is None or wanted is None:
            return False
        self._apply(resource, wanted)
        self._written(resource.kind, "Status")
        if judged.problem and self._recorder is not None:
            subject = EventSubject(resource.api_version, resource.kind, key, judged.uid)
            self._recorder.tell_about(subject, REASON, Severity.WARNING, judged.wanted[2])
        return True

    def _apply(self, resource: Resource, wanted: Document) -> None:
        self._fenced.apply(
            resource,
            wanted,
            manager=FIELD_MANAGER,
            on_conflict=OnConflict.FORCE,
            subresource="status",
        )
