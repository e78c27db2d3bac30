"""Keeps a reduced copy of one resource in step with the API server, and says which keys changed.

One thread a resource. Objects are reduced to the owner's own small values as they arrive and the
documents are forgotten. The thread runs no code of the owner but `reduce` and `changed`, which
must be quick; `changed` usually is the `add` of a work queue.

    list or stream ──► synced ──► follow ──┬─ ended in good order, cut, silent ──► follow from there
          ▲                                └─ 410: history is forgotten ──┐
          └──────────────────── after a back-off ─────────────────────────┘

When the API server is away the copy stays as it is. A new list replaces it in one step; what is
gone from the list is reported like a deletion, what is equal is not reported at all.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from generators.documents.json import Document, Key, key_of, mapping, resource_version_of
from generators.errors import RingfenceError
from generators.kube.client import EVERYTHING, Client, Watch, WatchScope
from generators.kube.errors import (
    ApiStatus,
    BadRequest,
    Forbidden,
    Gone,
    Invalid,
    Overloaded,
    Silent,
    error_for,
)
from generators.kube.queue import Backoff
from generators.kube.resources import Resource
from generators.kube.store import Store

LOG = logging.getLogger(__name__)
END_MARK = "k8s.io/initial-events-end"
BACKOFF = Backoff(first=0.5, longest=30.0)

T = TypeVar("T")


class Initial(Enum):
    """How the first state is fetched."""

    STREAM = "stream"
    """As the opening events of the watch itself: the API server need not build a list."""
    PAGES = "pages"
    """A paged list before the watch, where the API server does not know better."""


@dataclass(frozen=True, slots=True)
class Timing:
    """All waiting times, in seconds; a pair is a range to choose from at random."""

    watch: tuple[int, int] = (300, 600)
    """How long one watch lasts; spread, so that nodes do not come back all at once."""
    silence: float = 90.0
    """No event for so long means a half-open connection: bookmarks come every minute."""
    grace: float = 30.0
    """Added to the watch's length where the API server sends no bookmarks."""
    initial_silence: float = 10.0
    initial_longest: float = 120.0
    """A streamed first state without its end mark by then comes from a server that knows none."""
    backoff: Backoff = BACKOFF
    healthy: float = 60.0
    """A watch of that length makes earlier failures forgotten."""
    short: float = 1.0
    """A watch that ends sooner counts as a failure, however politely it ended."""
    resync: tuple[int, int] = (600, 1800)
    """From time to time all keys are reported, in case one was lost."""


@dataclass(frozen=True, slots=True)
class ReflectorStats:
    """For metrics and readiness; counters since the start."""

    resource: str
    synced: bool
    connected: bool
    forbidden: bool
    """The last attempt was refused by RBAC: the copy is getting old."""
    objects: int
    last_event_age: float
    """Seconds since the API server sent anything, bookmarks included."""
    relists: Mapping[str, int]
    """By reason: start, expired, fallback, refused, defect."""
    watch_errors: Mapping[str, int]
    """By kind of error, as in `generators.kube.errors`."""
    unreadable: Mapping[Key, str]
    """Objects that `reduce` could not make sense of; an earlier value of them stays."""
    last_error: str = ""
    """What ended the last attempt, as `watch_errors` names it; empty while connected."""


@dataclass(slots=True)
class _Session(Generic[T]):
    """The state of one watch connection."""

    opened: float
    first_state: dict[Key, T] | None
    """Collected until the end mark; None once the copy is current."""


