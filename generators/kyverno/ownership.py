"""Marks on generated objects: who made them, for which trigger, by which rule and pattern.

They tell one rule's objects from another's, so that an edited rule collects exactly what it made.
Label values end at 63 characters: longer ones are cut and hashed, the full text is in annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from generators.kyverno.values import (
    Document,
    ObjectKey,
    Value,
    annotations_of,
    copied,
    labels_of,
    mapping,
)
from generators.labels import MANAGED_BY, MANAGER, POLICY_LABEL, RULE_LABEL

TRIGGER_LABEL = "ringfence.io/trigger"
ITEM_LABEL = "ringfence.io/item"
POLICY_ANNOTATION = "ringfence.io/policy"
RULE_ANNOTATION = "ringfence.io/rule"
TRIGGER_ANNOTATION = "ringfence.io/trigger"
SOURCE_ANNOTATION = "ringfence.io/source"
MAX_LABEL = 63
_HASH = 10


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Whose object it is. `item` tells apart the patterns of a rule and a foreach's elements."""

    policy: str
    rule: str
    trigger: ObjectKey
    trigger_uid: str
    item: str


def label_text(text: str) -> str:
    """A label value for any text: readable, at most 63 characters, unlike that of other texts."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "." for c in text)
    if clean == text and len(text) <= MAX_LABEL and text[:1].isalnum() and text[-1:].isalnum():
        return text
    digest = sha256(text.encode(errors="replace")).hexdigest()[:_HASH]
    head = clean[: MAX_LABEL - _HASH - 1].strip("-_.")
    return f"{head}-{digest}" if head else digest


def policy_label(policy: str) -> str:
    """Value of the policy label: `kyverno.` tells it from what the tenant file generates."""
    return label_text(f"kyverno.{policy.replace('/', '.')}")


def labels(owner: Owner) -> dict[str, str]:
    """The labels that find an owner's objects again."""
    trigger = f"{owner.trigger}/{owner.trigger_uid}"
    return {
        MANAGED_BY: MANAGER,
        POLICY_LABEL: policy_label(owner.policy),
        RULE_LABEL: label_text(owner.rule),
        TRIGGER_LABEL: sha256(trigger.encode()).hexdigest()[:32],
        ITEM_LABEL: label_text(owner.item),
    }


def marked(document: Document, owner: Owner, source: ObjectKey | None) -> Document:
    """The object with its owner's marks, which win over labels of the same name."""
    result = copied(document)
    metadata = dict(mapping(result, "metadata"))
    notes = {
        POLICY_ANNOTATION: owner.policy,
        RULE_ANNOTATION: owner.rule,
        TRIGGER_ANNOTATION: str(owner.trigger),
    }
    if source is not None:
        notes[SOURCE_ANNOTATION] = str(source)
    wanted: list[tuple[str, dict[str, str]]] = [
        ("labels", {**labels_of(result), **labels(owner)}),
        ("annotations", {**annotations_of(result), **notes}),
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


def is_marked_by(document: Document, policy: str, rule: str) -> bool:
    """Whether a rule made this object."""
    given = labels_of(document)
    return (
        given.get(MANAGED_BY) == MANAGER
        and given.get(POLICY_LABEL) == policy_label(policy)
        and given.get(RULE_LABEL) == label_text(rule)
    )
