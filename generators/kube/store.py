"""The copy of a resource that a reflector keeps: values by key, read by many threads.

Written by `reflector.py` only. Each write returns whether it changed anything, so that equal
objects wake no worker, even when everything is listed again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from generators.documents.json import Key

T = TypeVar("T")


class Store(Generic[T]):
    """Values by namespace and name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._namespaces: dict[str, dict[str, T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def get(self, key: Key) -> T | None:
        """The value; None if there is no such object."""
        with self._lock:
            return self._namespaces.get(key.namespace, {}).get(key.name)

    def in_namespace(self, namespace: str) -> dict[str, T]:
        """Values of one namespace by name."""
        with self._lock:
            return dict(self._namespaces.get(namespace, {}))

    def snapshot(self) -> dict[Key, T]:
        """All values, as of one moment."""
        with self._lock:
            return {
                Key(namespace, name): value
                for namespace, values in self._namespaces.items()
                for name, value in values.items()
            }

    def put(self, key: Key, value: T) -> bool:
        """Store a value; whether it differs from what was there."""
        with self._lock:
            values = self._namespaces.setdefault(key.namespace, {})
            known = key.name in values
            if known and values[key.name] == value:
                return False
            values[key.name] = value
            self._size += not known
            return True

    def remove(self, key: Key) -> bool:
        """Forget a key; whether it was known."""
        with self._lock:
            values = self._namespaces.get(key.namespace, {})
            if key.name not in values:
                return False
            del values[key.name]
            if not values:
                del self._namespaces[key.namespace]
            self._size -= 1
            return True

    def replace(self, values: Mapping[Key, T]) -> list[Key]:
        """Take over a whole list at once; the keys that are new, different or gone."""
        fresh: dict[str, dict[str, T]] = {}
        for key, value in values.items():
            fresh.setdefault(key.namespace, {})[key.name] = value
        with self._lock:
            before, self._namespaces, self._size = self._namespaces, fresh, len(values)
        return list(_differences(before, fresh))


def _differences(
    before: Mapping[str, Mapping[str, T]], after: Mapping[str, Mapping[str, T]]
) -> Iterable[Key]:
    for namespace in before.keys() | after.keys():
        old, new = before.get(namespace, {}), after.get(namespace, {})
        for name in old.keys() | new.keys():
            if name not in old or name not in new or old[name] != new[name]:
                yield Key(namespace, name)
