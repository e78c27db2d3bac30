"""Anchors of patchStrategicMerge: which parts of a patch apply to this object.

    anchor    in a map                                  in a list of maps
    (key)     missing or unfit: the patch is dropped    elements that do not fit are skipped; for
                                                        each that fits, a copy named after it
    <(key)    missing or unfit: the rule does nothing   one element that fits is enough
    +(key)    kept only where the object has no key     the same, for each element of the object
    =(key) ^(key) X(key)   only inside conditions: see `fitting.py`

`prepare` gives the patch without anchors, or raises Dropped. Conditions leave the patch as a whole,
but for `+(key)` right inside one; maps that held nothing else leave with them.
"""

from __future__ import annotations

from generators.documents.json import Value
from generators.kyverno.model import Document
from generators.kyverno.patches.fitting import Anchor, fits, has_anchors, parse_anchor

_DECIDING = (Anchor.CONDITION, Anchor.GLOBAL, Anchor.ADD)


class Dropped(Exception):
    """A condition of the patch does not hold; the message says which."""


class _GlobalDropped(Dropped):
    """A global condition does not hold: no element of a list can make up for it."""


def prepare(patch: Document, document: Document) -> Document:
    """The patch that applies to this object; Dropped when none of it does."""
    prepared = _map(patch, document)
    return prepared if prepared is not None else {}


def _map(pattern: Document, resource: Value) -> Document | None:
    """The map without anchors; None when nothing but anchors was in it."""
    held = resource if isinstance(resource, dict) else {}
    _check(pattern, held, Anchor.GLOBAL)
    _check(pattern, held, Anchor.CONDITION)
    result: Document = {}
    for written, value in pattern.items():
        anchor, key = parse_anchor(written)
        if anchor is Anchor.ADD and key in held:
            continue
        if anchor is not None and anchor is not Anchor.ADD and not _adds(value):
            continue
        prepared = _value(value, held.get(key))
        if prepared is not None or value is None:
            result[key] = prepared
    return result if result or not pattern else None


def _adds(value: Value) -> bool:
    """Whether a condition's map holds `+(key)`: then it is no condition but a part of the patch."""
    return isinstance(value, dict) and any(parse_anchor(key)[0] is Anchor.ADD for key in value)


def _value(pattern: Value, resource: Value) -> Value:
    if isinstance(pattern, dict):
        return _map(pattern, resource)
    if isinstance(pattern, list) and any(has_anchors(item, *_DECIDING) for item in pattern):
        return _list(pattern, resource)
    return pattern


def _list(pattern: list[Value], resource: Value) -> Value:
    """The list with a copy for each element that fits; None when nothing is left."""
    elements = [e for e in resource if isinstance(e, dict)] if isinstance(resource, list) else []
    result: list[Value] = []
    copies: list[Value] = []
    for item in pattern:
        if not isinstance(item, dict) or not has_anchors(item, *_DECIDING):
            result.append(item)
        elif has_anchors(item, Anchor.GLOBAL):
            _one_must_fit(item, elements, there=isinstance(resource, list))
        else:
            copies += _copies(item, elements)
    return [*result, *copies] or None


def _one_must_fit(item: Document, elements: list[Document], *, there: bool) -> None:
    """An empty list has nothing that is unfit; a list that is not there has."""
    failure: Dropped | None = None
    for element in elements if there else [{}]:
        try:
            _map(item, element)
        except _GlobalDropped as error:
            failure = error
        except Dropped:
            continue
        else:
            return
    if failure is not None:
        raise failure


def _copies(item: Document, elements: list[Document]) -> list[Value]:
    """Patches for the elements that fit, each under the name of its element."""
    copies: list[Value] = []
    for element in elements:
        try:
            prepared = _map(item, element)
        except _GlobalDropped:
            raise
        except Dropped:
            continue
        if prepared and element.get("name"):
            copies.append({**prepared, "name": element["name"]})
    return copies


def _check(pattern: Document, resource: Document, kind: Anchor) -> None:
    failure = _GlobalDropped if kind is Anchor.GLOBAL else Dropped
    for written, value in pattern.items():
        anchor, key = parse_anchor(written)
        if anchor is not kind:
            continue
        if key not in resource:
            raise failure(f"{written}: the object has no {key}")
        if not _adds(value) and not fits(resource[key], value):
            raise failure(f"{written}: {_shown(resource[key])} does not fit {_shown(value)}")


def _shown(value: Value) -> str:
    return f"{value!r:.80}"
