"""What becomes of a generated object when something around it changes: the matrix, as a function.

    event                      data, sync  data        clone, sync  clone
    downstream deleted         recreate    nothing     recreate     nothing
    downstream edited          restore     nothing     restore      nothing
    trigger deleted            delete      nothing     delete       nothing
    trigger no longer applies  delete      nothing     delete       nothing
    policy or rule deleted     delete *    nothing     nothing      nothing
    policy or rule changed     restore     nothing     nothing      nothing
    source changed             -           -           restore      nothing
    source deleted             -           -           delete       nothing

    * nothing with orphanDownstreamOnPolicyDelete

"No longer applies" means match, exclude and preconditions together. Isolation is never deleted and
made again: restoring is one update in place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from generators.documents.json import ObjectKey, Value, equal, mapping
from generators.kyverno.generation import WantedObject
from generators.kyverno.model import Document
from generators.kyverno.ownership import Owner


class SyncEvent(Enum):
    """What happened."""

    DOWNSTREAM_DELETED = auto()
    DOWNSTREAM_EDITED = auto()
    TRIGGER_DELETED = auto()
    TRIGGER_NO_LONGER_APPLIES = auto()
    POLICY_DELETED = auto()
    POLICY_CHANGED = auto()
    SOURCE_CHANGED = auto()
    SOURCE_DELETED = auto()


class Making(Enum):
    """How the object came to be."""

    DATA = auto()
    CLONE = auto()


class Reaction(Enum):
    """What to do with the downstream object."""

    NOTHING = auto()
    RECREATE = auto()
    RESTORE = auto()
    DELETE = auto()


def reaction(
    event: SyncEvent, making: Making, *, synchronize: bool, orphan: bool = False
) -> Reaction:
    """One cell of the matrix."""
    if not synchronize:
        return Reaction.NOTHING
    data = making is Making.DATA
    match event:
        case SyncEvent.DOWNSTREAM_DELETED:
            return Reaction.RECREATE
        case SyncEvent.DOWNSTREAM_EDITED:
            return Reaction.RESTORE
        case SyncEvent.TRIGGER_DELETED | SyncEvent.TRIGGER_NO_LONGER_APPLIES:
            return Reaction.DELETE
        case SyncEvent.POLICY_DELETED:
            return Reaction.DELETE if data and not orphan else Reaction.NOTHING
        case SyncEvent.POLICY_CHANGED:
            return Reaction.RESTORE if data else Reaction.NOTHING
        case SyncEvent.SOURCE_CHANGED:
            return Reaction.NOTHING if data else Reaction.RESTORE
        case SyncEvent.SOURCE_DELETED:
            return Reaction.NOTHING if data else Reaction.DELETE


def same(desired: Document, live: Document) -> bool:
    """Whether the live object has everything that is desired, and nothing else of substance.

    Fields that only the API server writes do not count; nor do empty maps, lists and nulls.
    """
    return equal(_substance(desired), _substance(live))


_SERVER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")


def _substance(document: Document) -> Value:
    kept: Document = {key: value for key, value in document.items() if key != "status"}
    kept["metadata"] = {
        key: value for key, value in mapping(document, "metadata").items() if key not in _SERVER
    }
    return tidy(kept)


def tidy(value: Value) -> Value:
    """The value without empty maps, lists and nulls; None when nothing is left."""
    if isinstance(value, dict):
        entries = {key: tidy(item) for key, item in value.items()}
        return {key: item for key, item in entries.items() if item is not None} or None
    if isinstance(value, list):
        items = [tidy(item) for item in value]
        return [item for item in items if item is not None] or None
    return value


@dataclass(frozen=True, slots=True)
class Stale:
    """Objects that a rule made before and no longer wants."""

    key: ObjectKey
    owner: Owner


def stale(made: Iterable[Stale], wanted: Iterable[WantedObject]) -> tuple[Stale, ...]:
    """What is left over after a rule, a list or a target name changed, in a fixed order."""
    keep = {want.key for want in wanted}
    return tuple(sorted((m for m in made if m.key not in keep), key=lambda m: (m.key, m.owner)))
