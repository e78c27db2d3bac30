"""JSON values with types, and the few looks into Kubernetes objects that all rooms share.

Policies and the objects that they work on are plain JSON here, whatever kind they are. Nothing is
changed in place unless the function owns its copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from generators.documents.json import Value, mapping, text
from generators.documents.yaml import MAX_DEPTH, Field

Document: TypeAlias = "dict[str, Value]"
Path = tuple[str | int, ...]

MAX_TEXT = 1 << 20
"""Longest text that substitution or a function may make."""


def plain(field: Field) -> Value:
    """The value of a field tree, without lines; the reader bounds its depth."""
    if isinstance(field.value, tuple):
        return [plain(item) for item in field.value]
    if isinstance(field.value, Mapping):
        return {key: plain(item) for key, item in field.value.items()}
    return field.value


def value_of(decoded: object, depth: int = 0) -> Value:
    """Decoded JSON or YAML as a value; TypeError for what JSON cannot say or nests too deep."""
    if depth > MAX_DEPTH:
        raise TypeError(f"nested deeper than {MAX_DEPTH} levels")
    if decoded is None or isinstance(decoded, bool | int | float | str):
        return decoded
    if isinstance(decoded, list | tuple):
        return [value_of(item, depth + 1) for item in decoded]
    if isinstance(decoded, Mapping):
        return {str(key): value_of(item, depth + 1) for key, item in decoded.items()}
    raise TypeError(f"{type(decoded).__name__} is not a JSON value")


def copy(value: Value) -> Value:
    """A deep copy."""
    if isinstance(value, list):
        return [copy(item) for item in value]
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    return value


def copied(document: Document) -> Document:
    """A deep copy of an object."""
    return {key: copy(item) for key, item in document.items()}


def as_text(value: Value) -> str:
    """How a value reads inside a longer text: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else compact(value)


def compact(value: Value) -> str:
    """One line of JSON, whole numbers without a fraction."""
    return json.dumps(_whole(value), separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def _whole(value: Value) -> Value:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def equal(one: Value, other: Value) -> bool:
    """JSON equality: `true` is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@dataclass(frozen=True, slots=True, order=True)
class ObjectKind:
    """Group, version and kind of an object."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """As documents write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


def split_api_version(api_version: str) -> tuple[str, str]:
    """(group, version) of `apps/v1` or `v1`."""
    group, slash, version = api_version.rpartition("/")
    return (group, version) if slash else ("", api_version)


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Names one object of any kind."""

    kind: ObjectKind
    namespace: str
    name: str

    def __str__(self) -> str:
        home = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {home}{self.name}"


def kind_of(document: Document) -> ObjectKind:
    """The kind that a document says it is."""
    group, version = split_api_version(text(document, "apiVersion"))
    return ObjectKind(group, version, text(document, "kind"))


def key_of(document: Document) -> ObjectKey:
    """Which object a document is."""
    meta = mapping(document, "metadata")
    name = text(meta, "name") or text(meta, "generateName")
    return ObjectKey(kind_of(document), text(meta, "namespace"), name)


CLUSTER_SCOPED = frozenset(
    {
        "APIService",
        "CertificateSigningRequest",
        "ClusterCleanupPolicy",
        "ClusterPolicy",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)
"""Kinds without a namespace; any other kind counts as namespaced."""


def leaves(value: Value, path: Path = ()) -> Iterator[tuple[Path, Value]]:
    """Every scalar with its path, and every key as a string under its own path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), key
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value