class Reflector(Generic[T]):
    """`start`, `wait_synced`, read `store`, `stop`."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        reduce: Callable[[Document], T | None],
        changed: Callable[[Key], None],
        *,
        scope: WatchScope = EVERYTHING,
        timing: Timing | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._reduce = reduce
        self._changed = changed
        self._scope = scope
        self._timing = timing or Timing()
        self.store: Store[T] = Store()
        self._initial = Initial.STREAM
        self._resource_version: str | None = None
        self._relist_reason = "start"
        self._relists: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._unreadable: dict[Key, str] = {}
        self._failures = 0
        self._bookmarks = False
        self._connected = False
        self._forbidden = False
        self._last_error = ""
        self._last_event = time.monotonic()
        self._next_resync = self._last_event + self._pick(self._timing.resync)
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._watch_lock = threading.Lock()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"reflect-{resource}", daemon=True)

    # --- for the owner --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; a blocked read is cut."""
        with self._watch_lock:
            self._stopping.set()
            if self._watch is not None:
                self._watch.abort()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def synced(self) -> bool:
        """Whether the copy has been complete once; it stays true while the API server is away."""
        return self._synced.is_set()

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Block until the copy is complete."""
        return self._synced.wait(timeout)

    def stats(self) -> ReflectorStats:
        """How it is doing."""
        return ReflectorStats(
            resource=str(self._resource),
            synced=self.synced,
            connected=self._connected,
            forbidden=self._forbidden,
            objects=len(self.store),
            last_event_age=time.monotonic() - self._last_event,
            relists=dict(self._relists),
            watch_errors=dict(self._errors),
            unreadable=dict(self._unreadable),
            last_error=self._last_error,
        )

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            error: Exception | None = None
            try:
                self._connect_and_follow()
            except RingfenceError as caught:
                error = caught
            except Exception as caught:
                # A defect of ours; if the thread died of it, the copy would grow old unseen.
                LOG.exception("reflector_defect resource=%s", self._resource)
                self._resource_version, self._relist_reason = None, "defect"
                error = caught
            self._connected = False
            if not self._stopping.is_set():
                self._stopping.wait(self._pause(error, time.monotonic() - began))

    def _connect_and_follow(self) -> None:
        if self._resource_version is None:
            self._unreadable.clear()
            if self._initial is Initial.PAGES:
                self._list()
        query, silence = self._watch_query()
        watch = self._client.watch(self._resource, self._scope, query)
        with self._watch_lock:
            if self._stopping.is_set():
                return
            self._watch = watch
        with watch:
            watch.open(silence)
            self._connected, self._forbidden, self._last_error = True, False, ""
            self._last_event = time.monotonic()
            streamed = self._resource_version is None
            session = _Session[T](self._last_event, {} if streamed else None)
            try:
                self._follow(watch, session)
            except Silent:
                if session.first_state is not None:
                    self._fall_back()
                raise

    def _follow(self, watch: Watch, session: _Session[T]) -> None:
        for kind, document in watch.events():
            self._last_event = time.monotonic()
            if kind == "ERROR":
                status = ApiStatus.parse(document, 0)
                raise error_for(f"watch {self._resource}", status)
            if kind == "BOOKMARK":
                self._bookmark(watch, session, document)
            else:
                self._event(kind, document, session)
            if session.first_state is None:
                self._resource_version = resource_version_of(document) or self._resource_version
                self._resync_when_due()
            elif self._last_event - session.opened > self._timing.initial_longest:
                self._fall_back()
                return

    def _bookmark(self, watch: Watch, session: _Session[T], document: Document) -> None:
        if not self._bookmarks or session.first_state is not None:
            self._bookmarks = True
            watch.silence_allowed(self._timing.silence)
        marks = mapping(mapping(document, "metadata"), "annotations")
        if session.first_state is not None and marks.get(END_MARK) == "true":
            self._take_over(session.first_state)
            session.first_state = None

    def _event(self, kind: str, document: Document, session: _Session[T]) -> None:
        key = key_of(document)
        value = None if kind == "DELETED" else self._reduced(key, document)
        if kind == "DELETED":
            self._unreadable.pop(key, None)
        elif key in self._unreadable:
            value = self.store.get(key)
        if session.first_state is not None:
            if value is not None:
                session.first_state[key] = value
            else:
                session.first_state.pop(key, None)
        elif self.store.put(key, value) if value is not None else self.store.remove(key):
            self._changed(key)

    def _reduced(self, key: Key, document: Document) -> T | None:
        try:
            value = self._reduce(document)
        except Exception as error:
            # One odd object must not stop the copy of all others.
            LOG.exception("object_unreadable resource=%s object=%s", self._resource, key)
            self._unreadable[key] = str(error)
            return None
        self._unreadable.pop(key, None)
        return value

    # --- first state ----------------------------------------------------------------------------

    def _list(self) -> None:
        values: dict[Key, T] = {}
        version = ""
        for page in self._client.pages(self._resource, self._scope):
            if self._stopping.is_set():
                return
            version = page.resource_version
            for document in page.items:
                key = key_of(document)
                value = self._reduced(key, document)
                if value is None and key in self._unreadable:
                    value = self.store.get(key)
                if value is not None:
                    values[key] = value
        self._last_event = time.monotonic()
        self._take_over(values)
        self._resource_version = version

    def _take_over(self, values: dict[Key, T]) -> None:
        self._relists[self._relist_reason] += 1
        changed = self.store.replace(values)
        LOG.info(
            "reflector_synced resource=%s objects=%d changed=%d reason=%s",
            self._resource,
            len(values),
            len(changed),
            self._relist_reason,
        )
        for key in changed:
            self._changed(key)
        # Last: whoever waits for it and then looks at the keys has been told all of them.
        self._synced.set()

    def _fall_back(self) -> None:
        LOG.warning("reflector_lists_pages resource=%s", self._resource)
        self._initial = Initial.PAGES
        self._relist_reason = "fallback"

    # --- when and how ---------------------------------------------------------------------------

    def _watch_query(self) -> tuple[dict[str, str], float]:
        seconds = self._pick(self._timing.watch)
        query = {"allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        if self._resource_version is not None:
            query["resourceVersion"] = self._resource_version
            silence = self._timing.silence if self._bookmarks else seconds + self._timing.grace
            return query, silence
        query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        return query, self._timing.initial_silence

    def _pause(self, error: Exception | None, lasted: float) -> float:
        """Seconds until the next attempt, after learning from how this one ended."""
        if lasted >= self._timing.healthy:
            self._failures = 0
        if error is None:
            if lasted >= self._timing.short:
                return 0.0
            self._errors["short"] += 1
        else:
            self._learn(error)
        self._failures += 1
        delay = self._timing.backoff.delay(self._failures) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        if isinstance(error, Overloaded):
            delay = max(delay, error.retry_after)
        LOG.log(
            logging.ERROR if self._forbidden else logging.WARNING,
            "watch_failed resource=%s retry_in=%.1f error=%s",
            self._resource,
            delay,
            error or "ended at once",
        )
        return delay

    def _learn(self, error: Exception) -> None:
        self._last_error = type(error).__name__
        self._errors[self._last_error] += 1
        self._forbidden = isinstance(error, Forbidden)
        if isinstance(error, Gone):
            self._resource_version = None
            self._relist_reason = "expired"
        elif isinstance(error, BadRequest | Invalid):
            if self._resource_version is not None:
                self._resource_version, self._relist_reason = None, "refused"
            elif self._initial is Initial.STREAM:
                # A server without streamed lists refuses the parameters that ask for one.
                self._fall_back()

    def _resync_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_resync:
            self._next_resync = now + self._pick(self._timing.resync)
            for key in self.store.snapshot():
                self._changed(key)

    @staticmethod
    def _pick(bounds: tuple[int, int]) -> int:
        return random.randint(*bounds)  # noqa: S311 - spreads load, guards nothing
