"""What policies read while a request is being admitted: from live copies, not from the API server.

Called by the policy desk. Copies are begun when the policies in force need them and ended when none
does. A copy that is not complete is a failed lookup, never an empty answer. Two reads go to the API
server: a namespace that the copy does not know yet, and `apiCall`; both wait no longer than the
request may.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from generators.checks import Check, Level, bridged
from generators.documents import json as documents
from generators.documents.json import (
    Key,
    ObjectKey,
    ObjectKind,
    Value,
    copied,
    mapping,
    meta_of,
    strings,
    value_of,
)
from generators.errors import RingfenceError
from generators.kube.client import EVERYTHING, Client, WatchScope
from generators.kube.copies import Copies
from generators.kube.reflector import Reflector
from generators.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    NAMESPACES,
    ROLE_BINDINGS,
    Resource,
)
from generators.kube.transport import Bounds
from generators.kyverno.failures import LookupFailed
from generators.kyverno.model import Document
from generators.kyverno.usage import Usage
from generators.tenants.assignment import Requester
from webhook.policies.roles import Binding, BindingIndex, Roles, read_binding

READERS = 4
WAITING = 16
"""Reads that may wait for a reader; more fail at once."""
CALL_SECONDS = 2.0
"""How long one read may keep a request."""
_BOUNDS = Bounds(CALL_SECONDS, 16 << 20)


def read_config_map(document: documents.Document) -> Document:
    """The ConfigMap as policies see it."""
    meta = meta_of(document)
    kept = {key: value for key, value in document.items() if key in ("data", "binaryData")}
    known: Document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": meta.key.name,
            "namespace": meta.key.namespace,
            "labels": {**meta.labels},
            "annotations": {**meta.annotations},
        },
    }
    return known | {key: value_of(value) for key, value in kept.items()}


def _labels(document: documents.Document) -> dict[str, str]:
    return strings(mapping(document, "metadata"), "labels")


def _nobody(_: Key) -> None:
    """Admission reads when a request comes; changes need not wake it."""


@dataclass(slots=True)
class _Copies(Copies):
    """The live copies that are followed now."""

    namespaces: Reflector[dict[str, str]] | None = None
    bindings: tuple[Reflector[Binding], ...] = ()
    config_maps: dict[str, Reflector[Document]] = field(default_factory=dict)

    def reflectors(
        self,
    ) -> tuple[Reflector[dict[str, str]] | Reflector[Binding] | Reflector[Document], ...]:
        first = () if self.namespaces is None else (self.namespaces,)
        return (*first, *self.bindings, *self.config_maps.values())


class AdmissionLookups:
    """Lookups at one API server; without a client every one of them fails."""

    def __init__(self, client: Client | None) -> None:
        self._client = client
        self._copies = _Copies()
        self._usage = Usage()
        self._index = BindingIndex()
        self._lock = threading.Lock()
        self._readers: ThreadPoolExecutor | None = None
        self._free = threading.Semaphore(READERS + WAITING)

    def follow(self, wanted: Usage) -> None:
        """Begin and end copies, so that they are what the policies in force need."""
        client = self._client
        with self._lock:
            if wanted == self._usage:
                return
            before, self._usage = self._copies, wanted
            if client is None:
                # Who asks all the same gets a failure: not to know is not the same as no.
                return
            self._copies = copies = _Copies(before.namespaces, before.bindings)
            if wanted.namespaces and copies.namespaces is None:
                copies.namespaces = Reflector(client, NAMESPACES, _labels, _nobody)
                copies.namespaces.start()
            if wanted.roles and not copies.bindings:
                copies.bindings = tuple(
                    _bindings(client, resource, self._index)
                    for resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
                )
            for home in sorted(wanted.config_maps):
                copies.config_maps[home] = before.config_maps.get(home) or _config_maps(
                    client, home
                )
        for home in before.config_maps.keys() - wanted.config_maps:
            before.config_maps[home].stop()

    def stop(self) -> None:
        """End everything."""
        self._copies.stop()
        if self._readers is not None:
            self._readers.shutdown(wait=False, cancel_futures=True)

    @property
    def synced(self) -> bool:
        """Whether everything that policies read is known."""
        return self._copies.synced

    def checks(self) -> list[Check]:
        """For /readyz: what policies could not read now."""
        return [
            bridged(f"{check.subject}, for policies", check.text)
            for check in self._copies.checks()
            if check.level is Level.FAILED
        ]

    def roles(self, requester: Requester) -> Roles:
        """The requester's roles; LookupFailed when they are not known."""
        copies = self._copies
        if not self._usage.roles:
            return Roles()
        if not copies.bindings or not all(r.synced for r in copies.bindings):
            raise LookupFailed("who has which roles is not known yet")
        return self._index.roles_of(requester)

    # --- generators.kyverno.requests.Lookups ----------------------------------------------------

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace, from the copy; of one that is minutes young, by a GET."""
        copy = self._copies.namespaces
        if copy is not None and copy.synced:
            known = copy.store.get(Key("", namespace))
            if known is not None:
                return known
        path = NAMESPACES.path("", namespace)
        return _labels(self._bounded(lambda c: c.read(path, bounds=_BOUNDS), namespace))

    def find(self, key: ObjectKey) -> Document | None:
        """A ConfigMap; nothing else is looked up while a request waits."""
        if key.kind != ObjectKind("", "v1", "ConfigMap"):
            raise LookupFailed(f"{key} is not looked up while a request is admitted")
        copies = self._copies.config_maps
        copy = copies.get(key.namespace) or copies.get("")
        if copy is None or not copy.synced:
            raise LookupFailed(f"the ConfigMaps of namespace {key.namespace} are not known yet")
        found = copy.store.get(Key(key.namespace, key.name))
        return None if found is None else copied(found)

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        """Objects are listed in the background only."""
        raise LookupFailed(f"{kind.kind} objects are not listed while a request is admitted")

    def get(self, path: str) -> Value:
        """The API server's answer; the guard has let the path pass."""
        plain, _, query = path.partition("?")
        asked = dict(parse_qsl(query))
        answer = self._bounded(lambda c: c.read(plain, asked, bounds=_BOUNDS), path)
        try:
            return value_of(answer)
        except TypeError as error:
            raise LookupFailed(f"{path}: {error}") from None

    def _bounded(
        self, ask: Callable[[Client], documents.Document], what: str
    ) -> documents.Document:
        if self._client is None:
            raise LookupFailed(f"{what}: no API server; give --kubeconfig")
        client = self._client
        if not self._free.acquire(blocking=False):
            raise LookupFailed(f"{what}: too many reads for policies at once")
        try:
            answer: Future[documents.Document] = self._pool().submit(lambda: ask(client))
        except RuntimeError:
            self._free.release()
            raise LookupFailed(f"{what}: the webhook is stopping") from None
        answer.add_done_callback(lambda _: self._free.release())
        try:
            return answer.result(CALL_SECONDS)
        except TimeoutError:
            answer.cancel()
            raise LookupFailed(f"{what}: no answer within {CALL_SECONDS:g} s") from None
        except CancelledError:
            raise LookupFailed(f"{what}: the webhook is stopping") from None
        except RingfenceError as error:
            raise LookupFailed(f"{what}: {error}") from None

    def _pool(self) -> ThreadPoolExecutor:
        """Made when first needed: threads do not survive the server's fork."""
        with self._lock:
            if self._readers is None:
                self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="policy-reads")
            return self._readers


def _bindings(client: Client, resource: Resource, index: BindingIndex) -> Reflector[Binding]:
    def changed(key: Key) -> None:
        index.note(key, reflector.store.get(key))

    reflector = Reflector(client, resource, read_binding, changed)
    reflector.start()
    return reflector


def _config_maps(client: Client, namespace: str) -> Reflector[Document]:
    scope = WatchScope(namespace=namespace) if namespace else EVERYTHING
    reflector = Reflector(client, CONFIG_MAPS, read_config_map, _nobody, scope=scope)
    reflector.start()
    return reflector
