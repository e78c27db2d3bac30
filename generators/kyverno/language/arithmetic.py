"""`add`, `subtract`, `multiply`, `divide`, `modulo`, `sum` over numbers, quantities and durations.

                 number    quantity               duration
    add, sub     same kind on both sides only
    multiply     any       by a number            by a number
    divide       any       by a number, or alike  by a number, or alike (gives a number)
    modulo       whole     alike                  alike

A string is a quantity where it reads as one (`"10"` is), else a duration; `30m` is what the other
side is. Results beyond what JSON
numbers hold exactly turn into floats, as they are upstream, so numbers cannot grow without end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction

from generators.documents.json import Value
from generators.kyverno.failures import BadExpression
from generators.kyverno.language.printing import json_number
from generators.kyverno.language.quantities import (
    is_binary,
    parse_duration,
    parse_quantity,
    scale_of,
    write_duration,
    write_quantity,
)

_EXACT = 2**53
_LARGEST = Fraction(10) ** 30


class _Kind(Enum):
    NUMBER = auto()
    QUANTITY = auto()
    DURATION = auto()


@dataclass(frozen=True, slots=True)
class _Operand:
    kind: _Kind
    amount: Fraction
    binary: bool = False

    def value(self) -> Value:
        if abs(self.amount) > _LARGEST:
            raise BadExpression("the result of the arithmetic is too large")
        if self.kind is _Kind.QUANTITY:
            return write_quantity(self.amount, self.binary)
        if self.kind is _Kind.DURATION:
            return write_duration(int(self.amount))
        if self.amount.denominator == 1 and abs(self.amount.numerator) <= _EXACT:
            return self.amount.numerator
        return float(self.amount)


def _operand(value: Value, function: str) -> _Operand:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadExpression(f"{function}(): {value} is not a finite number")
        return _Operand(_Kind.NUMBER, Fraction(value))
    if isinstance(value, str):
        quantity = parse_quantity(value)
        if quantity is not None:
            return _Operand(_Kind.QUANTITY, quantity, is_binary(value))
        duration = parse_duration(value)
        if duration is not None:
            return _Operand(_Kind.DURATION, Fraction(duration))
    raise BadExpression(f"{function}(): {value!r} is not a number, quantity or duration")


def _pair(left: Value, right: Value, function: str) -> tuple[_Operand, _Operand]:
    """Both operands; beside a duration, `30m` is half an hour and not 30 thousandths."""
    one, other = _operand(left, function), _operand(right, function)
    if {one.kind, other.kind} == {_Kind.QUANTITY, _Kind.DURATION}:
        spans = [
            parse_duration(value) if isinstance(value, str) else None for value in (left, right)
        ]
        if spans[0] is not None and spans[1] is not None:
            one, other = (_Operand(_Kind.DURATION, Fraction(span or 0)) for span in spans)
    return one, other


def _mismatch(function: str, one: _Operand, other: _Operand) -> BadExpression:
    kinds = f"{one.kind.name.lower()} and {other.kind.name.lower()}"
    return BadExpression(f"{function}(): cannot combine {kinds}")


def _alike(
    function: str, combine: Callable[[Fraction, Fraction], Fraction]
) -> Callable[[Value, Value], Value]:
    def run(left: Value, right: Value) -> Value:
        one, other = _pair(left, right, function)
        if one.kind is not other.kind:
            raise _mismatch(function, one, other)
        return _Operand(one.kind, combine(one.amount, other.amount), one.binary).value()

    return run


add = _alike("add", lambda a, b: a + b)
subtract = _alike("subtract", lambda a, b: a - b)


def multiply(left: Value, right: Value) -> Value:
    """At least one side is a plain number."""
    one, other = _pair(left, right, "multiply")
    if _Kind.NUMBER not in (one.kind, other.kind):
        raise _mismatch("multiply", one, other)
    scaled = other if one.kind is _Kind.NUMBER else one
    return _Operand(scaled.kind, one.amount * other.amount, scaled.binary).value()


def divide(left: Value, right: Value) -> Value:
    """By a plain number, or by the same kind, which gives a plain number."""
    one, other = _pair(left, right, "divide")
    if other.amount == 0:
        raise BadExpression("divide(): division by zero")
    quotient = one.amount / other.amount
    if one.kind is other.kind:
        return _Operand(_Kind.NUMBER, quotient).value()
    if other.kind is not _Kind.NUMBER:
        raise _mismatch("divide", one, other)
    if one.kind is _Kind.QUANTITY:
        # Cut off where the more precise of the two sides ends, as they are written.
        scale = max(scale_of(str(left)), scale_of(json_number(float(other.amount))))
        step = Fraction(10) ** -scale
        quotient = int(quotient / step) * step
    return _Operand(one.kind, quotient, one.binary).value()


def modulo(left: Value, right: Value) -> Value:
    """The remainder, with the sign of the left side."""
    one, other = _pair(left, right, "modulo")
    if one.kind is not other.kind:
        raise _mismatch("modulo", one, other)
    if other.amount == 0:
        raise BadExpression("modulo(): division by zero")
    spans = one.kind is _Kind.DURATION
    if not spans and not one.amount.denominator == other.amount.denominator == 1:
        raise BadExpression("modulo(): both sides must be whole")
    rest = abs(one.amount) % abs(other.amount)
    return _Operand(one.kind, -rest if one.amount < 0 else rest, one.binary).value()


def total(items: list[Value]) -> Value:
    """All items, added from left to right."""
    if not items:
        raise BadExpression("sum(): at least one element is needed")
    result = items[0]
    for item in items[1:]:
        result = add(result, item)
    return result
