"""One object of any kind as the caches keep it: JSON without what only the API server writes.

Bytes are a tenth of the decoded tree. Most objects are never looked at again once they are as they
should be, so decoding when asked is the cheaper half.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from generators.documents.json import Document as Raw
from generators.documents.json import ObjectKey, mapping, object_key_of, text
from generators.kube.resources import NAMESPACES, Resource
from generators.kyverno.model import Document
from generators.kyverno.ownership import Mark, mark_of

_UNKEPT = ("managedFields", "resourceVersion", "generation", "selfLink")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object; equal when nothing changed but what the API server writes by itself."""

    uid: str
    terminating: bool
    body: bytes
    version: int = field(default=0, compare=False)
    """resourceVersion when it last changed in this sense."""

    def document(self) -> Document:
        """A fresh tree."""
        return decoded(self.body)


@dataclass(frozen=True, slots=True)
class ParsedTrigger:
    """A followed object as rules are asked about it, read once."""

    resource: Resource
    kept: StoredObject
    document: Document
    key: ObjectKey
    mark: Mark | None

    @property
    def home(self) -> str:
        """The namespace that it is or belongs to."""
        return self.key.name if self.resource == NAMESPACES else self.key.namespace


def read(resource: Resource, kept: StoredObject) -> ParsedTrigger:
    """An object with the facts that are needed again and again."""
    document = kept.document()
    return ParsedTrigger(resource, kept, document, object_key_of(document), mark_of(document))


@dataclass(frozen=True, slots=True)
class GeneratedObject:
    """An object with a policy's mark; any write counts as a change."""

    uid: str
    version: str
    mark: Mark
    body: bytes
    terminating: bool = False

    def document(self) -> Document:
        """A fresh tree, without status."""
        return decoded(self.body)


def keep(raw: Raw) -> StoredObject:
    """`reduce` for triggers, targets and sources."""
    metadata = mapping(raw, "metadata")
    return StoredObject(
        uid=text(metadata, "uid"),
        terminating="deletionTimestamp" in metadata,
        body=orjson.dumps(_bare(raw), option=orjson.OPT_SORT_KEYS),
        version=number(text(metadata, "resourceVersion")),
    )


def keep_made(raw: Raw) -> GeneratedObject | None:
    """`reduce` for what policies have made; None for an object without a mark."""
    document = bare_document(raw)
    mark = mark_of(document)
    if mark is None:
        return None
    metadata = mapping(raw, "metadata")
    document.pop("status", None)
    return GeneratedObject(
        uid=text(metadata, "uid"),
        version=text(metadata, "resourceVersion"),
        mark=mark,
        body=orjson.dumps(document),
        terminating="deletionTimestamp" in metadata,
    )


def bare_document(raw: Raw) -> Document:
    """What the API server sent, as a value, without what only it writes."""
    return decoded(orjson.dumps(_bare(raw)))


def decoded(body: bytes) -> Document:
    """JSON of an object as a value."""
    found = orjson.loads(body)
    return found if isinstance(found, dict) else {}


def raw(document: Document) -> Raw:
    """A value as the client takes it."""
    return dict(document)


def number(version: str) -> int:
    """resourceVersions grow; anything that is not one reads as the oldest."""
    return int(version) if version.isdigit() else 0


def _bare(raw: Raw) -> Raw:
    metadata = {k: v for k, v in mapping(raw, "metadata").items() if k not in _UNKEPT}
    return {**raw, "metadata": metadata}
