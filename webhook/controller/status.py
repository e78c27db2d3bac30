"""ConfigMap `ringfence-status`: which tenant file is in force, and how far the cluster follows it.

For people and scripts (`kubectl get configmap -n ringfence-system ringfence-status -o yaml`).
Written by the leader when it says something new; it names no process, so that a restart with
nothing to do writes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from generators.isolation.record import RecordEntry
from generators.kube.client import Client
from generators.kube.resources import CONFIG_MAPS
from webhook.kept import ALLOWED_KINDS, STATUS_NAME, KeptObject

NAMED = 100
"""How many namespaces in quarantine are listed."""
IDLE_SECONDS = 1.0
BUSY_SECONDS = 10.0
"""How often the page may change: while there is nothing to do, and while there is."""
LOOK_SECONDS = 10.0
"""How often it is read back, to notice edits."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What is reported; `problem` is why a newer tenant file is not in force."""

    digest: str
    synchronized: bool
    """Every namespace has been brought to what the file in force says."""
    tenants: Mapping[str, int]
    namespaces: int
    problem: str = ""
    policies: str = ""
    """What is in force of Kyverno policies; empty without `--policies`."""
    allowed_kinds: tuple[str, ...] = ()
    """What they may write beside the usual kinds."""
    webhook: str = ""
    """Why the API server cannot call the webhook."""
    undecided: Mapping[str, str] = field(default_factory=dict)
    """Namespaces in quarantine, and why."""

    def data(self, generation: int) -> dict[str, str]:
        """As ConfigMap data."""
        return {
            "configDigest": self.digest,
            "configGeneration": str(generation),
            "synchronized": "true" if self.synchronized else "false",
            "namespaces": str(self.namespaces),
            "tenants": orjson.dumps(dict(sorted(self.tenants.items()))).decode(),
            "problem": self.problem,
            **({"policies": self.policies} if self.policies else {}),
            **({ALLOWED_KINDS: kinds} if (kinds := " ".join(self.allowed_kinds)) else {}),
            **({"webhook": self.webhook} if self.webhook else {}),
            **({"undecided": _listed(self.undecided)} if self.undecided else {}),
        }


def _listed(undecided: Mapping[str, str]) -> str:
    """One line a namespace, the first of them: a ConfigMap has an end."""
    lines = [f"{name}: {why}" for name, why in sorted(undecided.items())]
    more = len(lines) - NAMED
    return "\n".join([*lines[:NAMED], *([f"and {more} more"] if more > 0 else [])])


def count(entries: Iterable[RecordEntry]) -> Mapping[str, int]:
    """Namespaces by tenant."""
    return Counter(entry.tenant for entry in entries)


class StatusPage:
    """Writes the ConfigMap; one thread calls it."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._kept = KeptObject(client, CONFIG_MAPS, namespace, STATUS_NAME)
        self._said: ClusterStatus | None = None
        self._done = ""
        self._looked_at = self._read_at = 0.0

    def forget(self) -> None:
        """Leading begins: another writer may have changed it. Reported at once if nothing is to be
        done."""
        self._said = None
        self._looked_at = time.monotonic() - IDLE_SECONDS

    def begin_anew(self) -> None:
        """Every namespace has to be looked at again."""
        self._done = ""

    def due(self, digest: str, idle: bool) -> bool:
        """Whether it is time to report; `idle`: every namespace has been brought to what
        the tenant file of that digest says."""
        if idle:
            self._done = digest
        now = time.monotonic()
        if now - self._looked_at < (IDLE_SECONDS if idle else BUSY_SECONDS):
            return False
        self._looked_at = now
        return True

    def synchronized(self, digest: str) -> bool:
        """Whether every namespace has been brought to that file."""
        return self._done == digest

    def say(self, status: ClusterStatus) -> None:
        """Write it if it says something else."""
        now = time.monotonic()
        if status == self._said and now - self._read_at < LOOK_SECONDS:
            return
        self._read_at = now
        live = self._kept.read()
        past = live.data.get("configGeneration", "0")
        same = live.data.get("configDigest") == status.digest
        generation = (int(past) if past.isdigit() else 0) + (not same)
        self._kept.write(status.data(generation), live)
        self._said = status
