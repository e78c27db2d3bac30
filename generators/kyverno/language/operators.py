"""The operators of conditions over plain values, as upstream's engine compares them.

    Equals, NotEquals      deep; a text as duration, else as quantity, else the value is a pattern
    AnyIn ... AllNotIn     each element of the key in the value: a list, a JSON list, a range
    In, NotIn              older; a list of the key has to hold texts, compared without wildcards
    GreaterThan ...        durations, quantities, numbers, versions; one value on each side
    DurationGreaterThan... durations; bare numbers are whole seconds

The two sides are not alike: a text on the left never equals a number, a number on the left is
looked for in a text on the right. What a side cannot be compared with is neither equal nor unequal
where the left side is null, and unequal otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

from generators.documents.json import Value, equal
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import patterns, versions, wildcards
from generators.kyverno.language.printing import sprint
from generators.kyverno.language.quantities import (
    SECOND,
    parse_duration,
    parse_float,
    parse_quantity,
)
from generators.kyverno.model import ConditionOperator

_Op = ConditionOperator
_Sign = Callable[[int], bool]
_SIGNS: dict[ConditionOperator, _Sign] = {
    _Op.GREATER: lambda sign: sign > 0,
    _Op.GREATER_OR_EQUAL: lambda sign: sign >= 0,
    _Op.LESS: lambda sign: sign < 0,
    _Op.LESS_OR_EQUAL: lambda sign: sign <= 0,
    _Op.LONGER: lambda sign: sign > 0,
    _Op.LONGER_OR_EQUAL: lambda sign: sign >= 0,
    _Op.SHORTER: lambda sign: sign < 0,
    _Op.SHORTER_OR_EQUAL: lambda sign: sign <= 0,
}


def holds(key: Value, operator: ConditionOperator, value: Value) -> bool:
    """Whether the comparison is true; BadExpression for what In and NotIn cannot take."""
    match operator:
        case _Op.EQUALS | _Op.EQUAL:
            return key is not None and _equals(key, value)
        case _Op.NOT_EQUALS | _Op.NOT_EQUAL:
            return key is not None and not _equals(key, value)
        case _Op.IN | _Op.NOT_IN:
            return _older(key, value, negated=operator is _Op.NOT_IN)
        case _Op.ANY_IN | _Op.ALL_IN | _Op.ANY_NOT_IN | _Op.ALL_NOT_IN:
            return _membership(key, operator, value)
        case _Op.GREATER | _Op.GREATER_OR_EQUAL | _Op.LESS | _Op.LESS_OR_EQUAL:
            order = _order(key, value)
        case _:
            order = _duration_order(key, value)
    return order is not None and _SIGNS[operator](order)


def is_number(value: Value) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equals(key: Value, value: Value) -> bool:
    if isinstance(key, str):
        return _text_equals(key, value)
    if isinstance(key, bool) or not isinstance(key, int | float):
        return type(key) is type(value) and equal(key, value)
    if isinstance(value, str):
        return parse_float(value) == key
    return is_number(value) and equal(key, value)


def _text_equals(key: str, value: Value) -> bool:
    spans = _spans(key, value)
    if spans is not None:
        return spans[0] == spans[1]
    if not isinstance(value, str):
        return False
    amount = parse_quantity(key)
    if amount is not None:
        return amount == parse_quantity(value)
    return wildcards.matches(value, key)


def _spans(key: Value, value: Value) -> tuple[int, int] | None:
    """Both sides in nanoseconds where one is a duration; beside it a number is whole seconds."""
    texts = [_span(key), _span(value)]
    if texts == [None, None]:
        return None
    left, right = (
        whole_seconds(side) if span is None else span
        for span, side in zip(texts, (key, value), strict=True)
    )
    return None if left is None or right is None else (left, right)


def _span(value: Value) -> int | None:
    return parse_duration(value) if isinstance(value, str) and value != "0" else None


def whole_seconds(value: Value) -> int | None:
    """A number as nanoseconds, its fraction cut off."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 9e9:
        return int(value) * SECOND
    return None


_Both = Callable[[str, str], bool]


def _either_fits(one: str, other: str) -> bool:
    return wildcards.matches(one, other) or wildcards.matches(other, one)


def _membership(key: Value, operator: ConditionOperator, value: Value) -> bool:
    every = operator in (_Op.ALL_IN, _Op.ALL_NOT_IN)
    negated = operator in (_Op.ANY_NOT_IN, _Op.ALL_NOT_IN)
    if isinstance(key, list):
        words = [sprint(item) for item in key]
        return _list_membership(words, value, every=every, negated=negated)
    if key is None or isinstance(key, dict):
        return False
    found = _one_inside(sprint(key), value)
    return found is not None and found is not negated


