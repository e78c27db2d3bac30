"""Follows a kind for as long as its CustomResourceDefinition is there.

`ServedKind` is used like a reflector, and its owner calls `follow` whenever it was woken: only then
a copy begins or ends. That the API server answers 404 proves nothing, as it may have just started;
the definition does: it goes only after the last of its objects has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from generators.documents.json import Document, Key, mapping, mappings, text
from generators.kube.client import EVERYTHING, Client, WatchScope
from generators.kube.queue import Backoff
from generators.kube.reflector import Reflector, ReflectorStats, Timing
from generators.kube.resources import CUSTOM_RESOURCES, Resource
from generators.kube.store import Store

T = TypeVar("T")
TIMING = Timing(backoff=Backoff(first=0.2, longest=5.0))
"""A new kind is not served at once."""


class ServedKind(Generic[T]):
    """See the module. `reader` turns an object into a value; `changed` is told keys from the watch
    threads, and None when the definition changed.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        reader: Callable[[Document], T | None],
        changed: Callable[[Key | None], None],
        *,
        scope: WatchScope = EVERYTHING,
        timing: Timing | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._reader = reader
        self._changed = changed
        self._scope = scope
        self._timing = timing or TIMING
        self._definition: Reflector[str] = Reflector(
            client,
            CUSTOM_RESOURCES,
            lambda document: _established(document, resource.version),
            lambda _: changed(None),
            scope=WatchScope(fields=f"metadata.name={resource}"),
            timing=timing,
        )
        self._of = ""
        """UID of the definition that the copy is of."""
        self._looked = False
        self._copy: Reflector[T] | None = None
        self._empty: Store[T] = Store()

    def start(self) -> None:
        """Begin; returns at once."""
        self._definition.start()

    def stop(self) -> None:
        """End all threads."""
        self._definition.stop()
        if self._copy is not None:
            self._copy.stop()

    def follow(self, *, wanted: bool = True) -> None:
        """Begin or end the copy by what the definition is now; one thread calls it.

        The keys of a copy that ends are told as changed.
        """
        if not self._definition.synced:
            return
        self._looked = True
        found = self._definition.store.get(Key("", str(self._resource)))
        uid = found or "" if wanted else ""
        if uid == self._of:
            return
        ended, self._copy, self._of = self._copy, None, uid
        if uid:
            self._copy = Reflector(
                self._client,
                self._resource,
                self._reader,
                self._changed,
                scope=self._scope,
                timing=self._timing,
            )
            self._copy.start()
        if ended is not None:
            ended.stop(timeout=0)
            for key in ended.store.snapshot():
                self._changed(key)

    @property
    def served(self) -> bool:
        """Whether it is followed."""
        return self._copy is not None

    @property
    def store(self) -> Store[T]:
        """What there is; nothing where the kind is not served."""
        return self._copy.store if self._copy is not None else self._empty

    @property
    def synced(self) -> bool:
        """Whether it is known that the kind is not served, or all of its objects are."""
        return self._looked and (self._copy is None or self._copy.synced)

    def stats(self) -> ReflectorStats:
        """How it is doing: the copy, or without one the definition under the kind's own name."""
        if self._copy is not None:
            return self._copy.stats()
        found = self._definition.stats()
        return replace(found, resource=str(self._resource), objects=0)


def _established(document: Document, version: str) -> str | None:
    """The UID of a definition whose kind is served in a version."""
    spec, status = mapping(document, "spec"), mapping(document, "status")
    served = any(
        text(item, "name") == version and item.get("served") is True
        for item in mappings(spec, "versions")
    )
    ready = any(
        text(item, "type") == "Established" and text(item, "status") == "True"
        for item in mappings(status, "conditions")
    )
    return text(mapping(document, "metadata"), "uid") if served and ready else None
