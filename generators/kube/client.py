"""Requests to an API server: plain documents in and out, refusals as errors of one tree.

Safe to share between threads. Every write names who writes (`field_manager`); a write that must
not happen twice or to another object than the one that was looked at carries preconditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Self

import orjson

from generators.documents.json import Document, key_of, mapping, resource_version_of, text
from generators.kube import config
from generators.kube.errors import ApiStatus, Fenced, ServerFailed, Unauthorized
from generators.kube.resources import Resource
from generators.kube.transport import ApiRequest, Bounds, Transport

PAGE = 500
DEFAULT_AGENT = "ringfence"


class OnConflict(Enum):
    """What server-side apply does about a field that another manager owns."""

    FAIL = "fail"
    FORCE = "force"


class PatchKind(StrEnum):
    """The content types of PATCH; apply has a method of its own."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class DryRun(Enum):
    """Whether the API server is to persist what it decides."""

    NO = "no"
    ALL = "All"


class Propagation(StrEnum):
    """What happens to the objects that the deleted one owns."""

    BACKGROUND = "Background"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What must still be true of an object for it to be deleted; empty fields are not asked."""

    uid: str = ""
    resource_version: str = ""

    def document(self) -> Document:
        """As DeleteOptions write it."""
        pairs = {"uid": self.uid, "resourceVersion": self.resource_version}
        return {key: value for key, value in pairs.items() if value}


@dataclass(frozen=True, slots=True)
class WatchScope:
    """Which objects of a resource a list or watch is about; the default is all of them."""

    namespace: str = ""
    labels: str = ""
    """A label selector, e.g. `app.kubernetes.io/managed-by=ringfence`."""
    fields: str = ""
    """A field selector, e.g. `spec.nodeName=worker-1`."""

    def query(self) -> dict[str, str]:
        """The selectors as query parameters."""
        pairs = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in pairs.items() if value}


EVERYTHING = WatchScope()


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list's objects, and the point in history that the whole list is of."""

    items: Sequence[Document]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Version:
    """The API server's release."""

    major: int
    minor: int
    release: str

    def at_least(self, major: int, minor: int) -> bool:
        """Whether it is that release or a later one."""
        return (self.major, self.minor) >= (major, minor)


