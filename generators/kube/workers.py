"""Threads that take what has to be done from one queue, an item at a time.

While work is not allowed, items are dropped, because whoever works next looks at everything.
Failures are retried after a while, whatever the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from generators.kube.errors import Fenced, KubeError
from generators.kube.queue import WorkQueue

WORKERS = 8
PATIENCE_SECONDS = 1.0

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)


class Work(Protocol[K_contra]):
    """What the threads do; each is called by any of them."""

    def may_work(self) -> bool:
        """Whether items may be dealt with now."""

    def run(self, item: K_contra, /) -> None:
        """Deal with an item; raises if it must be retried. Fenced: it is no longer ours."""

    def failed(self, item: K_contra, error: Exception, /) -> None:
        """Take note of a failure, before the item is queued again. No KubeError: a defect."""

    def delayed(self, item: K_contra, error: Exception, seconds: float, /) -> None:
        """Say when it comes again."""


class Workers(Generic[K]):
    """`start`; they end by themselves once `stopping` is set."""

    def __init__(
        self, queue: WorkQueue[K], stopping: threading.Event, work: Work[K], name: str
    ) -> None:
        self._queue = queue
        self._stopping = stopping
        self._work = work
        self._threads = [
            threading.Thread(target=self._take, name=f"{name}-{n}", daemon=True)
            for n in range(WORKERS)
        ]

    def start(self) -> None:
        """Work from now on."""
        for thread in self._threads:
            thread.start()

    def dead(self) -> list[str]:
        """Names of the threads that have ended and should not have."""
        return [thread.name for thread in self._threads if not thread.is_alive()]

    def join(self, seconds: float) -> None:
        """Wait for items in progress, a while for each."""
        for thread in self._threads:
            thread.join(seconds)

    def _take(self) -> None:
        while not self._stopping.is_set():
            item = self._queue.get(timeout=PATIENCE_SECONDS)
            if item is None:
                continue
            if self._work.may_work():
                self._attempt(item)
            else:
                self._queue.done(item)

    def _attempt(self, item: K) -> None:
        try:
            self._work.run(item)
        except Fenced:
            self._queue.done(item)
        except Exception as error:
            self._work.failed(item, error)
            wait = error.status.retry_after if isinstance(error, KubeError) else None
            delay = self._queue.retry(item, wait or 0.0)
            self._work.delayed(item, error, delay)
        else:
            self._queue.done(item)
