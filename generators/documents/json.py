"""Decoded JSON: typed looks into it, what is done with its values, and which object one is.

The same for what API servers, policies and files of flows say. Nothing is changed in place.

What a field should be and is not reads as absent: an API server does not send such objects, and a
cache must not die of one. Where it has to be refused: `webhook/review.py`, `manifests/fields.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
"""What JSON can say."""
Document = dict[str, object]
"""One Kubernetes object as JSON decodes it; the same type as `generators.manifests.Document`."""
Path = tuple[str | int, ...]
"""The way to a value: keys and indices."""
MAX_DEPTH = 100
"""How deep a value may be nested."""


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


def copied(document: dict[str, Value]) -> dict[str, Value]:
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


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one object of a resource; `namespace` is empty for what belongs to the cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


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

    @property
    def any_version(self) -> ObjectKey:
        """The same object, in whatever version it is asked for."""
        return ObjectKey(ObjectKind(self.kind.group, "", self.kind.kind), self.namespace, self.name)

    def __str__(self) -> str:
        home = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {home}{self.name}"


def kind_of(document: Mapping[str, object]) -> ObjectKind:
    """The kind that a document says it is."""
    group, version = split_api_version(text(document, "apiVersion"))
    return ObjectKind(group, version, text(document, "kind"))


def object_key_of(document: Mapping[str, object]) -> ObjectKey:
    """Which object a document is."""
    meta = mapping(document, "metadata")
    name = text(meta, "name") or text(meta, "generateName")
    return ObjectKey(kind_of(document), text(meta, "namespace"), name)


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
