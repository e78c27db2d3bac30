"""Preconditions: sixteen operators over JSON values, wildcards on both sides.

Both sides are templates; a variable that leads nowhere is null here, and null equals only null. The
answer says which condition failed and what the two sides were.

    Equals, NotEquals            deep; strings as durations, quantities, else wildcards
    AnyIn ... AllNotIn           each element of the key in the value: a list, a JSON list, a range
    In, NotIn                    older names of AllIn, AllNotIn
    GreaterThan ...              numbers, quantities, durations, versions; one value on each side
    DurationGreaterThan ...      durations; bare numbers are seconds
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

from generators.documents.json import Value, compact, equal
from generators.kyverno.language import patterns, versions, wildcards
from generators.kyverno.language.quantities import SECOND, parse_duration, parse_quantity
from generators.kyverno.model import Condition, ConditionOperator, Conditions
from generators.kyverno.variables import Scope, Strictness, fill

_Op = ConditionOperator


def first_unmet(conditions: Conditions, scope: Scope) -> str:
    """Why the conditions do not hold; empty when they do."""
    for condition in conditions.all:
        if why := _unmet(condition, scope):
            return why
    if conditions.any is None:
        return ""
    reasons = []
    for condition in conditions.any:
        why = _unmet(condition, scope)
        if not why:
            return ""
        reasons.append(why)
    return "none of `any` holds: " + "; ".join(reasons) if reasons else ""


def _unmet(condition: Condition, scope: Scope) -> str:
    key = fill(condition.key, scope, Strictness.NULL)
    value = fill(condition.value, scope, Strictness.NULL)
    if holds(key, condition.operator, value):
        return ""
    shown = f"{compact(key):.100} {condition.operator} {compact(value):.100}"
    return f"{condition.message or shown} is not so (line {condition.key.place.line})"


def holds(key: Value, operator: ConditionOperator, value: Value) -> bool:
    """Whether the comparison is true."""
    match operator:
        case _Op.EQUALS:
            return _equals(key, value)
        case _Op.NOT_EQUALS:
            return not _equals(key, value)
        case _Op.ANY_IN:
            return any(_inside(key, value))
        case _Op.ALL_IN | _Op.IN:
            return _answerable(value) and all(_inside(key, value))
        case _Op.ANY_NOT_IN:
            return not _answerable(value) or not all(_inside(key, value))
        case _Op.ALL_NOT_IN | _Op.NOT_IN:
            return not any(_inside(key, value))
        case _Op.GREATER | _Op.GREATER_OR_EQUAL | _Op.LESS | _Op.LESS_OR_EQUAL:
            order = _order(key, value)
        case _:
            order = _duration_order(key, value)
    return order is not None and _SIGNS[operator](order)


_SIGNS: dict[ConditionOperator, Callable[[int], bool]] = {
    _Op.GREATER: lambda sign: sign > 0,
    _Op.GREATER_OR_EQUAL: lambda sign: sign >= 0,
    _Op.LESS: lambda sign: sign < 0,
    _Op.LESS_OR_EQUAL: lambda sign: sign <= 0,
    _Op.LONGER: lambda sign: sign > 0,
    _Op.LONGER_OR_EQUAL: lambda sign: sign >= 0,
    _Op.SHORTER: lambda sign: sign < 0,
    _Op.SHORTER_OR_EQUAL: lambda sign: sign <= 0,
}


def _equals(key: Value, value: Value) -> bool:
    if isinstance(key, str) and isinstance(value, str):
        return _equal_texts(key, value)
    pair = (key, value) if isinstance(key, str) else (value, key)
    if isinstance(pair[0], str) and _is_number(pair[1]):
        left, right = parse_duration(pair[0]), _seconds(pair[1])
        if left is not None and right is not None and pair[0] != "0":
            return left == right
        number = _as_fraction(pair[0])
        return number is not None and number == _as_fraction(pair[1])
    return equal(key, value)


def _equal_texts(key: str, value: str) -> bool:
    for parse in (parse_duration, parse_quantity):
        left, right = parse(key), parse(value)
        if left is not None and right is not None:
            return left == right
    return wildcards.matches(value, key) or wildcards.matches(key, value)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_fraction(value: Value) -> Fraction | None:
    if isinstance(value, str):
        return parse_quantity(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return Fraction(value)
        except (ValueError, OverflowError):
            return None
    return None


def _elements(key: Value) -> list[str]:
    items = key if isinstance(key, list) else [key]
    return [_word(item) for item in items]


def _word(value: Value) -> str:
    shown = patterns.scalar_text(value)
    return compact(value) if shown is None else shown


def _answerable(value: Value) -> bool:
    """Null holds nothing and excludes nothing: AllIn of it is no, AnyNotIn of it is yes."""
    return value is not None


def _inside(key: Value, value: Value) -> list[bool]:
    """For each element of the key, whether it is in the value."""
    if key is None:
        return [False]
    if isinstance(value, str):
        return [_in_text(item, value) for item in _elements(key)]
    if value is None:
        return [False for _ in _elements(key)]
    allowed = [_word(item) for item in value] if isinstance(value, list) else [_word(value)]
    return [
        any(wildcards.matches(a, item) or wildcards.matches(item, a) for a in allowed)
        for item in _elements(key)
    ]


def _in_text(item: str, value: str) -> bool:
    """In a single pattern, a range, or a JSON list of patterns."""
    if wildcards.matches(value, item) or wildcards.matches(item, value):
        return True
    if value.startswith("["):
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            return False
        return isinstance(listed, list) and any(
            isinstance(entry, str) and wildcards.matches(entry, item) for entry in listed
        )
    return patterns.is_range(value) and patterns.fits_text(item, value)


_Comparable: TypeAlias = Fraction | int | versions.Version


def _sign(left: _Comparable, right: _Comparable) -> int:
    """Only ever called with two of one kind."""
    if isinstance(left, tuple) and isinstance(right, tuple):
        return (left > right) - (left < right)
    if isinstance(left, tuple) or isinstance(right, tuple):
        return 0
    return (left > right) - (left < right)


def _order(key: Value, value: Value) -> int | None:
    """-1, 0, 1; None when the two cannot be compared."""
    if isinstance(key, str) or isinstance(value, str):
        left, right = _nanoseconds(key), _nanoseconds(value)
        if left is not None and right is not None:
            return _sign(left, right)
    one, other = _as_fraction(key), _as_fraction(value)
    if one is not None and other is not None:
        return _sign(one, other)
    if isinstance(key, str) and isinstance(value, str):
        older, newer = versions.parse(key), versions.parse(value)
        if older is not None and newer is not None:
            return _sign(older, newer)
    return None


def _nanoseconds(value: Value) -> int | None:
    if isinstance(value, str):
        return parse_duration(value)
    return _seconds(value)


def _seconds(value: Value) -> int | None:
    """A bare number as seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
        return int(value * SECOND)
    return None


def _duration_order(key: Value, value: Value) -> int | None:
    left, right = _nanoseconds(key), _nanoseconds(value)
    return None if left is None or right is None else _sign(left, right)
