"""A watch that is replayed: an API server's events out of a generator, without a network.

`Replayed` is a client whose watches a bench feeds. Events are bytes as they come from a socket, so
that decoding is part of what is measured. A resource without events is empty and synced.
"""

from __future__ import annotations

import queue
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus

import orjson

from generators.documents.json import Document, key_of, mapping, text
from generators.kube.client import Client, Watch, WatchScope
from generators.kube.errors import ApiStatus, NotFound
from generators.kube.reflector import END_MARK
from generators.kube.resources import Resource
from generators.kube.transport import Bounds

MARK = (
    b'{"type":"BOOKMARK","object":{"metadata":{"annotations":{"%s":"true"}}}}' % END_MARK.encode()
)


class Replayed(Client):
    """Answers watches only; `first` are the objects that are there already, by resource."""

    def __init__(self, first: Mapping[Resource, Iterable[bytes]]) -> None:
        self._first = dict(first)
        self._later: dict[Resource, queue.SimpleQueue[bytes | None]] = defaultdict(
            queue.SimpleQueue
        )
        self._named: dict[tuple[Resource, str], queue.SimpleQueue[bytes | None]] = defaultdict(
            queue.SimpleQueue
        )

    @property
    def origin(self) -> str:
        """For messages."""
        return "replay"

    def close(self) -> None:
        """Nothing is open."""

    def read(
        self, path: str, query: Mapping[str, str] | None = None, *, bounds: Bounds | None = None
    ) -> Document:
        """No kinds beside the known ones are served."""
        raise NotFound(f"GET {path}", ApiStatus(HTTPStatus.NOT_FOUND))

    def watch(self, resource: Resource, scope: WatchScope, query: Mapping[str, str]) -> Watch:
        """The first state once, then what `send` brings; for one name what is of that name."""
        if name := scope.fields.removeprefix("metadata.name="):
            first = [
                (key_of(orjson.loads(o)).name == name, o) for o in self._first.get(resource, ())
            ]
            self._first[resource] = [one for it_is, one in first if not it_is]
            found = [one for it_is, one in first if it_is]
            return _Events(found, self._named[resource, name])
        return _Events(self._first.pop(resource, ()), self._later[resource])

    def send(self, resource: Resource, kind: str, document: Document) -> None:
        """One more event."""
        self._named[resource, key_of(document).name].put(event(kind, orjson.dumps(document)))
        self._later[resource].put(event(kind, orjson.dumps(document)))


class _Events(Watch):
    def __init__(self, first: Iterable[bytes], later: queue.SimpleQueue[bytes | None]) -> None:
        self._objects = first
        self._later = later

    def __enter__(self) -> _Events:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def open(self, silence: float) -> None:
        """Nothing to wait for."""

    def events(self) -> Iterator[tuple[str, Document]]:
        for document in self._objects:
            yield _decoded(event("ADDED", document))
        yield _decoded(MARK)
        while (line := self._later.get()) is not None:
            yield _decoded(line)

    def silence_allowed(self, seconds: float) -> None:
        """It is silent as long as it likes."""

    def abort(self) -> None:
        self._later.put(None)


def event(kind: str, document: bytes) -> bytes:
    """A line of a watch."""
    return b'{"type":"%s","object":%s}' % (kind.encode(), document)


def _decoded(line: bytes) -> tuple[str, Document]:
    found = orjson.loads(line)
    return text(found, "type"), dict(mapping(found, "object"))
