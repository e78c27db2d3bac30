"""JMESPath's own functions where upstream's engine does otherwise than the library that we use.

`to_string` writes JSON as Go does, numbers and keys included; `contains` compares without turning
true into 1; the others refuse what the library lets pass. Keys and values of a map come in the
order of the keys, where upstream has another order each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from generators.documents.json import Value, equal
from generators.kyverno.failures import BadExpression
from generators.kyverno.language.printing import as_text
from generators.kyverno.language.quantities import parse_float

_Run = Callable[[Sequence[Value]], Value]


def _contains(arguments: Sequence[Value]) -> Value:
    where, what = arguments
    if isinstance(where, str):
        return isinstance(what, str) and what in where
    if not isinstance(where, list):
        raise BadExpression("contains(): argument 1 must be a string or a list")
    if isinstance(what, dict | list):
        return False
    return any(equal(item, what) for item in where)


def _average(arguments: Sequence[Value]) -> Value:
    (numbers,) = arguments
    if not isinstance(numbers, list) or not numbers:
        raise BadExpression("avg(): a list with at least one number is needed")
    total = 0.0
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise BadExpression("avg(): every element must be a number")
        total += number
    return total / len(numbers)


def _merge(arguments: Sequence[Value]) -> Value:
    result: dict[str, Value] = {}
    for argument in arguments:
        if not isinstance(argument, dict):
            raise BadExpression("merge(): every argument must be an object")
        result |= argument
    return result


def _keys(arguments: Sequence[Value]) -> Value:
    return [*sorted(_object("keys", arguments))]


def _values(arguments: Sequence[Value]) -> Value:
    held = _object("values", arguments)
    return [held[key] for key in sorted(held)]


def _object(name: str, arguments: Sequence[Value]) -> Mapping[str, Value]:
    (held,) = arguments
    if not isinstance(held, dict):
        raise BadExpression(f"{name}(): the argument must be an object")
    return held


def _to_number(arguments: Sequence[Value]) -> Value:
    (value,) = arguments
    if isinstance(value, str):
        return parse_float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


ARITY: Mapping[str, tuple[int, int]] = {
    "avg": (1, 1),
    "contains": (2, 2),
    "keys": (1, 1),
    "merge": (1, 1_000),
    "to_number": (1, 1),
    "to_string": (1, 1),
    "values": (1, 1),
}

_FUNCTIONS: Mapping[str, _Run] = {
    "avg": _average,
    "contains": _contains,
    "keys": _keys,
    "merge": _merge,
    "to_number": _to_number,
    "to_string": lambda arguments: as_text(arguments[0]),
    "values": _values,
}


def call(name: str, arguments: Sequence[Value]) -> Value:
    """Call one of these; BadExpression says what is wrong with the arguments."""
    least, most = ARITY[name]
    if not least <= len(arguments) <= most:
        raise BadExpression(f"{name}(): wrong number of arguments: {len(arguments)}")
    return _FUNCTIONS[name](arguments)
