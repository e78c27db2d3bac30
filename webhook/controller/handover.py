"""From one tenant file to the next: the file that the workers go by, and the moment it changes.

The guard says when (admission has refused by the next file for long enough); here all work stands
still for that moment. What was decided under the file before goes into the record first, so that
the next file cannot give an old label another meaning; labels that nothing vouches for are
corrected before anything else is done.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.queue import WorkQueue
from generators.kube.resources import NAMESPACES
from generators.objects import Namespace
from generators.process.logs import event
from generators.tenants.model import TenantConfig
from webhook.controller.reconcile import read_namespace
from webhook.controller.record import RecordWriter
from webhook.registration.epoch import Epoch, Unproven, settled, unproven
from webhook.registration.guard import AdmissionGuard

LOG = logging.getLogger("ringfence.controller")
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.01


class NotHandedOver(RingfenceError):
    """What has to be done before another tenant file comes in force takes too long."""


class Handover:
    """`config` is what workers go by; the registrar's thread changes it."""

    def __init__(
        self,
        config: TenantConfig,
        client: Client,
        guard: AdmissionGuard,
        ledger: RecordWriter,
        queue: WorkQueue[str],
        proven: Callable[[Namespace, str], bool],
        reconcile: Callable[[Namespace], None],
        taken: Callable[[], None],
    ) -> None:
        self.config = config
        self.paused = False
        """Work is paused; a worker that takes a namespace from the queue drops it."""
        self._client = client
        self._guard = guard
        self._ledger = ledger
        self._queue = queue
        self._proven = proven
        self._reconcile = reconcile
        self._taken = taken

    def resume(self, epoch: Epoch | None, newest: TenantConfig) -> None:
        """Leading begins: go by the file of the epoch that still holds, else by the newest."""
        former = None if epoch is None else epoch.config(newest.file)
        self.config = former or newest

    def take(self, config: TenantConfig) -> None:
        """Go by another file at once: no label is trusted that could mean something else."""
        self.config = config
        self._taken()

    @contextlib.contextmanager
    def to(self, config: TenantConfig) -> Iterator[Unproven]:
        """Everything stands still; what is unproven under `config`, which is in
        force once the block ends without an error."""
        self.paused = True
        try:
            self._until(lambda: not self._queue.stats().in_work, "workers are still busy")
            pages = self._client.pages(NAMESPACES)
            namespaces = [read_namespace(item) for page in pages for item in page.items]
            before = self._guard.epoch
            if before is not None and before.file == self.config.digest:
                self._record(before, namespaces)
            found = unproven(config, before, namespaces, self._ledger.entry)
            yield found
            after = self._guard.epoch
            self.config = config if after is None else config.retiring(after.former)
            self._set_right(n for n in namespaces if n.uid in found.labels)
        finally:
            self.paused = False
            self._taken()

    def _record(self, before: Epoch, namespaces: Iterable[Namespace]) -> None:
        vouched = settled(
            self.config, lambda n: self._proven(n, before.file), namespaces, self._ledger.entry
        )
        for uid, entry in vouched.items():
            self._ledger.submit(uid, entry)
        self._until(lambda: self._ledger.idle, "the record could not be written")

    def _set_right(self, namespaces: Iterable[Namespace]) -> None:
        """Labels that lie, before policies that select them are written."""
        for namespace in namespaces:
            if self.config.label_key not in namespace.labels:
                continue
            try:
                self._reconcile(namespace)
            except NotFound:
                continue
            except RingfenceError as error:
                event(
                    LOG,
                    "not_synchronized",
                    logging.WARNING,
                    namespace=namespace.name,
                    problem=str(error),
                )

    @staticmethod
    def _until(holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise NotHandedOver(f"the tenant file is not in force yet: {what}")
            time.sleep(POLL_SECONDS)
