"""Events on namespaces and policies: what happened and why, for `kubectl events -n NAME`.

Only what users should know: a label restored, a policy repaired or taken over, a move, a policy
without room. Sending one is best effort; a tenant that causes trouble in a loop gets one Event per
reason and minute.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from secrets import token_hex

from generators.documents.json import Document, Key
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.resources import EVENTS
from generators.objects import Namespace
from generators.process.logs import event

QUIET_SECONDS = 60.0
LONGEST_NOTE = 1024
REMEMBERED = 10_000


class Severity(StrEnum):
    """The two types of Events."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class EventSubject:
    """What an Event is about."""

    api_version: str
    kind: str
    key: Key
    uid: str

    @property
    def home(self) -> str:
        """The namespace of its Events: that of the subject, or `default`."""
        if self.kind == "Namespace":
            return self.key.name
        return self.key.namespace or "default"


class Recorder:
    """Sends Events as one reporting instance of a controller, `ringfence.io/NAME`."""

    def __init__(self, client: Client, name: str, instance: str) -> None:
        self._client = client
        self._name = name
        self._instance = instance
        self._log = logging.getLogger(f"ringfence.{name}")
        self._lock = threading.Lock()
        self._sent: dict[tuple[str, str], float] = {}

    def tell(self, namespace: Namespace, reason: str, severity: Severity, note: str) -> bool:
        """Log it, and put an Event into the namespace; False: it was sent within the last
        minute."""
        event(
            self._log,
            "namespace_event",
            logging.WARNING if severity is Severity.WARNING else logging.INFO,
            namespace=namespace.name,
            reason=reason,
            note=note,
        )
        subject = EventSubject("v1", "Namespace", Key("", namespace.name), namespace.uid)
        return self.tell_about(subject, reason, severity, note)

    def tell_about(self, subject: EventSubject, reason: str, severity: Severity, note: str) -> bool:
        """Put an Event about any object into its namespace; False: sent within the last minute."""
        if not self._due(subject.uid, reason):
            return False
        try:
            self._client.create(
                EVENTS, self._document(subject, reason, severity, note), manager="ringfence"
            )
        except RingfenceError as error:
            event(self._log, "event_not_sent", logging.WARNING, problem=str(error))
        return True

    def _due(self, uid: str, reason: str) -> bool:
        now = time.monotonic()
        with self._lock:
            last = self._sent.get((uid, reason))
            if last is not None and now - last < QUIET_SECONDS:
                return False
            if len(self._sent) >= REMEMBERED:
                self._sent.clear()
            self._sent[uid, reason] = now
            return True

    def _document(
        self, subject: EventSubject, reason: str, severity: Severity, note: str
    ) -> Document:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"ringfence-{token_hex(8)}", "namespace": subject.home},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": severity.value,
            "reason": reason,
            "action": "Synchronize",
            "note": note[:LONGEST_NOTE],
            "reportingController": f"ringfence.io/{self._name}",
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "name": subject.key.name,
                # The API wants the namespace of what an Event is about to be the Event's own.
                "namespace": subject.home,
                "uid": subject.uid,
            },
        }
