"""Patterns: does a value fit `*-test02`, `!kube-system`, `1-10`, `>= 100Mi`, `a | b & c`?

Used by the anchors of patches. A pattern that is a map is compared key by key, with anchors inside
(table in `kyverno/patches/anchors.py`); one that is a list of maps must fit every element of the
object's list.

    pattern      fits
    a | b, a & b either, both; `&` binds tighter
    !a           what `a` does not fit
    > >= < <=    numbers, quantities, durations
    a-b, a!-b    inside, outside the range, both ends count as inside
    true, 1, 1.5 that value, or the number written as a string
    null         null, "", 0 and false
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction

from generators.documents.json import Value
from generators.kyverno.language import wildcards
from generators.kyverno.language.printing import scientific
from generators.kyverno.language.quantities import parse_duration, parse_float, parse_quantity


class Comparison(StrEnum):
    """How a scalar is compared with the rest of its pattern."""

    EQUAL = ""
    NOT_EQUAL = "!"
    MORE = ">"
    MORE_OR_EQUAL = ">="
    LESS = "<"
    LESS_OR_EQUAL = "<="


_END = r"[-|+]?[0-9]+(?:\.[0-9]+)?[A-Za-z]*"
_RANGE = re.compile(rf"({_END})-({_END})")
_OUTSIDE = re.compile(rf"({_END})!-({_END})")
_LONGEST_RANGE = 100


def fits(value: Value, pattern: Value) -> bool:
    """Whether a scalar value fits a scalar pattern; a map pattern asks only for a map."""
    if isinstance(pattern, bool):
        return value is pattern
    if isinstance(pattern, int | float):
        return _fits_number(value, pattern)
    if pattern is None:
        return value is None or value == "" or value is False or (value == 0 and not _is_map(value))
    if isinstance(pattern, str):
        return fits_text(value, pattern)
    return isinstance(pattern, dict) and isinstance(value, dict)


def _is_map(value: Value) -> bool:
    return isinstance(value, dict | list)


def _fits_number(value: Value, pattern: float) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return value == pattern
    return isinstance(value, str) and parse_float(value) == pattern


def fits_text(value: Value, pattern: str) -> bool:
    """Whether a scalar fits a string pattern with its `|` and `&`."""
    if value == pattern:
        return True
    return any(
        all(_fits_one(value, part.strip()) for part in choice.split("&"))
        for choice in pattern.split("|")
    )


def _fits_one(value: Value, pattern: str) -> bool:
    comparison = comparison_of(pattern)
    if comparison is Comparison.EQUAL and len(pattern) <= _LONGEST_RANGE:
        if outside := _OUTSIDE.fullmatch(pattern):
            low, high = outside.groups()
            return _compare(value, low, Comparison.LESS) or _compare(value, high, Comparison.MORE)
        if inside := _RANGE.fullmatch(pattern):
            low, high = inside.groups()
            above = _compare(value, low, Comparison.MORE_OR_EQUAL)
            return above and _compare(value, high, Comparison.LESS_OR_EQUAL)
    return _compare(value, pattern[len(comparison.value) :].strip(), comparison)


def comparison_of(pattern: str) -> Comparison:
    """The operator that a pattern begins with; alone it is none."""
    if len(pattern) < 2:
        return Comparison.EQUAL
    for candidate in (Comparison.MORE_OR_EQUAL, Comparison.LESS_OR_EQUAL):
        if pattern.startswith(candidate.value):
            return candidate
    for candidate in (Comparison.MORE, Comparison.LESS, Comparison.NOT_EQUAL):
        if pattern.startswith(candidate.value):
            return candidate
    return Comparison.EQUAL


_ORDER: dict[Comparison, Callable[[Fraction | int, Fraction | int], bool]] = {
    Comparison.EQUAL: lambda a, b: a == b,
    Comparison.NOT_EQUAL: lambda a, b: a != b,
    Comparison.MORE: lambda a, b: a > b,
    Comparison.MORE_OR_EQUAL: lambda a, b: a >= b,
    Comparison.LESS: lambda a, b: a < b,
    Comparison.LESS_OR_EQUAL: lambda a, b: a <= b,
}


def _compare(value: Value, pattern: str, comparison: Comparison) -> bool:
    """A pair of durations, else of quantities, else texts with wildcards."""
    given = number_text(value)
    if given is not None:
        for parse in (parse_duration, parse_quantity):
            left, right = parse(given), parse(pattern)
            if left is not None and right is not None:
                return _ORDER[comparison](left, right)
    if comparison not in (Comparison.EQUAL, Comparison.NOT_EQUAL):
        return False
    shown = scalar_text(value)
    if shown is None:
        return False
    return wildcards.matches(pattern, shown) is (comparison is Comparison.EQUAL)


def number_text(value: Value) -> str | None:
    """A scalar as text that may be a number; null counts as 0."""
    if value is None:
        return "0"
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return f"{value:f}" if abs(value) < 1e30 else None
    return value if isinstance(value, str) else None


def scalar_text(value: Value) -> str | None:
    """A scalar as the text that wildcards see; None for null, maps and lists."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return scientific(value)
    return value if isinstance(value, str) else None


def is_range(pattern: str) -> bool:
    """Whether a text is a range such as `1-10`."""
    return len(pattern) <= _LONGEST_RANGE and _RANGE.fullmatch(pattern) is not None
