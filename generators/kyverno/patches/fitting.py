"""Does a value fit the pattern tree of a condition? As upstream's engine compares them.

    key          compared; a missing key counts as null, and `*` asks for a value that is not null
    (key)        missing or unfit: of a list of maps this element does not count
    <(key)       unfit: the same; fits where the key is missing
    =(key)       fits where the key is missing
    ^(key)       a list, of which one element fits each pattern; fits where the key is missing
    X(key)       the key is missing

A list of maps is compared with the first pattern of a list: every element that counts has to fit,
and at least one has to count. A list of scalars has to fit the first one in every element.
"""

from __future__ import annotations

import re
from enum import Enum, StrEnum, auto

from generators.documents.json import Value
from generators.kyverno.language import patterns
from generators.kyverno.language.printing import json_number
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


class _Fit(Enum):
    FITS = auto()
    NOT_COUNTED = auto()
    UNFIT = auto()


def parse_anchor(key: str) -> tuple[Anchor | None, str]:
    """The anchor of a key and the key without it."""
    found = _ANCHOR.fullmatch(key.strip())
    return (Anchor(found[1]), found[2]) if found else (None, key)


def has_anchors(value: Value, *wanted: Anchor) -> bool:
    """Whether a pattern holds one of these anchors anywhere; of any, when none is given."""
    if isinstance(value, dict):
        for key, item in value.items():
            anchor, _ = parse_anchor(key)
            if anchor is not None and (not wanted or anchor in wanted):
                return True
            if has_anchors(item, *wanted):
                return True
    if isinstance(value, list):
        return any(has_anchors(item, *wanted) for item in value)
    return False


def fits(value: Value, pattern: Value) -> bool:
    """Whether a field of the object fits what stands under the anchor; scalars are texts there."""
    return _tree(_as_written(value), _as_written(pattern)) is _Fit.FITS


def _as_written(value: Value) -> Value:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json_number(value) if isinstance(value, int | float) else value


def _tree(value: Value, pattern: Value) -> _Fit:
    if isinstance(pattern, dict):
        return _map(value, pattern) if isinstance(value, dict) else _Fit.UNFIT
    if isinstance(pattern, list):
        return _list(value, pattern) if isinstance(value, list) and pattern else _Fit.UNFIT
    found = value if isinstance(value, list) else [value]
    return _fit(all(patterns.fits(item, pattern) for item in found))


def _fit(holds: bool) -> _Fit:
    return _Fit.FITS if holds else _Fit.UNFIT


_FIRST = (Anchor.CONDITION, Anchor.ONE_OF, Anchor.IF_PRESENT, Anchor.ABSENT)


def _map(value: Document, pattern: Document) -> _Fit:
    """Anchors first: when one is not counted, what else is unfit does not matter any more."""
    skipped, applied = False, False
    for key in sorted(pattern):
        anchor, name = parse_anchor(key)
        if anchor not in _FIRST:
            continue
        found = _anchored(anchor, value, name, pattern[key])
        skipped = skipped or found is _Fit.NOT_COUNTED
        applied = applied or found is _Fit.FITS
        if found is _Fit.UNFIT and not skipped:
            return found
    if skipped:
        return _Fit.NOT_COUNTED
    rest = [key for key in pattern if parse_anchor(key)[0] not in _FIRST]
    for key in sorted(rest, key=lambda key: (not has_anchors(pattern[key]), key)):
        anchor, name = parse_anchor(key)
        found = _plain(anchor, value, key, name, pattern[key])
        if found is not _Fit.FITS:
            return found
    return _Fit.FITS


def _anchored(anchor: Anchor | None, value: Document, name: str, pattern: Value) -> _Fit:
    if anchor is Anchor.ABSENT:
        return _fit(name not in value)
    if anchor is Anchor.CONDITION:
        there = name in value and _tree(value[name], pattern) is _Fit.FITS
        return _Fit.FITS if there else _Fit.NOT_COUNTED
    if name not in value:
        return _Fit.FITS
    if anchor is Anchor.IF_PRESENT:
        return _tree(value[name], pattern)
    return _fit(_one_of_each(value[name], pattern))


def _one_of_each(value: Value, pattern: Value) -> bool:
    if not isinstance(value, list) or not isinstance(pattern, list):
        return False
    return all(
        isinstance(one, dict) and any(_tree(item, one) is _Fit.FITS for item in value)
        for one in pattern
    )


def _plain(anchor: Anchor | None, value: Document, key: str, name: str, pattern: Value) -> _Fit:
    if anchor is Anchor.GLOBAL:
        there = name not in value or _tree(value[name], pattern) is _Fit.FITS
        return _Fit.FITS if there else _Fit.NOT_COUNTED
    if pattern == "*":
        return _fit(value.get(key) is not None)
    return _tree(value.get(key), pattern)


def _list(value: list[Value], pattern: list[Value]) -> _Fit:
    first = pattern[0]
    if isinstance(first, list):
        if len(value) < len(pattern):
            return _Fit.UNFIT
        return _counted([_tree(item, one) for item, one in zip(value, pattern, strict=False)])
    if isinstance(first, dict):
        return _counted([_tree(item, first) for item in value])
    return _tree(value, first)


def _counted(found: list[_Fit]) -> _Fit:
    if _Fit.UNFIT in found:
        return _Fit.UNFIT
    if found and _Fit.FITS not in found:
        return _Fit.NOT_COUNTED
    return _Fit.FITS
