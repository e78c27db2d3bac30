"""API objects -> the small values that the agent keeps of them.

The reflectors call these for each event. Pods are read by hand, because there are a hundred
thousand of them, and equal label sets and ports are one object in memory; nothing here refuses an
object. An invalid one becomes a stand-in that is closed: a policy that lets no one in, a pod
without its unreadable parts. `Unreadable` has the reason until it is gone.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TypeVar

from enforcer.policy.changes import INTERFACE_ANNOTATION
from enforcer.sources import plain_blocks
from generators.addresses import parse_address
from generators.documents.json import (
    Document,
    Key,
    integer,
    key_of,
    mapping,
    mappings,
    strings,
    text,
)
from generators.errors import InputError
from generators.manifests import closed_cilium, names, parse_object, pods
from generators.objects import (
    DEFAULT_SERVICE_ACCOUNT,
    CiliumPolicy,
    ConfigMap,
    ContainerPort,
    Direction,
    EndpointSlice,
    Labels,
    Namespace,
    NetworkPolicy,
    Node,
    Origin,
    Pod,
    PolicyKind,
    Service,
    Workload,
)

API = Origin("api-server")
OUR_ANNOTATIONS = "ringfence.io/"
T = TypeVar("T", Namespace, NetworkPolicy, CiliumPolicy, Node, Service, EndpointSlice, ConfigMap)
H = TypeVar("H", bound=Hashable)


class Unreadable:
    """Objects of one kind that could not be read, with the reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._why: dict[str, str] = {}

    def note(self, key: Key, why: str) -> None:
        """The object makes no sense."""
        with self._lock:
            self._why[str(key)] = why

    def clear(self, key: Key) -> None:
        """The object is sound, or gone."""
        if self._why:
            with self._lock:
                self._why.pop(str(key), None)

    def read(self) -> Mapping[str, str]:
        """All of them."""
        with self._lock:
            return dict(sorted(self._why.items()))


class ValuePool:
    """Equal values as one object; values not used lately are merely no longer shared.

    A list of objects comes in the order of their names, so few values make replicas share; more
    would only keep what objects that are gone have left.
    """

    ROOM = 4_096

    def __init__(self) -> None:
        self._values: dict[object, object] = {}
        self._former: dict[object, object] = {}

    def __len__(self) -> int:
        return len(self._values) + len(self._former)

    def one(self, value: H) -> H:
        """The first value that was equal to this one."""
        found = self._first((type(value), value), value)
        return found if isinstance(found, type(value)) else value

    def labels(self, labels: dict[str, str]) -> Labels:
        """The same for a mapping, which is never changed."""
        found = self._first(frozenset(labels.items()), labels)
        return found if isinstance(found, dict) else labels

    def _first(self, key: object, value: object) -> object:
        found = self._values.get(key)
        if found is None:
            if len(self._values) >= self.ROOM:
                self._former, self._values = self._values, {}
            found = self._values[key] = self._former.get(key, value)
        return found


class PodReader:
    """Pods, reduced to what a peer or an endpoint is judged by."""

    def __init__(self, node: str, problems: Unreadable) -> None:
        self._node = node
        self._problems = problems
        self._shared = ValuePool()

    def __call__(self, document: Document) -> Pod | None:
        """The pod; None if it can be no peer and is not on this node."""
        meta, spec = mapping(document, "metadata"), mapping(document, "spec")
        status = mapping(document, "status")
        key = key_of(document)
        node = sys.intern(text(spec, "nodeName"))
        host = spec.get("hostNetwork") is True
        if host and node != self._node:
            self._problems.clear(key)
            return None
        wrong: list[str] = []
        labels = self._shared.labels(strings(meta, "labels"))
        pod = Pod(
            namespace=key.namespace,
            name=key.name,
            labels=labels,
            annotations=self._annotations(meta) if node == self._node else _NONE,
            ips=self._addresses(status, wrong),
            ports=self._shared.one(_ports(spec)),
            node=node,
            host_network=host,
            phase=sys.intern(text(status, "phase") or "Pending"),
            terminating="deletionTimestamp" in meta,
            uid=text(meta, "uid") if node == self._node else "",
            created=self._shared.one(text(meta, "creationTimestamp")),
            workload=self._workload(meta, labels),
            service_account=sys.intern(text(spec, "serviceAccountName")) or DEFAULT_SERVICE_ACCOUNT,
            origin=API,
        )
        if wrong:
            self._problems.note(key, "; ".join(wrong))
        else:
            self._problems.clear(key)
        return pod

    def _workload(self, meta: Mapping[str, object], labels: Labels) -> Workload | None:
        """Pods of one workload share it."""
        owner = pods.controller_among(mappings(meta, "ownerReferences"), _controls)
        found = pods.workload_of(sys.intern(text(owner, "kind")), text(owner, "name"), labels)
        return self._shared.one(found) if found is not None else None

    def _annotations(self, meta: Mapping[str, object]) -> Labels:
        found = {k: v for k, v in strings(meta, "annotations").items() if _is_ours(k)}
        # Whoever may write pods could name any interface of the node.
        found.pop(INTERFACE_ANNOTATION, None)
        return self._shared.labels(found)

    def _addresses(self, status: Mapping[str, object], wrong: list[str]) -> tuple[str, ...]:
        def canonical(address: str) -> str | None:
            try:
                return _canonical(address) if address else None
            except ValueError:
                wrong.append(f"{address} is not an address")
                return None

        listed = [text(item, "ip") for item in mappings(status, "podIPs")]
        return pods.each_once(listed, text(status, "podIP"), canonical)


_NONE: Labels = {}


