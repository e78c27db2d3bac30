"""Typed looks into decoded JSON, where the API server vouches for the shape.

For the edge only: reduce functions and the client itself. What a field should be and is not reads
as absent: an API server does not send such objects, and a cache must not die of one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from generators.kube.resources import Key

Document = dict[str, object]
"""One Kubernetes object as JSON decodes it; the same type as `generators.manifests.Document`."""

_EMPTY: Mapping[str, object] = {}


def mapping(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The object under `key`, empty when there is none."""
    value = document.get(key)
    return value if isinstance(value, dict) else _EMPTY


def mappings(document: Mapping[str, object], key: str) -> tuple[Mapping[str, object], ...]:
    """The list of objects under `key`."""
    value = document.get(key)
    return tuple(v for v in value if isinstance(v, dict)) if isinstance(value, list) else ()


def text(document: Mapping[str, object], key: str) -> str:
    """The string under `key`, empty when there is none."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def integer(document: Mapping[str, object], key: str) -> int | None:
    """The integer under `key`."""
    value = document.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def strings(document: Mapping[str, object], key: str) -> dict[str, str]:
    """The string map under `key`, e.g. labels; interned, since a cluster repeats few of them."""
    return {
        sys.intern(k): sys.intern(v) for k, v in mapping(document, key).items() if type(v) is str
    }


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
