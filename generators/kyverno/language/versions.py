"""`semver_compare`: does a version lie in a range such as `>=1.2.0 <2.0.0 || 3.x`?

Ranges are those of the Go library that upstream uses: AND by space, OR by `||`, `x` as wildcard.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from generators.kyverno.failures import BadExpression

_VERSION = re.compile(
    r"(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})"
    r"(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)
_PART = re.compile(
    r"(==|=|!=|!|>=|<=|>|<)?\s*v?(\d{1,18}|x)(?:\.(\d{1,18}|x))?(?:\.(\d{1,18}|x)(-\S+)?)?",
    re.ASCII,
)

_Identifier: TypeAlias = tuple[int, int, str]
Version = tuple[int, int, int, tuple[_Identifier, ...]]
_RELEASE: tuple[_Identifier, ...] = ((2, 0, ""),)
"""Sorts after every pre-release."""


def parse(text: str) -> Version | None:
    """A semantic version, comparable with others; None for any other text."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    pre = found[4]
    return (int(found[1]), int(found[2]), int(found[3]), _identifiers(pre) if pre else _RELEASE)


def _identifiers(text: str) -> tuple[_Identifier, ...]:
    return tuple(
        (0, int(part[:18]), "") if part.isdecimal() else (1, 0, part) for part in text.split(".")
    )


def in_range(version: str, wanted: str) -> bool:
    """Whether the version lies in the range; a version that is none counts as 0.0.0."""
    actual = parse(version) or (0, 0, 0, _RELEASE)
    choices = [choice.split() for choice in re.sub(r"([=<>!])\s+", r"\1", wanted).split("||")]
    if not all(choices):
        raise BadExpression(f"semver_compare(): {wanted!r} is not a range")
    return any([all([_holds(actual, part, wanted) for part in choice]) for choice in choices])


def _holds(actual: Version, part: str, wanted: str) -> bool:
    found = _PART.fullmatch(part)
    if found is None:
        raise BadExpression(f"semver_compare(): {wanted!r} is not a range")
    sign = found[1] or "="
    numbers = [found[2], found[3] or "x", found[4] or "x"]
    fixed = numbers.index("x") if "x" in numbers else 3
    if "x" not in found.groups() and found[4] is None:
        raise BadExpression(f"semver_compare(): {part!r} needs three numbers, or an x")
    given = tuple(int(n) for n in numbers[:fixed])
    if fixed < 3:
        prefix = actual[:fixed]
        order = (prefix > given) - (prefix < given)
    else:
        pre = _identifiers(found[5][1:]) if found[5] else _RELEASE
        bound = (*given, pre)
        order = (actual > bound) - (actual < bound)
    match sign:
        case "=" | "==":
            return order == 0
        case "!" | "!=":
            return order != 0
        case ">":
            return order > 0
        case ">=":
            return order >= 0
        case "<":
            return order < 0
        case _:
            return order <= 0
