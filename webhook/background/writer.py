"""The choke point: everything that policies write passes through here and is checked here.

What the engine has checked is checked again on the finished object. New objects are created, never
merged into one that is there already; objects that differ are replaced in place, by exactly the
version that was looked at, because apply would leave what others added. What the API server adds or
rewrites by itself is learned from its answers, a rule at a time, and never fought: a replacement
that changes nothing is no write for it either. Policies cannot write what tenancy rests on.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import orjson

from generators.documents.json import Document as Raw
from generators.documents.json import (
    ObjectKey,
    Path,
    Value,
    annotations_of,
    labels_of,
    mapping,
    mappings,
    meta_of,
    object_key_of,
    text,
)
from generators.kube.client import Client, OnConflict, PatchKind, Preconditions
from generators.kube.discovery import Discovery
from generators.kube.errors import AlreadyExists, ApiStatus, Conflict, Invalid, NotFound
from generators.kube.resources import Resource
from generators.kyverno.failures import NotAllowed
from generators.kyverno.generation import WantedObject
from generators.kyverno.limits import Limits, check_write
from generators.kyverno.model import Document
from generators.kyverno.ownership import KYVERNO, Mark, labels, mark_of, notes
from generators.labels import MANAGED_BY, MANAGER, POLICY_LABEL
from webhook.background.index import GeneratedEntry, name_of
from webhook.background.needs import RuleName
from webhook.background.stored import GeneratedObject, bare_document, raw
from webhook.settings import FIELD_MANAGER

MOST_LEARNED = 2_000
OWN_PREFIX = "ringfence.io/"

Difference = tuple[Path, bytes, bytes]


class Done(StrEnum):
    """What came of a step."""

    KEPT = "Keep"
    CREATED = "Create"
    UPDATED = "Update"
    TAKEN_OVER = "TakeOver"
    DELETED = "Delete"


@dataclass(frozen=True, slots=True)
class Wrote:
    """An object that a rule made or changed."""

    rule: RuleName
    key: ObjectKey
    done: Done


@dataclass(frozen=True, slots=True)
class Protection:
    """What policies may not touch."""

    limits: Limits
    label_keys: frozenset[str]
    """Labels of namespaces that the tenant file decides."""


class ObjectWriter:
    """Safe for several threads on different objects."""

    def __init__(
        self,
        client: Client,
        discovery: Discovery,
        tenancy: Callable[[], Protection],
    ) -> None:
        self._client = client
        self._discovery = discovery
        self._tenancy = tenancy
        self._lock = threading.Lock()
        self._learned: dict[tuple[str, str], set[Difference]] = defaultdict(set)

    def forget(self) -> None:
        """Policies changed: what the API server does to their objects is learned again."""
        with self._lock:
            self._learned.clear()

    # --- generated objects ----------------------------------------------------------------------

    def ensure(
        self, policy_namespace: str, wanted: WantedObject, present: GeneratedObject | None
    ) -> Done:
        """Create the object, or update it to what is wanted."""
        check_write(self._tenancy().limits, policy_namespace, wanted.key)
        resource = self._resource(policy_namespace, wanted)
        if present is None:
            return self._create(policy_namespace, resource, wanted)
        _check_taking_over(policy_namespace, wanted, present.mark)
        if not wanted.synchronize:
            return self._release(resource, wanted, present)
        return self._restore(policy_namespace, resource, wanted, present)

    def _resource(self, policy_namespace: str, wanted: WantedObject) -> Resource:
        kind = wanted.key.kind
        found = self._discovery.find(kind.group, kind.version, kind.kind)
        if found is None:
            raise NotAllowed(f"the API server does not serve {kind}")
        limits = self._tenancy().limits
        if not found.namespaced and limits.kinds is not None and kind.kind == "Namespace":
            raise NotAllowed("policies label namespaces, they do not make them")
        _check_scope(policy_namespace, found)
        return found

    def _create(self, policy_namespace: str, resource: Resource, wanted: WantedObject) -> Done:
        try:
            answer = self._client.create(resource, raw(wanted.document), manager=FIELD_MANAGER)
        except AlreadyExists:
            return self._meet(policy_namespace, resource, wanted)
        self._learn(wanted, bare_document(answer))
        return Done.CREATED

    def _meet(self, policy_namespace: str, resource: Resource, wanted: WantedObject) -> Done:
        """An object of that name exists: one of ours that no watch has shown yet, or not ours."""
        live = self._client.get(resource, wanted.key.name, wanted.key.namespace)
        meta = meta_of(live)
        mark = mark_of(bare_document(live))
        if not wanted.synchronize:
            return Done.KEPT
        _check_taking_over(policy_namespace, wanted, mark)
        if mark is not None and name_of(mark.owner.trigger) != name_of(wanted.owner.trigger):
            # Whose it stays is decided once the watch has told of it.
            why = ApiStatus(message=f"it was made for {mark.owner.trigger} a moment ago")
            raise Conflict(f"POST {wanted.key}", why)
        isolates = meta.labels.get(MANAGED_BY) == MANAGER
        if isolates and not meta.labels.get(POLICY_LABEL, "").startswith(KYVERNO):
            raise NotAllowed(f"{wanted.key} belongs to the tenant file; choose another name")
        done = self._replace(resource, wanted, live)
        return done if mark is not None or done is Done.KEPT else Done.TAKEN_OVER

    def _restore(
        self,
        policy_namespace: str,
        resource: Resource,
        wanted: WantedObject,
        present: GeneratedObject,
    ) -> Done:
        different = set(differences(wanted.document, present.document()))
        with self._lock:
            if different <= self._learned[wanted.owner.policy, wanted.owner.rule]:
                return Done.KEPT
        try:
            live = self._client.get(resource, wanted.key.name, wanted.key.namespace)
        except NotFound:
            return self._create(policy_namespace, resource, wanted)
        return self._replace(resource, wanted, live)

    def _replace(self, resource: Resource, wanted: WantedObject, live: Raw) -> Done:
        if wanted.server_side:
            answer = self._client.apply(
                resource,
                raw(wanted.document),
                manager=FIELD_MANAGER,
                on_conflict=OnConflict.FORCE,
            )
        else:
            body = _laid_over(live, wanted.document)
            answer = self._client.update(resource, body, manager=FIELD_MANAGER)
        self._learn(wanted, bare_document(answer))
        if meta_of(answer).resource_version == meta_of(live).resource_version:
            return Done.KEPT
        return Done.UPDATED

    def _release(self, resource: Resource, wanted: WantedObject, present: GeneratedObject) -> Done:
        """The rule no longer synchronizes: mark the object so; from now on users own it."""
        mark = wanted.mark
        gone: Raw = {MANAGED_BY: None} if MANAGED_BY in labels_of(present.document()) else {}
        metadata: Raw = {
            "uid": present.uid,
            "labels": {**gone, **labels(mark)},
            "annotations": {**notes(mark, (wanted.key.namespace, wanted.key.name))},
        }
        self._client.patch(
            resource,
            wanted.key.name,
            wanted.key.namespace,
            {"metadata": metadata},
            kind=PatchKind.MERGE,
            manager=FIELD_MANAGER,
        )
        return Done.UPDATED

    def _learn(self, wanted: WantedObject, answer: Document) -> None:
        found = set(differences(wanted.document, answer))
        with self._lock:
            known = self._learned[wanted.owner.policy, wanted.owner.rule]
            if len(known) + len(found) > MOST_LEARNED:
                known.clear()
            known |= found

    def delete(self, policy_namespace: str, found: GeneratedEntry) -> Done:
        """Remove exactly the object that was looked at."""
        document = found.item.document()
        check_write(self._tenancy().limits, policy_namespace, object_key_of(document))
        _check_scope(policy_namespace, found.resource)
        try:
            self._client.delete(
                found.resource,
                found.key.name,
                found.key.namespace,
                only_if=Preconditions(found.item.uid, found.item.version),
            )
        except NotFound:
            return Done.KEPT
        return Done.DELETED

    # --- existing objects -----------------------------------------------------------------------

    def change(
        self, policy_namespace: str, resource: Resource, before: Document, after: Document
    ) -> Done:
        """Bring an existing object from what was looked at to what a mutate rule made of it."""
        from jsonpatch import make_patch

        key = object_key_of(after)
        tenancy = self._tenancy()
        check_write(tenancy.limits, policy_namespace, key)
        _check_scope(policy_namespace, resource)
        check_change(tenancy, before, after)
        live = self._client.get(resource, key.name, key.namespace)
        seen = bare_document(live)
        if seen != before:
            why = ApiStatus(message="it changed since the rule looked at it")
            raise Conflict(f"PATCH {key}", why)
        version = meta_of(live).resource_version
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            *make_patch(before, after),
        ]
        try:
            self._client.patch(
                resource, key.name, key.namespace, patch, kind=PatchKind.JSON, manager=FIELD_MANAGER
            )
        except Invalid as error:
            if "testing" in str(error):
                raise Conflict(error.request, error.status) from error
            raise
        return Done.UPDATED


def _check_scope(policy_namespace: str, resource: Resource) -> None:
    """What discovery says of a kind counts; a namespace that is written on it does not."""
    if policy_namespace and not resource.namespaced:
        raise NotAllowed(
            f"{resource.kind} objects are in no namespace, and a Policy of namespace "
            f"{policy_namespace} writes in its own only; make it a ClusterPolicy"
        )


def _check_taking_over(policy_namespace: str, wanted: WantedObject, mark: Mark | None) -> None:
    """A namespaced Policy replaces only what one of its namespace made: others may outrank it."""
    theirs = mark is not None and mark.owner.policy.startswith(f"{policy_namespace}/")
    if policy_namespace and not theirs:
        raise NotAllowed(
            f"{wanted.key} is there, and no Policy of namespace {policy_namespace} made it; "
            "choose another name, or make it a ClusterPolicy"
        )


def check_change(tenancy: Protection, before: Document, after: Document) -> None:
    """NotAllowed when a mutate rule touches what tenancy rests on."""
    key = object_key_of(after)
    old, new = labels_of(before), labels_of(after)
    if old.get(MANAGED_BY) == MANAGER and old.get(POLICY_LABEL):
        raise NotAllowed(f"{key} is generated; change the rule that makes it")
    touched = {k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
    notes_before, notes_after = annotations_of(before), annotations_of(after)
    touched |= {
        k
        for k in notes_before.keys() | notes_after.keys()
        if notes_before.get(k) != notes_after.get(k) and k.startswith(OWN_PREFIX)
    }
    own = {k for k in touched if k.startswith(OWN_PREFIX)}
    if key.kind.kind == "Namespace":
        own |= touched & tenancy.label_keys
        rest_before = {k: v for k, v in before.items() if k != "metadata"}
        rest_after = {k: v for k, v in after.items() if k != "metadata"}
        meta = [
            {k: v for k, v in mapping(d, "metadata").items() if k not in ("labels", "annotations")}
            for d in (before, after)
        ]
        if rest_before != rest_after or meta[0] != meta[1]:
            raise NotAllowed(f"{key}: policies change labels and annotations of namespaces only")
    if own:
        named = ", ".join(sorted(own))
        raise NotAllowed(f"{key}: policies may not change {named}; the tenant file decides")


# --- comparing ----------------------------------------------------------------------------------


def differences(desired: Document, live: Document) -> Iterator[Difference]:
    """Where the live object says something else, more or less than is desired.

    To the letter: `ingress: [{}]` lets everybody in, and no `ingress` nobody.
    """
    left = {k: v for k, v in desired.items() if k not in ("metadata", "status")}
    right = {k: v for k, v in live.items() if k not in ("metadata", "status")}
    yield from _different((), left, right)
    wanted, found = mapping(desired, "metadata"), mapping(live, "metadata")
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        yield from _different(("metadata", field), wanted.get(field), found.get(field))


def _different(path: Path, desired: Value, live: Value) -> Iterator[Difference]:
    if isinstance(desired, dict) and isinstance(live, dict):
        for key in sorted(desired.keys() | live.keys()):
            yield from _different((*path, key), desired.get(key), live.get(key))
    elif isinstance(desired, list) and isinstance(live, list) and len(desired) == len(live):
        for index, (one, other) in enumerate(zip(desired, live, strict=True)):
            yield from _different((*path, index), one, other)
    elif desired != live or isinstance(desired, bool) is not isinstance(live, bool):
        yield path, orjson.dumps(desired), orjson.dumps(live)


def _laid_over(live: Raw, desired: Document) -> Raw:
    """The desired object in place of the live one: of the old, only what others wrote on it."""
    metadata = {k: v for k, v in mapping(live, "metadata").items() if k != "managedFields"}
    wanted = mapping(desired, "metadata")
    for field in ("labels", "annotations"):
        ours = _written_by_us(live, field)
        kept = {
            key: value
            for key, value in mapping(metadata, field).items()
            if key not in ours and not key.startswith(OWN_PREFIX) and key != MANAGED_BY
        }
        metadata[field] = kept | mapping(wanted, field)
    for field in ("finalizers", "ownerReferences"):
        if field in wanted:
            metadata[field] = wanted[field]
    body = {k: v for k, v in desired.items() if k not in ("metadata", "status")}
    status: Raw = {"status": live["status"]} if "status" in live else {}
    return {**body, "metadata": metadata, **status}


def _written_by_us(live: Raw, field: str) -> set[str]:
    """Labels or annotations that this field manager has set."""
    found = set()
    for entry in mappings(mapping(live, "metadata"), "managedFields"):
        if text(entry, "manager") == FIELD_MANAGER:
            inside = mapping(mapping(entry, "fieldsV1"), "f:metadata")
            found |= {key[2:] for key in mapping(inside, f"f:{field}") if key[:2] == "f:"}
    return found
