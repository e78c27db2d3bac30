"""Mutate rules with targets: brings existing objects to what the rules make of them.

Idempotent: an object that is as the rule wants it is not written. A rule whose patch says nothing
about the trigger is run once for all triggers that it fits, and only on targets that have changed
since: otherwise a policy that labels namespaces would compare each of them with each other.
A patch that changes an object every time it runs is stopped.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from generators.documents.json import Key, ObjectKey, ObjectKind, Value, object_key_of
from generators.kube.errors import KubeError
from generators.kube.resources import Resource
from generators.kyverno.engine import Environment, TargetChange, mutate_existing
from generators.kyverno.failures import NotAllowed
from generators.kyverno.language import wildcards
from generators.kyverno.model import Document
from generators.kyverno.requests import Lookups, PolicyRequest
from generators.kyverno.results import RuleOutcome
from webhook.background.caches import Caches
from webhook.background.needs import RuleName
from webhook.background.rules import Existing
from webhook.background.stored import StoredObject
from webhook.background.writer import ObjectWriter, Wrote

MOST_CHANGES = 5
QUIET_SECONDS = 60.0
"""The rule skips an object for this long after changing it more often than that within it."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a rule: its targets, and a failure after which it has to run again."""

    targets: Mapping[ObjectKey | None, str] = field(default_factory=dict)
    """The problem of each target examined, empty if none; key None: of the rule itself."""
    failure: KubeError | None = None


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """Lookups that list only those targets which have to be looked at and may be written."""

    inner: Lookups
    protected: frozenset[str]
    documents: Sequence[Document] | None = None
    """Everything that there is, where it is known already."""

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        return self.inner.namespace_labels(namespace)

    def find(self, key: ObjectKey) -> Document | None:
        return self.inner.find(key)

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        found = self.documents
        if found is None:
            found = self.inner.list(kind, namespace)
        return [
            document
            for document in found
            if _is(kind, (key := object_key_of(document)).kind)
            and wildcards.matches(namespace or "*", key.namespace)
            and (key.name if key.kind.kind == "Namespace" else key.namespace) not in self.protected
        ]

    def get(self, path: str) -> Value:
        return self.inner.get(path)


def _is(pattern: ObjectKind, kind: ObjectKind) -> bool:
    return (
        wildcards.matches(pattern.group, kind.group)
        and wildcards.matches(pattern.version, kind.version)
        and pattern.kind == kind.kind
    )


class Targets:
    """Safe for several threads on different rules."""

    def __init__(self, caches: Caches, writer: ObjectWriter) -> None:
        self._caches = caches
        self._writer = writer
        self._lock = threading.Lock()
        self._judged: dict[RuleName, dict[tuple[Resource, Key], StoredObject]] = defaultdict(dict)
        self._changes: dict[tuple[RuleName, ObjectKey], list[float]] = {}

    def forget(self) -> None:
        """Policies changed: every target is looked at again."""
        with self._lock:
            self._judged.clear()
            self._changes.clear()

    def run(
        self,
        existing: Existing,
        request: PolicyRequest,
        environment: Environment,
        wrote: list[Wrote],
    ) -> Ran:
        """One rule for one trigger; protected namespaces are never among its targets.

        `wrote` gets every target that was changed, also when this ends with an exception.
        """
        lookups = environment.lookups
        if not isinstance(lookups, _Narrowed):
            lookups = _Narrowed(lookups, environment.limits.protected)
        policy = replace(existing.policy, rules=(existing.rule,))
        open_only = replace(environment, lookups=lookups)
        return self._carry_out(existing, mutate_existing([policy], request, open_only), wrote)

    def sweep(
        self,
        existing: Existing,
        request: PolicyRequest,
        environment: Environment,
        resources: frozenset[Resource],
        wrote: list[Wrote],
    ) -> Ran:
        """One rule that does the same for each trigger, on the targets that changed."""
        with self._lock:
            judged = dict(self._judged[existing.name])
        fresh = {
            (resource, key): kept
            for resource in resources
            for key, kept in self._caches.triggers(resource).items()
            if (known := judged.get((resource, key))) is None
            or known.version != kept.version
            or known.uid != kept.uid
        }
        if not fresh:
            return Ran()
        documents = [kept.document() for kept in fresh.values() if not kept.terminating]
        protected = environment.limits.protected
        lookups = _Narrowed(environment.lookups, protected, documents)
        ran = self.run(existing, request, replace(environment, lookups=lookups), wrote)
        if ran.failure is None:
            with self._lock:
                # The body is not needed again; what was judged is told by UID and version.
                bare = {place: replace(kept, body=b"") for place, kept in fresh.items()}
                self._judged[existing.name] |= bare
        return ran

    def _carry_out(
        self, existing: Existing, changes: Sequence[TargetChange], wrote: list[Wrote]
    ) -> Ran:
        found: dict[ObjectKey | None, str] = {}
        failure: KubeError | None = None
        for change in changes:
            failed = change.result.outcome is RuleOutcome.ERROR
            found[change.result.target] = change.result.message if failed else ""
            if change.after is None:
                continue
            try:
                wrote.append(self._change(existing, change.before, change.after))
            except NotAllowed as refusal:
                found[change.result.target] = str(refusal)
            except KubeError as error:
                failure = error
        return Ran(found, failure)

    def _change(self, existing: Existing, before: Document, after: Document) -> Wrote:
        key = object_key_of(after)
        resource = self._caches.followed(key.kind.group, key.kind.kind)
        if resource is None:
            raise NotAllowed(f"{key.kind} is not followed")
        if self._restless(existing.name, key):
            raise NotAllowed(
                f"{key} changes each time the rule runs, or something changes it back; "
                f"the rule skips it for {QUIET_SECONDS:.0f} s"
            )
        done = self._writer.change(existing.policy.namespace, resource, before, after)
        return Wrote(existing.name, key, done)

    def _restless(self, name: RuleName, key: ObjectKey) -> bool:
        now = time.monotonic()
        with self._lock:
            recent = [t for t in self._changes.get((name, key), ()) if now - t < QUIET_SECONDS]
            if len(recent) >= MOST_CHANGES:
                return True
            self._changes[name, key] = [*recent, now]
            return False
