"""The triggers that have to be dealt with, each once, and the threads that take them.

`PolicyWork` says what dealing with one is; watch threads and its loop add them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from generators.documents.json import ObjectKey
from generators.kube.errors import Conflict, KubeError, Unavailable
from generators.kube.queue import Backoff, QueueStats, WorkQueue
from generators.kube.workers import Workers
from generators.process.logs import event
from webhook.background.index import TriggerName
from webhook.background.metrics import Measures
from webhook.background.needs import RuleName

LOG = logging.getLogger("ringfence.controller")
LONGEST_WAIT = 120.0


@dataclass(frozen=True, slots=True, order=True)
class Sweep:
    """A rule that is run once for all of its triggers."""

    name: RuleName


Item: TypeAlias = "TriggerName | Sweep"


class TriggerQueue:
    """`deal` raises when an item has to come again, and is False while nothing is carried out."""

    def __init__(
        self, deal: Callable[[Item], bool], may_work: Callable[[], bool], measures: Measures
    ) -> None:
        self.may_work = may_work
        self._deal = deal
        self._measures = measures
        self._queue: WorkQueue[Item] = WorkQueue(Backoff(first=0.1, longest=LONGEST_WAIT))
        self._lock = threading.Lock()
        self._since: dict[TriggerName, float] = {}
        self._retried: set[Item] = set()
        self._stopping = threading.Event()
        self._workers = Workers(self._queue, self._stopping, self, "policies")

    def start(self) -> None:
        """Take from the queue from now on."""
        self._workers.start()

    def stop(self) -> None:
        """End the threads after they finish what they are doing."""
        self._stopping.set()
        self._queue.close()
        self._workers.join(5)

    @property
    def alive(self) -> bool:
        """Whether no worker has died."""
        return not self._workers.dead()

    def add(self, item: Item) -> None:
        """Deal with it soon."""
        if isinstance(item, ObjectKey):
            with self._lock:
                self._since.setdefault(item, time.monotonic())
        self._queue.add(item)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return self._queue.idle

    def stats(self) -> QueueStats:
        """Of now."""
        return self._queue.stats()

    def retried(self) -> set[Item]:
        """What failed last time."""
        with self._lock:
            return set(self._retried)

    # --- called by the workers ------------------------------------------------------------------

    def run(self, item: Item) -> None:
        """Deal with everything about one trigger, or with one rule for all of them."""
        with self._lock:
            since = self._since.pop(item, None) if isinstance(item, ObjectKey) else None
        if not self._deal(item):
            return
        with self._lock:
            self._retried.discard(item)
        if since is not None:
            self._measures.lag.observe(time.monotonic() - since)

    def failed(self, item: Item, error: Exception) -> None:
        """Count it; until it comes again, the triggers up to now are not dealt with."""
        if not isinstance(error, KubeError):
            LOG.error("policy_defect item=%s", item, exc_info=error)
        self._measures.failures.labels(type(error).__name__).inc()
        with self._lock:
            self._retried.add(item)

    def delayed(self, item: Item, error: Exception, seconds: float) -> None:
        """Log it."""
        quiet = isinstance(error, Unavailable | Conflict)
        level = logging.INFO if quiet else logging.WARNING
        event(
            LOG, "policy_not_carried_out", level, item=str(item), problem=str(error), retry=seconds
        )
