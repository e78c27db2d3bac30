"""Follows the kinds that the policies in force name, and answers the lookups of their rules.

Reflectors come and go with the policies; one kind is followed once, however many policies need it.
Objects that policies have made are followed by their label alone. What no reflector holds (a
ConfigMap of a rule's context, an allowed path) is asked of the API server and kept for a few
seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from generators.documents.json import (
    Key,
    ObjectKey,
    ObjectKind,
    Value,
    copied,
    copy,
    labels_of,
    meta_of,
    value_of,
)
from generators.errors import RingfenceError
from generators.kube.client import Client, WatchScope
from generators.kube.copies import Copies
from generators.kube.discovery import Discovery
from generators.kube.errors import NotFound
from generators.kube.reflector import Reflector
from generators.kube.resources import NAMESPACES, Resource
from generators.kube.transport import Bounds
from generators.kyverno.failures import LookupFailed
from generators.kyverno.language import wildcards
from generators.kyverno.model import Document
from generators.labels import POLICY_LABEL
from webhook.background.needs import Needs
from webhook.background.stored import GeneratedObject, StoredObject, bare_document, keep, keep_made

ANSWER_SECONDS = 3.0
REMEMBERED = 1_000
_BOUNDS = Bounds(10.0, 16 << 20)
"""Of what rules read by path: a worker waits for it."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", StoredObject, GeneratedObject)


@dataclass(frozen=True, slots=True)
class CacheListeners:
    """Callbacks for changes; all quick, called from the watch threads."""

    trigger: Callable[[Resource, Key], None]
    made: Callable[[Resource, Key], None]
    source: Callable[[Resource, Key], None]


