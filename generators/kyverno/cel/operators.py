"""CEL's operators on numbers, texts, lists and times. Both sides of arithmetic are of one type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from generators.kyverno.cel.syntax import Uint
from generators.kyverno.cel.texts import Run, sized
from generators.kyverno.cel.values import (
    CelValue,
    Quantity,
    Spend,
    checked_int,
    checked_uint,
    equal,
    is_number,
    type_name,
)
from generators.kyverno.failures import BadExpression


def no_overload(sign: str, *values: CelValue) -> BadExpression:
    """What is wrong where a function takes no values of such types."""
    return BadExpression(f"no such overload: {sign} of {', '.join(map(type_name, values))}")


def add(arguments: Sequence[CelValue], spend: Spend) -> CelValue:
    """`a + b` of numbers, texts, lists, times."""
    one, other = arguments
    match one, other:
        case str(), str():
            return sized(one + other, spend)
        case bytes(), bytes():
            spend(1 + (len(one) + len(other)) // 8)
            return one + other
        case list(), list():
            spend(1 + len(one) + len(other))
            return one + other
        case timedelta(), timedelta():
            return one + other
        case datetime(), timedelta():
            return one + other
        case timedelta(), datetime():
            return other + one
    return _counted("+", one, other, lambda a, b: a + b, lambda a, b: a + b)


def _subtract(arguments: Sequence[CelValue], _: Spend) -> CelValue:
    one, other = arguments
    if isinstance(one, datetime | timedelta) and isinstance(other, timedelta):
        return one - other
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one - other
    return _counted("-", one, other, lambda a, b: a - b, lambda a, b: a - b)


def _counted(
    sign: str,
    one: CelValue,
    other: CelValue,
    wholes: Callable[[int, int], int],
    doubles: Callable[[float, float], float],
) -> CelValue:
    """Both sides of one type: int, uint or double."""
    if isinstance(one, float) and isinstance(other, float):
        return doubles(one, other)
    if type(one) is type(other) and isinstance(one, int) and isinstance(other, int):
        if isinstance(one, Uint):
            return checked_uint(wholes(one, other))
        if not isinstance(one, bool):
            return checked_int(wholes(one, other))
    raise no_overload(sign, one, other)


def _quotient(one: int, other: int) -> int:
    if other == 0:
        raise BadExpression("division by zero")
    result = abs(one) // abs(other)
    return result if (one < 0) is (other < 0) else -result


def _remainder(one: int, other: int) -> int:
    if other == 0:
        raise BadExpression("modulus by zero")
    return one - other * _quotient(one, other)


def _divided(one: float, other: float) -> float:
    if other == 0:
        return math.nan if one == 0 or math.isnan(one) else math.copysign(math.inf, one * other)
    return one / other


def _no_doubles(one: float, other: float) -> float:
    raise no_overload("%", one, other)


def _negated(arguments: Sequence[CelValue], _: Spend) -> CelValue:
    value = arguments[0]
    if isinstance(value, float):
        return -value
    if isinstance(value, int) and not isinstance(value, bool | Uint):
        return checked_int(-value)
    raise no_overload("-", value)


def _not(arguments: Sequence[CelValue], _: Spend) -> bool:
    if not isinstance(arguments[0], bool):
        raise no_overload("!", arguments[0])
    return not arguments[0]


def order(one: CelValue, other: CelValue) -> int:
    """Below, at or above zero; numbers of all types compare."""
    numbers = is_number(one) and is_number(other)
    if numbers and isinstance(one, int | float) and isinstance(other, int | float):
        return (one > other) - (one < other)
    match one, other:
        case str(), str():
            return (one > other) - (one < other)
        case (bytes(), bytes()):
            return (one > other) - (one < other)
        case bool(), bool():
            return one - other
        case datetime(), datetime():
            return (one > other) - (one < other)
        case timedelta(), timedelta():
            return (one > other) - (one < other)
        case Quantity(), Quantity():
            return (one.number > other.number) - (one.number < other.number)
    raise no_overload("comparison", one, other)


def _comparing(holds: Callable[[int], bool]) -> Run:
    def run(arguments: Sequence[CelValue], spend: Spend) -> bool:
        for each in arguments:
            spend(1 + (len(each) // 8 if isinstance(each, str | bytes) else 0))
            if isinstance(each, float) and math.isnan(each):
                return False
        return holds(order(*arguments))

    return run


def _in(arguments: Sequence[CelValue], spend: Spend) -> bool:
    item, held = arguments
    if isinstance(held, dict):
        if held and isinstance(item, bytes):
            raise no_overload("in", item, held)
        return isinstance(item, str | int) and not isinstance(item, bool) and item in held
    return any(equal(item, each, spend) for each in listed(held))


def listed(value: CelValue) -> list[CelValue]:
    """A list; BadExpression for anything else."""
    if not isinstance(value, list):
        raise BadExpression(f"a {type_name(value)} where a list is needed")
    return value


def _counting(
    sign: str, wholes: Callable[[int, int], int], doubles: Callable[[float, float], float]
) -> Run:
    def run(arguments: Sequence[CelValue], _: Spend) -> CelValue:
        one, other = arguments
        return _counted(sign, one, other, wholes, doubles)

    return run


OPERATORS: Mapping[str, Run] = {
    "_+_": add,
    "_-_": _subtract,
    "_*_": _counting("*", lambda a, b: a * b, lambda a, b: a * b),
    "_/_": _counting("/", _quotient, _divided),
    "_%_": _counting("%", _remainder, _no_doubles),
    "-_": _negated,
    "!_": _not,
    "_<_": _comparing(lambda sign: sign < 0),
    "_<=_": _comparing(lambda sign: sign <= 0),
    "_>_": _comparing(lambda sign: sign > 0),
    "_>=_": _comparing(lambda sign: sign >= 0),
    "@in": _in,
}