class Client:
    """One identity at one API server."""

    def __init__(self, transport: Transport, may_write: Callable[[], bool] = lambda: True) -> None:
        self._transport = transport
        self._may_write = may_write

    @classmethod
    def connect(
        cls, kubeconfig: config.ApiServer = None, *, user_agent: str = DEFAULT_AGENT
    ) -> Self:
        """By what was asked for, or as `config.find` finds it; sends nothing yet."""
        return cls(Transport(config.find(kubeconfig), user_agent))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fenced(self, may_write: Callable[[], bool]) -> Client:
        """The same identity and connections; writes raise Fenced while `may_write` says no."""
        return Client(self._transport, may_write)

    @property
    def origin(self) -> str:
        """The API server's address, for messages."""
        return self._transport.access.origin

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    # --- reading --------------------------------------------------------------------------------

    def version(self) -> Version:
        """The API server's release, as `kubectl version` prints it."""
        document = self._send(ApiRequest("GET", "/version"))
        major, minor = (_leading_digits(text(document, key)) for key in ("major", "minor"))
        return Version(major, minor, text(document, "gitVersion"))

    def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        """One object."""
        return self._send(ApiRequest("GET", resource.path(namespace, name)))

    def read(
        self, path: str, query: Mapping[str, str] | None = None, *, bounds: Bounds | None = None
    ) -> Document:
        """The answer to a GET of any path, such as those of discovery; TooMuch beyond `bounds`."""
        return self._send(ApiRequest("GET", path, query or {}, bounds=bounds))

    def list_all(self, resource: Resource, scope: WatchScope = EVERYTHING) -> list[Document]:
        """All objects, as of one moment."""
        return [item for page in self.pages(resource, scope) for item in page.items]

    def pages(
        self, resource: Resource, scope: WatchScope = EVERYTHING, *, limit: int = PAGE
    ) -> Iterator[Page]:
        """All objects, page by page, so that never more than `limit` are in memory undigested.

        Raises Gone when the list takes so long that its moment is forgotten; start again then.
        """
        query = scope.query() | {"limit": str(limit)}
        while True:
            path = resource.path(scope.namespace)
            document = self._send(ApiRequest("GET", path, query))
            yield Page(_items(document, resource), resource_version_of(document))
            token = text(mapping(document, "metadata"), "continue")
            if not token:
                return
            query = query | {"continue": token}

    def watch(self, resource: Resource, scope: WatchScope, query: Mapping[str, str]) -> Watch:
        """Changes from now on, or from `query`'s resourceVersion on; not yet open."""
        parameters = scope.query() | {"watch": "true"} | dict(query)
        return Watch(self._transport, ApiRequest("GET", resource.path(scope.namespace), parameters))

    # --- writing --------------------------------------------------------------------------------

    def create(
        self, resource: Resource, document: Document, *, manager: str, dry_run: DryRun = DryRun.NO
    ) -> Document:
        """A new object; AlreadyExists when there is one of that name."""
        path = resource.path(key_of(document).namespace)
        return self._write("POST", path, _query(manager, dry_run), document)

    def update(
        self, resource: Resource, document: Document, *, manager: str, subresource: str = ""
    ) -> Document:
        """Replace the object; Conflict unless its resourceVersion is the one in the document."""
        key = key_of(document)
        path = resource.path(key.namespace, key.name, subresource)
        return self._write("PUT", path, _query(manager), document)

    def apply(
        self,
        resource: Resource,
        document: Document,
        *,
        manager: str,
        on_conflict: OnConflict = OnConflict.FAIL,
        dry_run: DryRun = DryRun.NO,
        subresource: str = "",
    ) -> Document:
        """Server-side apply: `manager` wants exactly the fields of the document."""
        key = key_of(document)
        query = _query(manager, dry_run)
        if on_conflict is OnConflict.FORCE:
            query["force"] = "true"
        named: Document = {"apiVersion": resource.api_version, "kind": resource.kind} | document
        path = resource.path(key.namespace, key.name, subresource)
        # JSON is YAML, and the only one of the two that every server version takes here.
        return self._write("PATCH", path, query, named, "application/apply-patch+yaml")

    def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Document | list[Document],
        *,
        kind: PatchKind,
        manager: str,
        subresource: str = "",
        dry_run: DryRun = DryRun.NO,
    ) -> Document:
        """Change parts of an object; a JSON patch may carry its own `test` operations."""
        path = resource.path(namespace, name, subresource)
        return self._write("PATCH", path, _query(manager, dry_run), patch, kind.value)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        only_if: Preconditions | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
        grace_seconds: int | None = None,
    ) -> None:
        """Remove an object; Conflict when it is not the one of the preconditions.

        `grace_seconds` of a Pod: 0 means that it no longer runs anywhere.
        """
        options: Document = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation.value,
        }
        if only_if is not None and (wanted := only_if.document()):
            options["preconditions"] = wanted
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self._write("DELETE", resource.path(namespace, name), {}, options)

    # --- inside ---------------------------------------------------------------------------------

    def _write(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | list[Document],
        content_type: str = "application/json",
    ) -> Document:
        request = ApiRequest(method, path, query, orjson.dumps(body), content_type)
        if not self._may_write():
            raise Fenced(str(request), ApiStatus(message="another process leads"))
        return self._send(request)

    def _send(self, request: ApiRequest) -> Document:
        return _decoded(self._transport.send(request), str(request))


class Watch:
    """An open-ended answer: one event a line. `abort` may come from another thread."""

    def __init__(self, transport: Transport, request: ApiRequest) -> None:
        self._transport = transport
        self._access = transport.access
        self._stream = transport.stream(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def open(self, silence: float) -> None:
        """Send the request; raises what the API server answers instead of a watch."""
        try:
            self._stream.open(silence)
        except Unauthorized:
            # The next watch goes out with new credentials; this connection is spent.
            self._transport.reload(self._access)
            raise

    def events(self) -> Iterator[tuple[str, Document]]:
        """(type, object), type being ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""
        for line in self._stream.lines():
            event = _decoded(line, "watch")
            item = event.get("object")
            yield text(event, "type"), item if isinstance(item, dict) else {}

    def silence_allowed(self, seconds: float) -> None:
        """How long nothing may come from now on before `events` raises Silent."""
        self._stream.silence_allowed(seconds)

    def abort(self) -> None:
        """End it at once."""
        self._stream.abort()


def _query(manager: str, dry_run: DryRun = DryRun.NO) -> dict[str, str]:
    query = {"fieldManager": manager}
    if dry_run is DryRun.ALL:
        query["dryRun"] = dry_run.value
    return query


def _items(document: Document, resource: Resource) -> list[Document]:
    """A list's items, given the kind that lists leave out."""
    items = document.get("items")
    named: Document = {"apiVersion": resource.api_version, "kind": resource.kind}
    if not isinstance(items, list):
        return []
    return [named | item for item in items if isinstance(item, dict)]


def _leading_digits(words: str) -> int:
    """Some distributions answer `34+`."""
    digits = words[: len(words) - len(words.lstrip("0123456789"))]
    return int(digits or "0")


def _decoded(body: bytes, request: str) -> Document:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        status = ApiStatus(message=f"the answer is not JSON ({error}); is this an API server?")
        raise ServerFailed(request, status) from error
    return document if isinstance(document, dict) else {}
