"""Marks on generated objects: which rule and pattern made them, and for which trigger.

They separate one rule's objects from another's, so that an edited rule collects exactly what it
made, even if edited while no controller ran: everything that the matrix of changes asks about an
object is written on it. Label values end at 63 characters: longer ones are cut and hashed, the full
text is in annotations. Only objects that are kept in step carry `managed-by`; one that was made
once belongs to its editors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from sys import intern

import orjson

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    annotations_of,
    copied,
    labels_of,
    mapping,
    object_key_of,
    split_api_version,
)
from generators.kyverno.model import Document
from generators.labels import MANAGED_BY, MANAGER, POLICY_LABEL, RULE_LABEL

TRIGGER_LABEL = "ringfence.io/trigger"
ITEM_LABEL = "ringfence.io/item"
POLICY_ANNOTATION = "ringfence.io/policy"
RULE_ANNOTATION = "ringfence.io/rule"
TRIGGER_ANNOTATION = "ringfence.io/trigger"
SOURCE_ANNOTATION = "ringfence.io/source"
MARK_ANNOTATION = "ringfence.io/generated"
KYVERNO = "kyverno."
"""How the policy label begins on what policies generate."""
MAX_LABEL = 63
_HASH = 10


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """The owner of an object. `item` distinguishes the patterns of a rule and a foreach's
    elements."""

    policy: str
    rule: str
    trigger: ObjectKey
    trigger_uid: str
    item: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An owner, and what has to be known of its rule when the rule itself is gone."""

    owner: Owner
    synchronize: bool = False
    orphan: bool = False
    source: ObjectKey | None = None
    """What it is a copy of; None for `data`."""
    pattern: str = ""
    """Digest of the pattern that made a copy: a changed rule leaves it as it is."""


def label_text(text: str) -> str:
    """A label value for any text: readable, at most 63 characters, unlike that of other texts."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "." for c in text)
    if clean == text and len(text) <= MAX_LABEL and text[:1].isalnum() and text[-1:].isalnum():
        return text
    digest = sha256(text.encode(errors="replace")).hexdigest()[:_HASH]
    head = clean[: MAX_LABEL - _HASH - 1].strip("-_.")
    return f"{head}-{digest}" if head else digest


def policy_label(policy: str) -> str:
    """Value of the policy label: `kyverno.` separates it from what the tenant file generates."""
    return label_text(f"{KYVERNO}{policy.replace('/', '.')}")


def labels(mark: Mark) -> dict[str, str]:
    """The labels that find an owner's objects again."""
    owner = mark.owner
    trigger = f"{owner.trigger}/{owner.trigger_uid}"
    found = {
        POLICY_LABEL: policy_label(owner.policy),
        RULE_LABEL: label_text(owner.rule),
        TRIGGER_LABEL: sha256(trigger.encode()).hexdigest()[:32],
        ITEM_LABEL: label_text(owner.item),
    }
    return {MANAGED_BY: MANAGER, **found} if mark.synchronize else found


def notes(mark: Mark, place: tuple[str, str]) -> dict[str, str]:
    """The marks in full, for an object of that namespace and name; one is for the controller."""
    owner = mark.owner
    texts = {
        POLICY_ANNOTATION: owner.policy,
        RULE_ANNOTATION: owner.rule,
        TRIGGER_ANNOTATION: str(owner.trigger),
        MARK_ANNOTATION: _written(mark, place),
    }
    if mark.source is not None:
        texts[SOURCE_ANNOTATION] = str(mark.source)
    return texts


def _written(mark: Mark, place: tuple[str, str]) -> str:
    fields: dict[str, object] = {
        "object": [*place],
        "trigger": [*_parts(mark.owner.trigger), mark.owner.trigger_uid],
        "item": mark.owner.item,
        "synchronize": mark.synchronize,
    }
    if mark.orphan:
        fields["orphan"] = True
    if mark.source is not None:
        fields |= {"source": [*_parts(mark.source)], "pattern": mark.pattern}
    return orjson.dumps(fields).decode()


def _parts(key: ObjectKey) -> tuple[str, str, str, str]:
    return key.kind.api_version, key.kind.kind, key.namespace, key.name


def mark_of(document: Document) -> Mark | None:
    """The mark of an object; None if no policy made it, or its marks are garbled. A copy of a
    generated object has its marks as well, but is in another place.
    """
    if not labels_of(document).get(POLICY_LABEL, "").startswith(KYVERNO):
        return None
    annotations = annotations_of(document)
    try:
        fields = orjson.loads(annotations.get(MARK_ANNOTATION, ""))
        if fields["object"] != [*_place(document)]:
            return None
        *trigger, uid = fields["trigger"]
        source = fields.get("source")
        return Mark(
            owner=Owner(
                policy=intern(annotations[POLICY_ANNOTATION]),
                rule=intern(annotations[RULE_ANNOTATION]),
                trigger=_key(trigger),
                trigger_uid=str(uid),
                item=intern(str(fields["item"])),
            ),
            synchronize=fields["synchronize"] is True,
            orphan=fields.get("orphan") is True,
            source=_key(source) if source is not None else None,
            pattern=str(fields.get("pattern", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _place(document: Document) -> tuple[str, str]:
    key = object_key_of(document)
    return key.namespace, key.name


def _key(parts: list[object]) -> ObjectKey:
    api_version, kind, namespace, name = map(str, parts)
    return ObjectKey(_kind(api_version, kind), intern(namespace), name)


@lru_cache(maxsize=1_000)
def _kind(api_version: str, kind: str) -> ObjectKind:
    """One value for each: a cluster repeats few of them."""
    return ObjectKind(*split_api_version(api_version), kind)


def marked(document: Document, mark: Mark) -> Document:
    """The object with its owner's marks, which win over labels of the same name."""
    result = copied(document)
    metadata = dict(mapping(result, "metadata"))
    wanted: list[tuple[str, dict[str, str]]] = [
        ("labels", {**labels_of(result), **labels(mark)}),
        ("annotations", {**annotations_of(result), **notes(mark, _place(document))}),
    ]
    for field, texts in wanted:
        sorted_texts: dict[str, Value] = {key: texts[key] for key in sorted(texts)}
        metadata[field] = sorted_texts
    result["metadata"] = metadata
    return result


def unmarked(document: Document) -> Document:
    """The object without marks, ours or upstream's: what test files compare."""
    result = copied(document)
    metadata = dict(mapping(result, "metadata"))
    for field, kept in (("labels", labels_of(result)), ("annotations", annotations_of(result))):
        left: dict[str, Value] = {
            key: value
            for key, value in kept.items()
            if key != MANAGED_BY and not key.startswith(("ringfence.io/", "generate.kyverno.io/"))
        }
        if left:
            metadata[field] = left
        else:
            metadata.pop(field, None)
    result["metadata"] = metadata
    return result
