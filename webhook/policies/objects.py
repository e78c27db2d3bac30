"""Policies from the cluster: a live copy of its ClusterPolicy and Policy objects.

Called by the policy book. An object that cannot be read is refused by name, and what it said before
stays in force. Without the kyverno.io kinds there are no policies, which is logged and checked
again every few seconds: they may be installed later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import orjson

from generators.checks import Check, Level, bridged
from generators.documents.json import Document, Key, mapping, meta_of
from generators.errors import InputError
from generators.kube.client import Client
from generators.kube.copies import Copies, check_of
from generators.kube.queue import Backoff
from generators.kube.reflector import Reflector, ReflectorStats, Timing
from generators.kube.resources import CLUSTER_POLICIES, POLICIES, Resource
from generators.kyverno.model import Policy
from generators.kyverno.offline.loading import policy_from
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


class ClusterPolicyReader:
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


class PolicyObjects(Copies):
    """Follows both kinds; `changed` is called from the watch threads."""

    def __init__(self, client: Client, changed: Callable[[Key], None]) -> None:
        self._reflectors = tuple(
            Reflector(client, resource, ClusterPolicyReader(resource), changed, timing=TIMING)
            for resource in (CLUSTER_POLICIES, POLICIES)
        )

    def reflectors(self) -> tuple[Reflector[PolicyObject], ...]:
        """One a kind."""
        return self._reflectors

    @property
    def objects(self) -> tuple[PolicyObject, ...]:
        """All policies, by name."""
        found = [o for r in self._reflectors for o in r.store.snapshot().values()]
        return tuple(sorted(found, key=lambda each: each.name))

    def checks(self) -> list[Check]:
        """For /readyz: a kind that is not served holds no policies, and is no reason to fail; nor
        is one that was known once."""
        return [check for stats in self.stats() if (check := _check(stats)) is not None]


def _check(stats: ReflectorStats) -> Check | None:
    if stats.last_error == "NotFound":
        how = "start the controller with --install-policy-crds or install them"
        return bridged(stats.resource, f"the API server does not serve this kind; {how}")
    found = check_of(stats)
    return replace(found, level=Level.BRIDGED) if found is not None and stats.synced else found
