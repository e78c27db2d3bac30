"""Policies from the cluster: a live copy of its ClusterPolicy and Policy objects.

Called by the policy book. An object that cannot be read is refused by name, and what it said before
stays in force. Without the kyverno.io kinds there are no policies, which is said loudly and asked
again every few seconds: they may be installed later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from generators.errors import InputError
from generators.kube.client import Client
from generators.kube.documents import Document, mapping, meta_of
from generators.kube.queue import Backoff
from generators.kube.reflector import Reflector, ReflectorStats, Timing
from generators.kube.resources import CLUSTER_POLICIES, POLICIES, Key, Resource
from generators.kyverno.loading import policy_from
from generators.kyverno.model import Policy
from generators.objects import Origin

TIMING = Timing(backoff=Backoff(first=0.5, longest=5.0))


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """One ClusterPolicy or Policy of the cluster."""

    name: str
    """As users write it: `name` or `namespace/name`."""
    uid: str
    generation: int
    fingerprint: str
    policy: Policy | None
    """What is in force of it: as it is now, or as it was before it became unreadable."""
    problem: str = ""
    since: int = field(default=0, compare=False)
    """resourceVersion when it was first seen like this."""


class PolicyReader:
    """`reduce` of the reflectors: parses a policy once, however often its status is written."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._known: dict[Key, PolicyObject] = {}

    def __call__(self, document: Document) -> PolicyObject:
        """The policy, or why it cannot be one."""
        meta = meta_of(document)
        fingerprint = hashlib.sha256(
            orjson.dumps(mapping(document, "spec"), option=orjson.OPT_SORT_KEYS)
        ).hexdigest()
        before = self._known.get(meta.key)
        if before is not None and (before.uid, before.generation, before.fingerprint) == (
            meta.uid,
            meta.generation,
            fingerprint,
        ):
            return before
        policy: Policy | None = None
        problem = ""
        named: Document = {
            "apiVersion": self._resource.api_version,
            "kind": self._resource.kind,
            **{key: document[key] for key in ("metadata", "spec") if key in document},
        }
        try:
            policy = policy_from(named, Origin(f"{self._resource.kind} {meta.key}", 1))
        except InputError as error:
            problem = str(error)
            same = before is not None and before.uid == meta.uid
            policy = before.policy if before is not None and same else None
        version = meta.resource_version
        made = PolicyObject(
            str(meta.key),
            meta.uid,
            meta.generation,
            fingerprint,
            policy,
            problem,
            int(version) if version.isdigit() else 0,
        )
        self._known[meta.key] = made
        return made


class PolicyObjects:
    """Follows both kinds; `changed` is called from the watch threads."""

    def __init__(self, client: Client, changed: Callable[[Key], None]) -> None:
        self._reflectors = tuple(
            Reflector(client, resource, PolicyReader(resource), changed, timing=TIMING)
            for resource in (CLUSTER_POLICIES, POLICIES)
        )

    def start(self) -> None:
        """Begin to follow."""
        for reflector in self._reflectors:
            reflector.start()

    def stop(self) -> None:
        """End both threads."""
        for reflector in self._reflectors:
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether every policy of the cluster is known."""
        return all(reflector.synced for reflector in self._reflectors)

    @property
    def objects(self) -> tuple[PolicyObject, ...]:
        """All policies, by name."""
        found = [o for r in self._reflectors for o in r.store.snapshot().values()]
        return tuple(sorted(found, key=lambda each: each.name))

    def stats(self) -> tuple[ReflectorStats, ...]:
        """How following goes."""
        return tuple(reflector.stats() for reflector in self._reflectors)

    def lines(self) -> list[str]:
        """For /readyz: a kind that is not served holds no policies, and is no reason to fail."""
        return [line for stats in self.stats() if (line := _line(stats))]


def _line(stats: ReflectorStats) -> str:
    if stats.last_error == "NotFound":
        how = "start the controller with --install-policy-crds or install them"
        return f"[!]{stats.resource}: the API server does not serve this kind; {how}"
    if stats.forbidden:
        mark = "[!]" if stats.synced else "[-]"
        return f"{mark}{stats.resource}: the API server forbids to follow it"
    if not stats.synced:
        return f"[-]{stats.resource}: not synced"
    if not stats.connected:
        age = stats.last_event_age
        return f"[!]{stats.resource}: no word from the API server for {age:.0f} s"
    return ""
