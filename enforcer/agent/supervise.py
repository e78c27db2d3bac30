"""Work of a thread beside the agent's loop: an error is reported and never kills the thread.

The CNI keepers and the watcher of interfaces do each step of theirs through a `Supervised`. A fault
is reported once, in the log and in the agent's status, and the step is retried.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable

from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")
STOP_SECONDS = 0.5
"""How soon a thread that waits for messages notices that it is to end."""

Report = Callable[[str, str], None]
"""Called with the part that cannot work and why; empty once it can again."""


class Supervised:
    """One part of the agent's process; for one thread at a time."""

    def __init__(self, name: str, trouble: str, report: Report) -> None:
        self._name = name
        self._trouble = trouble
        """What it means for the node when the part does not work."""
        self._report = report
        self._failure = ""

    @property
    def failed(self) -> bool:
        """Whether the last step went wrong."""
        return bool(self._failure)

    def attempt(self, step: Callable[[], object]) -> None:
        """Do one step; report whatever goes wrong."""
        failure = ""
        try:
            step()
        except Exception as error:
            why = str(error) or type(error).__name__
            failure = f"{self._trouble}: {why}"
        if failure == self._failure:
            return
        self._failure = failure
        if failure:
            event(log, "part_failed", logging.ERROR, part=self._name, error=failure)
        self._report(self._name, failure)

    def heed(
        self, messages: socket.socket, step: Callable[[], object], stop: threading.Event
    ) -> None:
        """Do a step for each message until stopped, and again where one failed; then close."""
        with messages:
            while not stop.is_set():
                readable, _, _ = select.select([messages], [], [], STOP_SECONDS)
                if readable or self.failed:
                    self.attempt(step)
                if self.failed:
                    stop.wait(STOP_SECONDS)