class Caches(Copies):
    """`follow` what is needed, `stop`; reads from any thread."""

    def __init__(self, client: Client, discovery: Discovery, told: CacheListeners) -> None:
        self._client = client
        self._discovery = discovery
        self._told = told
        self._lock = threading.Lock()
        self._objects: dict[Resource, Reflector[StoredObject]] = {}
        self._sources: dict[tuple[Resource, str], Reflector[StoredObject]] = {}
        self._made: dict[Resource, Reflector[GeneratedObject]] = {}
        self._answers: dict[str, tuple[float, Document | None]] = {}

    # --- following ------------------------------------------------------------------------------

    def follow(self, needs: Needs, made: frozenset[Resource]) -> None:
        """Follow exactly this from now on; `made`: kinds of which policies have made objects."""
        objects = needs.triggers | needs.targets | {NAMESPACES}
        sources = {s for s in needs.sources if s[0] not in objects}
        with self._lock:
            ended: list[Reflector[StoredObject] | Reflector[GeneratedObject]] = [
                *_dropped(self._objects, objects),
                *_dropped(self._sources, sources),
                *_dropped(self._made, made),
            ]
            for resource in sorted(objects - self._objects.keys(), key=str):
                self._objects[resource] = self._follow_objects(resource)
            for resource, namespace in sorted(sources - self._sources.keys(), key=str):
                self._sources[resource, namespace] = self._follow_source(resource, namespace)
            for resource in sorted(made - self._made.keys(), key=str):
                self._made[resource] = self._follow_made(resource)
        for reflector in ended:
            threading.Thread(target=reflector.stop, daemon=True).start()

    def _follow_objects(self, resource: Resource) -> Reflector[StoredObject]:
        def changed(key: Key) -> None:
            self._told.trigger(resource, key)
            self._told.source(resource, key)

        reflector = Reflector(self._client, resource, keep, changed)
        reflector.start()
        return reflector

    def _follow_source(self, resource: Resource, namespace: str) -> Reflector[StoredObject]:
        def changed(key: Key) -> None:
            self._told.source(resource, key)

        scope = WatchScope(namespace=namespace)
        reflector = Reflector(self._client, resource, keep, changed, scope=scope)
        reflector.start()
        return reflector

    def _follow_made(self, resource: Resource) -> Reflector[GeneratedObject]:
        def changed(key: Key) -> None:
            self._told.made(resource, key)

        scope = WatchScope(labels=POLICY_LABEL)
        reflector = Reflector(self._client, resource, keep_made, changed, scope=scope)
        reflector.start()
        return reflector

    def reflectors(self) -> list[Reflector[StoredObject] | Reflector[GeneratedObject]]:
        """Those of whole kinds first."""
        with self._lock:
            objects = [*self._objects.values(), *self._sources.values()]
            return [*objects, *self._made.values()]

    # --- what is there --------------------------------------------------------------------------

    def trigger(self, resource: Resource, key: Key) -> StoredObject | None:
        """A followed object."""
        with self._lock:
            reflector = self._objects.get(resource)
        return reflector.store.get(key) if reflector is not None else None

    def triggers(self, resource: Resource) -> Mapping[Key, StoredObject]:
        """All objects of a followed kind."""
        with self._lock:
            reflector = self._objects.get(resource)
        return reflector.store.snapshot() if reflector is not None else {}

    def followed(self, group: str, kind: str) -> Resource | None:
        """The resource under which objects of that group and kind are followed."""
        with self._lock:
            return next((r for r in self._objects if (r.group, r.kind) == (group, kind)), None)

    def made(self, resource: Resource, key: Key) -> GeneratedObject | None:
        """An object that a policy made."""
        with self._lock:
            reflector = self._made.get(resource)
        return reflector.store.get(key) if reflector is not None else None

    def made_named(self, wanted: ObjectKey) -> GeneratedObject | None:
        """The same, by the name that rules use."""
        kind = wanted.kind
        with self._lock:
            found = [r for r in self._made if (r.group, r.kind) == (kind.group, kind.kind)]
        key = Key(wanted.namespace, wanted.name)
        return next((item for r in found if (item := self.made(r, key)) is not None), None)

    def counts_of_made(self) -> dict[Resource, int]:
        """How many objects there are of each kind that policies made."""
        with self._lock:
            return {resource: len(r.store) for resource, r in self._made.items() if r.synced}

    def holding(self, kind: ObjectKind, namespace: str) -> Iterator[Reflector[StoredObject]]:
        """The reflectors that know all objects of a kind and namespace."""
        wanted = (kind.group, kind.version, kind.kind)
        with self._lock:
            objects = list(self._objects.items())
            sources = list(self._sources.items())
        for resource, reflector in objects:
            if (resource.group, resource.version, resource.kind) == wanted:
                yield reflector
        for (resource, home), reflector in sources:
            same = (resource.group, resource.version, resource.kind) == wanted
            if same and home in ("", namespace):
                yield reflector

    # --- lookups of rules -----------------------------------------------------------------------

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace; a failure is one, never the same as no labels."""
        found = self.find(ObjectKey(ObjectKind("", "v1", "Namespace"), "", namespace))
        if found is None:
            raise LookupFailed(f"namespace {namespace} is not there")
        return labels_of(found)

    def find(self, key: ObjectKey) -> Document | None:
        """One object, from a cache where one holds it."""
        for reflector in self.holding(key.kind, key.namespace):
            if not reflector.synced:
                raise LookupFailed(f"{key}: objects of this kind are not known yet")
            kept = reflector.store.get(Key(key.namespace, key.name))
            return kept.document() if kept is not None else None
        resource = self._resource(key.kind)
        return self._asked(resource.path(key.namespace, key.name))

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        """All objects of a kind; the namespace may hold wildcards, the group too."""
        exact = self._exact(kind)
        for reflector in self.holding(exact, namespace):
            if not reflector.synced:
                raise LookupFailed(f"objects of {kind} are not known yet")
            return [
                kept.document()
                for key, kept in sorted(reflector.store.snapshot().items())
                if wildcards.matches(namespace or "*", key.namespace)
            ]
        resource = self._resource(exact)
        home = "" if wildcards.has_wildcard(namespace) else namespace
        try:
            found = self._client.list_all(resource, WatchScope(namespace=home))
        except RingfenceError as error:
            raise LookupFailed(str(error)) from error
        return [
            bare_document(item)
            for item in found
            if wildcards.matches(namespace or "*", meta_of(item).key.namespace)
        ]

    def get(self, path: str) -> Value:
        """The answer to a GET of a path that the guard has let through."""
        found = self._asked(path)
        if found is None:
            raise LookupFailed(f"GET {path}: not found")
        return copy(found)

    def _exact(self, kind: ObjectKind) -> ObjectKind:
        if not wildcards.has_wildcard(kind.group + kind.version):
            return kind
        found = self._discovery.matching(
            lambda group: wildcards.matches(kind.group, group),
            lambda version: wildcards.matches(kind.version, version),
            lambda name: name == kind.kind,
        )
        if not found:
            raise LookupFailed(f"the API server serves no kind {kind.kind}")
        return ObjectKind(found[0].group, found[0].version, found[0].kind)

    def _resource(self, kind: ObjectKind) -> Resource:
        try:
            found = self._discovery.find(kind.group, kind.version, kind.kind)
        except RingfenceError as error:
            raise LookupFailed(str(error)) from error
        if found is None:
            raise LookupFailed(f"the API server does not serve {kind}")
        return found

    def _asked(self, path: str) -> Document | None:
        now = time.monotonic()
        with self._lock:
            asked, known = self._answers.get(path, (-ANSWER_SECONDS, None))
        if now - asked < ANSWER_SECONDS:
            return copied(known) if known is not None else None
        bare, _, query = path.partition("?")
        try:
            found = value_of(self._client.read(bare, dict(parse_qsl(query)), bounds=_BOUNDS))
            answer = found if isinstance(found, dict) else None
        except NotFound:
            answer = None
        except (RingfenceError, TypeError) as error:
            raise LookupFailed(str(error)) from error
        with self._lock:
            # What is too old to be given again is not kept either: an answer may be large.
            self._answers = {
                key: each for key, each in self._answers.items() if now - each[0] < ANSWER_SECONDS
            }
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            self._answers[path] = (now, answer)
        return copied(answer) if answer is not None else None


def _dropped(kept: dict[K, Reflector[V]], wanted: Collection[K]) -> list[Reflector[V]]:
    return [kept.pop(key) for key in list(kept) if key not in wanted]
