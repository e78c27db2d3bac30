"""Reports that the cluster's policies are left to Kyverno, and when they no longer are.

Called by the controller's loop while it leads: an Event in the system namespace, a line of the log.
Metric, /readyz and ConfigMap `ringfence-status` say the same for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Callable

from generators.kube.events import Recorder, Severity
from generators.objects import Namespace
from webhook.policies.book import PolicyBook

LEFT = "PoliciesLeftToKyverno"
TAKEN = "PoliciesTakenOver"


class StandingBack:
    """One thread calls it."""

    def __init__(
        self, book: PolicyBook, recorder: Recorder, home: Callable[[], Namespace | None]
    ) -> None:
        """`home`: the system namespace, where Events go."""
        self._book = book
        self._recorder = recorder
        self._home = home
        self._told = ""

    def step(self) -> None:
        """Report what is new."""
        if not self._book.settled:
            return
        why = self._book.current.standing_back
        home = self._home()
        if why == self._told or home is None:
            return
        if why:
            note = f"policies of the cluster are not carried out: {why}"
            self._recorder.tell(home, LEFT, Severity.WARNING, note)
        else:
            note = "Kyverno no longer executes the cluster's policies: Ringfence does"
            self._recorder.tell(home, TAKEN, Severity.NORMAL, note)
        self._told = why
