"""Threads that take namespaces from one queue and have each brought to what it should be.

The controller starts them. What may surprise: where nobody leads, names are taken and dropped,
because whoever leads next looks at everything; and what fails comes again after a while, whatever
the reason.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from generators.kube.errors import Fenced, KubeError, NotFound, Unavailable
from generators.kube.queue import WorkQueue
from generators.process.logs import event

LOG = logging.getLogger("ringfence.controller")
WORKERS = 8
PATIENCE_SECONDS = 1.0


class Workers:
    """`start`; they end by themselves once `stopping` is set."""

    def __init__(
        self,
        queue: WorkQueue[str],
        stopping: threading.Event,
        may_work: Callable[[], bool],
        reconcile: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._queue = queue
        self._stopping = stopping
        self._may_work = may_work
        self._reconcile = reconcile
        self._tell_failure = failed
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{n}", daemon=True)
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
        """Wait for what is under way, a while for each."""
        for thread in self._threads:
            thread.join(seconds)

    def _work(self) -> None:
        while not self._stopping.is_set():
            name = self._queue.get(timeout=PATIENCE_SECONDS)
            if name is None:
                continue
            if self._may_work():
                self._attempt(name)
            else:
                self._queue.done(name)

    def _attempt(self, name: str) -> None:
        try:
            self._reconcile(name)
        except (Fenced, NotFound):
            # Not ours any more, or deleted under our hands: the watch tells.
            self._queue.done(name)
        except KubeError as error:
            self._failed(name, error, error.status.retry_after or 0.0)
        except Exception as error:
            LOG.exception("reconcile_defect namespace=%s", name)
            self._failed(name, error, 0.0)
        else:
            self._queue.done(name)

    def _failed(self, name: str, error: Exception, at_least: float) -> None:
        self._tell_failure(error)
        delay = self._queue.retry(name, at_least)
        level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
        event(LOG, "not_synchronized", level, namespace=name, problem=str(error), retry_in=delay)
