"""Anchors of patchStrategicMerge: which parts of a patch apply to this object.

    anchor    in a map                                  in a list of maps
    (key)     missing or unfit: the patch is dropped    elements that do not fit are skipped; for
                                                        each that fits, a copy named after it
    <(key)    missing or unfit: the rule does nothing   one element that fits is enough
    +(key)    kept only where the object has no key     the same, for elements that are named
    =(key) ^(key) X(key)   only inside conditions: fits if present; one element fits; absent

`prepare` gives the patch without anchors, or raises Dropped. Conditions leave the patch as a whole;
maps that held nothing else leave with them.
"""

from __future__ import annotations

import re
from enum import StrEnum

from generators.documents.json import Value, copied
from generators.kyverno.language import patterns
from generators.kyverno.model import Document

_ANCHOR = re.compile(r"([+<=X^]?)\((.+)\)", re.DOTALL)


class Anchor(StrEnum):
    """What stands before the parentheses of a key."""

    CONDITION = ""
    GLOBAL = "<"
    ADD = "+"
    IF_PRESENT = "="
    ONE_OF = "^"
    ABSENT = "X"


class Dropped(Exception):
    """A condition of the patch does not hold; the message says which."""


class _GlobalDropped(Dropped):
    """A global condition does not hold: no element of a list can make up for it."""


def parse_anchor(key: str) -> tuple[Anchor | None, str]:
    """The anchor of a key and the key without it."""
    found = _ANCHOR.fullmatch(key)
    return (Anchor(found[1]), found[2]) if found else (None, key)


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
        if anchor is not None and anchor is not Anchor.ADD:
            continue
        prepared = _value(value, held.get(key))
        if prepared is not None or value is None:
            result[key] = prepared
    return result if result or not pattern else None


def _value(pattern: Value, resource: Value) -> Value:
    if isinstance(pattern, dict):
        return _map(pattern, resource)
    if isinstance(pattern, list) and any(has_anchors(item) for item in pattern):
        return _list(pattern, resource)
    return pattern


def _list(pattern: list[Value], resource: Value) -> Value:
    """The list with a copy for each element that fits; None when nothing is left."""
    elements = [e for e in resource if isinstance(e, dict)] if isinstance(resource, list) else []
    result: list[Value] = []
    for item in pattern:
        if not isinstance(item, dict) or not has_anchors(item):
            result.append(item)
        elif has_anchors(item, Anchor.GLOBAL):
            _one_must_fit(item, elements)
        else:
            result += _copies(item, elements)
    return result or None


def _one_must_fit(item: Document, elements: list[Document]) -> None:
    failure: Dropped = _GlobalDropped("the list is empty")
    for element in elements:
        try:
            _map(item, element)
        except Dropped as error:
            failure = error
        else:
            return
    raise failure


def _copies(item: Document, elements: list[Document]) -> list[Value]:
    """Patches for the elements that fit; one that is named and not there is added as it is."""
    name = item.get("name")
    wanted = [e for e in elements if name is None or e.get("name") == name]
    if not wanted and name is not None:
        wanted = [{"name": name}]
    copies: list[Value] = []
    for element in wanted:
        try:
            prepared = _map(copied(item), element)
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
        if not fits(resource[key], value):
            raise failure(f"{written}: {_shown(resource[key])} does not fit {_shown(value)}")


def _shown(value: Value) -> str:
    return f"{value!r:.80}"


def has_anchors(value: Value, wanted: Anchor | None = None) -> bool:
    """Whether a pattern holds an anchor anywhere; of one kind, when one is given."""
    if isinstance(value, dict):
        for key, item in value.items():
            anchor, _ = parse_anchor(key)
            if anchor is not None and wanted in (None, anchor):
                return True
            if has_anchors(item, wanted):
                return True
    if isinstance(value, list):
        return any(has_anchors(item, wanted) for item in value)
    return False


def fits(value: Value, pattern: Value) -> bool:
    """Whether a value fits a pattern tree, as conditions ask it."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            _entry_fits(value, key, item) for key, item in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and _list_fits(value, pattern)
    if isinstance(value, list):
        return all(fits(item, pattern) for item in value)
    return patterns.fits(value, pattern)


def _entry_fits(value: Document, written: str, pattern: Value) -> bool:
    anchor, key = parse_anchor(written)
    match anchor:
        case Anchor.ADD:
            return True
        case Anchor.ABSENT:
            return key not in value
        case Anchor.IF_PRESENT:
            return key not in value or fits(value[key], pattern)
        case Anchor.ONE_OF:
            found = value.get(key)
            one = pattern[0] if isinstance(pattern, list) and pattern else pattern
            return isinstance(found, list) and any(fits(item, one) for item in found)
        case _:
            return fits(value[key], pattern) if key in value else pattern is None


def _list_fits(value: list[Value], pattern: list[Value]) -> bool:
    if not pattern:
        return not value
    if isinstance(pattern[0], dict):
        return all(fits(item, pattern[0]) for item in value)
    return len(value) >= len(pattern) and all(map(fits, value, pattern))
