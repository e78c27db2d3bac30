"""Policies of kinds that an API server serves and this agent does not read: it says so.

Cilium's policies are enforced from files only. Where Cilium runs they are its own business; where
only their kinds are served, nobody enforces them, and whoever writes one has to know.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.discovery import Discovery
from generators.kube.resources import Resource
from generators.objects import PolicyKind
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")
GROUP, VERSION = "cilium.io", "v2"
KINDS = (PolicyKind.CILIUM, PolicyKind.CILIUM_CLUSTERWIDE)
OF_CILIUM_ITSELF = "CiliumNode"
"""Served where Cilium is installed."""
EVERY = 60.0
"""Seconds between two looks."""


class Finds(Protocol):
    """Says whether a kind is served."""

    def find(self, group: str, version: str, kind: str) -> Resource | None:
        """The resource; None: it is not."""


def unread(discovery: Finds) -> str:
    """What to say of the kinds that are served; empty where there is nothing to say."""
    served = [kind.value for kind in KINDS if discovery.find(GROUP, VERSION, kind.value)]
    if not served or discovery.find(GROUP, VERSION, OF_CILIUM_ITSELF):
        return ""
    return (
        f"the API server serves {' and '.join(served)}, and nothing on this node enforces them: "
        "agents read these kinds from files only; write NetworkPolicies, or remove their CRDs"
    )


class UnreadKinds:
    """Looks now and then, in a thread of its own; `said` is the last answer."""

    def __init__(self, client: Client) -> None:
        self.said = ""
        self._discovery = Discovery(client)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unread-kinds", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._discovery.forget()
                found = unread(self._discovery)
            except RingfenceError:
                found = self.said  # the reflectors tell that the API server is away
            if found and found != self.said:
                event(log, "policies_not_read", logging.WARNING, why=found)
            self.said = found
            self._stopping.wait(EVERY)
