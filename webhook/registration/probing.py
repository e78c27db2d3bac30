"""Whether the API server can call the webhook, asked of the API server itself.

Only the API server can tell: the Service, the network policy in between, the CA and the certificate
all have to fit. A dry run tries to label a namespace with a tenant that cannot exist, which must be
refused. The guard runs it before it trusts labels, `controller verify` once, and a leader every
PROBE_SECONDS, for /readyz and the metric.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from generators.documents.json import Document
from generators.errors import RingfenceError
from generators.kube.client import Client, DryRun, PatchKind
from generators.kube.errors import Forbidden, ServerFailed
from generators.kube.resources import NAMESPACES
from generators.process.logs import event
from webhook.review import TENANT_FILE
from webhook.settings import FIELD_MANAGER

LOG = logging.getLogger("ringfence.controller")
PROBE = "default"
"""A namespace that every cluster has; it is only ever touched by a dry run."""
PROBE_TENANT = "Ringfence_Probe"
"""A label value that no tenant can be called."""
PROBE_SECONDS = 10.0
LABEL_PASSED = "admission let a label through that it must refuse"
NOT_CALLED = "failed calling webhook"
"""How the API server begins when it could not call one that has to be asked."""


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What the API server answered; `files`: digests by which the webhook decided, if it did."""

    message: str
    files: frozenset[str]

    @property
    def problem(self) -> str:
        """Why the webhook cannot be called; empty when it answered, or was not asked."""
        return self.message if NOT_CALLED in self.message and not self.files else ""

    @property
    def asked(self) -> bool:
        """Whether it says anything about the webhook: RBAC refuses before admission is asked."""
        return " cannot patch resource " not in self.message


def refusal(client: Client, label_key: str) -> ProbeAnswer | None:
    """Have the API server refuse a label in a dry run; None: it let the label pass."""
    labels: Document = {label_key: PROBE_TENANT}
    try:
        client.patch(
            NAMESPACES,
            PROBE,
            "",
            {"metadata": {"labels": labels}},
            kind=PatchKind.MERGE,
            manager=FIELD_MANAGER,
            dry_run=DryRun.ALL,
        )
    except (Forbidden, ServerFailed) as error:
        status = error.status
        decided = frozenset(c.message for c in status.causes if c.reason == TENANT_FILE)
        return ProbeAnswer(status.message, decided)
    return None


class Prober:
    """Probes periodically in its own thread, so that a webhook that hangs delays nothing else."""

    def __init__(self, client: Client, label_key: Callable[[], str | None]) -> None:
        self._client = client
        self._label_key = label_key
        """None: it is not this process's turn to ask."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook-probe", daemon=True)
        self.problem: str | None = None
        """Empty: the webhook answers; None: not asked."""

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Stop probing."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            before, self.problem = self.problem, self._ask()
            if self.problem and self.problem != before:
                event(LOG, "webhook_not_called", logging.ERROR, problem=self.problem)
            elif before and self.problem == "":
                event(LOG, "webhook_called_again")
            self._ended.wait(PROBE_SECONDS)

    def _ask(self) -> str | None:
        key = self._label_key()
        if key is None:
            return None
        try:
            found = refusal(self._client, key)
        except RingfenceError:
            # The API server itself is away, which the caches tell.
            return None
        return LABEL_PASSED if found is None else found.problem