def _canonical(address: str) -> str:
    """The spelling of addresses.py; what is spelled so already goes the short way."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        if ("." in address) is (kind is socket.AF_INET) and (
            socket.inet_ntop(kind, socket.inet_pton(kind, address)) == address
        ):
            return address
    except OSError:
        pass
    return str(parse_address(address))


def _is_ours(annotation: str) -> bool:
    return annotation.startswith(OUR_ANNOTATIONS)


def _controls(owner: Mapping[str, object]) -> bool:
    return owner.get("controller") is True


def _restarts(container: Mapping[str, object]) -> object:
    return container.get("restartPolicy")


def _ports(spec: Mapping[str, object]) -> tuple[ContainerPort, ...]:
    found = []
    for container in pods.with_sidecars(
        mappings(spec, "containers"), mappings(spec, "initContainers"), _restarts
    ):
        for item in mappings(container, "ports"):
            number = integer(item, "containerPort")
            if number is not None:
                protocol = sys.intern(text(item, "protocol") or names.DEFAULT_PROTOCOL)
                found.append(ContainerPort(number, protocol, sys.intern(text(item, "name"))))
    return tuple(found)


class ManifestReader:
    """Other kinds, by the manifest reader, without what decisions do not depend on."""

    def __init__(self, problems: Unreadable) -> None:
        self._problems = problems
        self._shared = ValuePool()

    def namespace(self, document: Document) -> Namespace:
        """A namespace."""
        found = self._parse(document, Namespace, "status")
        if found is None:
            key = key_of(document)
            return Namespace(key.name, uid=text(mapping(document, "metadata"), "uid"), origin=API)
        return replace(found, labels=self._shared.labels(dict(found.labels)))

    def node(self, document: Document) -> Node | None:
        """A node's addresses and pod ranges; its heartbeats change nothing here.

        The addresses of its interfaces come from the agent's own kernel: an annotation proves
        nothing.
        """
        whole = mapping(document, "status")
        addresses = {"addresses": whole.get("addresses")}
        found = self._parse({**document, "status": addresses}, Node, "spec", "status")
        return None if found is None else replace(found, interface_ips=())

    def policy(self, document: Document) -> NetworkPolicy:
        """A policy; an invalid one lets no one in or out, and selects as widely as its selector.

        Policies with equal rules share them: those of one tenant are all alike.
        """
        spec, taken = plain_blocks.take(mapping(document, "spec"))
        found = self._parse(
            {**document, "spec": spec} if taken else document, NetworkPolicy, "spec"
        )
        if found is None and taken:
            found = self._parse(document, NetworkPolicy, "spec")  # errors name places in the whole
        elif found is not None:
            found = plain_blocks.put_back(found, taken)
        if found is None:
            return self._closed(document)
        found = replace(
            found,
            ingress=self._shared.one(found.ingress),
            egress=self._shared.one(found.egress),
            labels=self._shared.labels(dict(found.labels)),
        )
        for rule in (*found.ingress, *found.egress):
            rule.block_lists  # noqa: B018  # made here, so that the loop need not wait for it
        return found

    def cilium(self, document: Document) -> CiliumPolicy:
        """A policy of Cilium's kinds; one that is invalid allows nothing."""
        found = self._parse(document, CiliumPolicy, "spec", "specs")
        parts = (found or closed_cilium(document, API)).parts
        shared = tuple(
            replace(
                part, ingress=self._shared.one(part.ingress), egress=self._shared.one(part.egress)
            )
            for part in parts
        )
        for part in shared:
            for rule in (*part.ingress, *part.egress):
                rule.block_lists  # noqa: B018  as above
        key, kind = key_of(document), PolicyKind(text(document, "kind"))
        return CiliumPolicy(key.namespace, key.name, kind, shared, origin=API)

    def service(self, document: Document) -> Service | None:
        """A Service; one that makes no sense is none, and what it would lead to is not opened."""
        return self._parse(document, Service, "spec")

    def slice(self, document: Document) -> EndpointSlice | None:
        """An EndpointSlice."""
        return self._parse(document, EndpointSlice, "addressType", "endpoints", "ports")

    def config_map(self, document: Document) -> ConfigMap | None:
        """A shard of the record."""
        return self._parse(document, ConfigMap, "data")

    def _closed(self, document: Document) -> NetworkPolicy:
        key, spec = key_of(document), mapping(document, "spec")
        selecting = {"podSelector": spec.get("podSelector"), "policyTypes": spec.get("policyTypes")}
        try:
            known = parse_object({**document, "spec": selecting}, API)
        except InputError:
            known = None
        everyone = NetworkPolicy(key.namespace, key.name, directions=frozenset(Direction))
        return known if isinstance(known, NetworkPolicy) else replace(everyone, origin=API)

    def _parse(self, document: Document, kind: type[T], *parts: str) -> T | None:
        key = key_of(document)
        try:
            found = parse_object(_trimmed(document, parts), API)
        except InputError as error:
            self._problems.note(key, error.brief())
            return None
        self._problems.clear(key)
        return found if isinstance(found, kind) else None


_METADATA = ("name", "namespace", "uid", "labels", "creationTimestamp", "deletionTimestamp")


def _trimmed(document: Document, parts: tuple[str, ...]) -> Document:
    meta = mapping(document, "metadata")
    kept: Document = {name: meta[name] for name in _METADATA if name in meta}
    ours = {k: v for k, v in strings(meta, "annotations").items() if _is_ours(k)}
    if ours:
        kept["annotations"] = ours
    found: Document = {"metadata": kept}
    for name in ("apiVersion", "kind", *parts):
        if name in document:
            found[name] = document[name]
    return found
