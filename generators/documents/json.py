"""Typed looks into decoded JSON, the same for what API servers, policies and files of flows say.

What a field should be and is not reads as absent: an API server does not send such objects, and a
cache must not die of one. Where it has to be refused: `webhook/review.py`, `manifests/fields.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
"""What JSON can say."""
Document = dict[str, object]
"""One Kubernetes object as JSON decodes it; the same type as `generators.manifests.Document`."""


# Each walks the path by itself: a call more for each field is felt where clusters are listed.


@overload
def mapping(value: Value, *path: str) -> dict[str, Value]: ...


@overload
def mapping(value: object, *path: str) -> Mapping[str, object]: ...


def mapping(value: object, *path: str) -> Mapping[str, object]:
    """The object below a path; empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


@overload
def items(value: Value, *path: str) -> Sequence[Value]: ...


@overload
def items(value: object, *path: str) -> Sequence[object]: ...


def items(value: object, *path: str) -> Sequence[object]:
    """The list below a path; empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, list) else ()


@overload
def mappings(value: Value, *path: str) -> tuple[dict[str, Value], ...]: ...


@overload
def mappings(value: object, *path: str) -> tuple[Mapping[str, object], ...]: ...


def mappings(value: object, *path: str) -> tuple[Mapping[str, object], ...]:
    """The objects of the list below a path."""
    return tuple(item for item in items(value, *path) if isinstance(item, dict))


def text(value: object, *path: str) -> str:
    """The string below a path, empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def shown(value: object, *path: str) -> str:
    """What is below a path, as text whatever it is; empty where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def integer(value: object, *path: str) -> int | None:
    """The integer below a path."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def strings(value: object, *path: str) -> dict[str, str]:
    """The string map below a path, e.g. labels; interned, since a cluster repeats few of them."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return {}
    return {sys.intern(k): sys.intern(v) for k, v in value.items() if type(v) is str}


def labels_of(document: object) -> dict[str, str]:
    """Labels of an object."""
    return strings(document, "metadata", "labels")


def annotations_of(document: object) -> dict[str, str]:
    """Annotations of an object."""
    return strings(document, "metadata", "annotations")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one object of a resource; `namespace` is empty for what belongs to the cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Meta:
    """The parts of `metadata` that decisions need."""

    key: Key
    uid: str
    resource_version: str
    generation: int
    terminating: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def meta_of(document: Mapping[str, object]) -> Meta:
    """`metadata` of a document."""
    meta = mapping(document, "metadata")
    return Meta(
        key=key_of(document),
        uid=text(meta, "uid"),
        resource_version=text(meta, "resourceVersion"),
        generation=integer(meta, "generation") or 0,
        terminating="deletionTimestamp" in meta,
        labels=strings(meta, "labels"),
        annotations=strings(meta, "annotations"),
    )


def key_of(document: Mapping[str, object]) -> Key:
    """Namespace and name of a document."""
    meta = mapping(document, "metadata")
    return Key(sys.intern(text(meta, "namespace")), sys.intern(text(meta, "name")))


def resource_version_of(document: Mapping[str, object]) -> str:
    """Of an object, a list or a bookmark."""
    return text(mapping(document, "metadata"), "resourceVersion")


def field_managers(document: Mapping[str, object]) -> Iterable[str]:
    """Who has written fields of the object, in the API server's order."""
    return (text(m, "manager") for m in mappings(mapping(document, "metadata"), "managedFields"))
