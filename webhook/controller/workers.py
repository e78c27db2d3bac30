"""What the controller's workers do with the name of a namespace: bring it to what it should be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from generators.kube.errors import KubeError, NotFound, Unavailable
from generators.process.logs import event

LOG = logging.getLogger("ringfence.controller")


@dataclass(frozen=True, slots=True)
class NamespaceWork:
    """For `Workers`."""

    may_work: Callable[[], bool]
    reconcile: Callable[[str], None]
    count: Callable[[Exception], None]

    def run(self, namespace: str) -> None:
        """Reconcile one namespace; if it is deleted meanwhile, the watch reports that."""
        try:
            self.reconcile(namespace)
        except NotFound:
            return

    def failed(self, namespace: str, error: Exception) -> None:
        """Count it."""
        if not isinstance(error, KubeError):
            LOG.error("reconcile_defect namespace=%s", namespace, exc_info=error)
        self.count(error)

    def delayed(self, namespace: str, error: Exception, seconds: float) -> None:
        """Log it."""
        level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
        event(
            LOG,
            "not_synchronized",
            level,
            namespace=namespace,
            problem=str(error),
            retry_in=seconds,
        )