def _one_inside(word: str, value: Value) -> bool | None:
    """Whether a value that holds one word; None when the other side cannot hold any."""
    if isinstance(value, list):
        return any(_either_fits(sprint(item), word) for item in value)
    if not isinstance(value, str):
        return None
    if wildcards.matches(value, word):
        return True
    if patterns.is_range(value):
        return patterns.fits_text(word, value)
    listed = _listed(value)
    return None if listed is None else word in listed


def _listed(value: str) -> list[str] | None:
    """The texts of a JSON list, or the text itself; None for JSON that is no list of texts."""
    try:
        read = json.loads(value, parse_constant=_refused)
    except (ValueError, RecursionError):
        return [value]
    if read is None:
        return []
    if isinstance(read, list) and all(item is None or isinstance(item, str) for item in read):
        return [item or "" for item in read]
    return None


def _refused(word: str) -> None:
    raise ValueError(word)


def _list_membership(words: list[str], value: Value, *, every: bool, negated: bool) -> bool:
    if isinstance(value, list):
        return _sets(words, [sprint(item) for item in value], every=every, negated=negated)
    if is_number(value) or isinstance(value, bool):
        # Upstream looks for single values in the Any operators only.
        return not every and _sets(words, [sprint(value)], every=every, negated=negated)
    if not isinstance(value, str):
        return False
    if words == [value]:
        return not negated
    if patterns.is_range(value):
        return _range(words, value, every=every, negated=negated)
    listed = _listed(value)
    return listed is not None and _sets(words, listed, every=every, negated=negated)


def _sets(words: Sequence[str], allowed: Sequence[str], *, every: bool, negated: bool) -> bool:
    inside = [any(_either_fits(word, one) for one in allowed) for word in words]
    if negated:
        return not any(inside) if every else not all(inside)
    return all(inside) if every else any(inside)


def _range(words: Sequence[str], value: str, *, every: bool, negated: bool) -> bool:
    if negated and not every:
        outside = value.replace("-", "!-", 1)
        return any(patterns.fits_text(word, outside) for word in words)
    inside = [patterns.fits_text(word, value) for word in words]
    if negated:
        return not any(inside)
    return all(inside) if every else any(inside)


def _older(key: Value, value: Value, *, negated: bool) -> bool:
    """In and NotIn. NotIn of a list holds when one element is not inside."""
    if isinstance(key, list):
        if not all(isinstance(item, str) for item in key):
            raise BadExpression("In and NotIn take lists of texts; use AnyIn or AllIn")
        allowed = _older_values(value)
        if isinstance(value, str) and key == [value]:
            return True
        if allowed is None:
            return False
        return all(item in allowed for item in key) is not negated
    if key is None or isinstance(key, dict):
        return False
    word = sprint(key)
    if isinstance(value, list):
        return any(_either_fits(sprint(item), word) for item in value) is not negated
    if not isinstance(value, str):
        return False
    if wildcards.matches(value, word):
        return not negated
    allowed = _older_values(value)
    return allowed is not None and (word in allowed) is not negated


def _older_values(value: Value) -> list[str] | None:
    if isinstance(value, list):
        texts = [item for item in value if isinstance(item, str)]
        return texts if len(texts) == len(value) else None
    if not isinstance(value, str):
        return None
    listed = _listed(value)
    return None if listed == [value] else listed


_Comparable: TypeAlias = Fraction | int | float


def _sign(left: _Comparable, right: _Comparable) -> int:
    return (left > right) - (left < right)


def _order(key: Value, value: Value) -> int | None:
    """-1, 0, 1; None when the two cannot be compared."""
    if isinstance(key, bool) or not isinstance(key, int | float | str):
        return None
    spans = _spans(key, value) if isinstance(key, str) or isinstance(value, str) else None
    if spans is not None:
        return _sign(*spans)
    if not isinstance(key, str):
        return _number_order(key, value)
    if isinstance(value, str):
        amounts = parse_quantity(key), parse_quantity(value)
        if amounts[0] is not None and amounts[1] is not None:
            return _sign(amounts[0], amounts[1])
    number = parse_float(key)
    if number is not None:
        return _order(number, value)
    return _version_order(key, value)


def _number_order(key: float, value: Value) -> int | None:
    other = parse_float(value) if isinstance(value, str) else value
    if not isinstance(other, int | float) or isinstance(other, bool):
        return None
    return None if math.isnan(key) or math.isnan(other) else _sign(key, other)


def _version_order(key: str, value: Value) -> int | None:
    older = versions.parse(key)
    newer = versions.parse(value) if isinstance(value, str) else None
    if older is None or newer is None:
        return None
    return (older > newer) - (older < newer)


def _duration_order(key: Value, value: Value) -> int | None:
    left, right = (
        parse_duration(side) if isinstance(side, str) else whole_seconds(side)
        for side in (key, value)
    )
    return None if left is None or right is None else _sign(left, right)
