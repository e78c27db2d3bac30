"""What expressions may call: CEL's own functions, those of Kubernetes and of upstream's libraries.

One table by name: `size` is a function, `.size` a method, `math.ceil` one of a library. Some are
left out on purpose, with the reason that lint and errors give.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from functools import cmp_to_key
from itertools import pairwise
from typing import TypeVar

from generators.documents.json import compact
from generators.kyverno.cel.conversions import (
    duration,
    of_time,
    size,
    timestamp,
    to_bool,
    to_bytes,
    to_double,
    to_int,
    to_string,
    to_uint,
)
from generators.kyverno.cel.operators import OPERATORS, add, listed, no_overload, order
from generators.kyverno.cel.syntax import Node
from generators.kyverno.cel.texts import (
    INDEX_OF,
    LAST_INDEX_OF,
    TEXTS,
    Run,
    sized,
    text_of,
    whole,
)
from generators.kyverno.cel.values import (
    CelValue,
    Kind,
    Optional,
    Quantity,
    Spend,
    checked_int,
    equal,
    is_number,
    to_json,
    type_name,
)
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import functions as jmespath
from generators.kyverno.language.functions import Surroundings
from generators.kyverno.language.quantities import is_binary, parse_quantity

LEFT_OUT = {
    "globalContext": "global context entries are not read",
    "gzip": "compressed data is not supported",
    "http": "policies read the API only",
    "image": "images are not supported",
    "images": "images are not supported",
    "x509": "certificates are not supported",
}
"""Libraries of upstream."""
_MICROSECOND = timedelta(microseconds=1)
_T = TypeVar("_T")


def call(name: str, arguments: Sequence[CelValue], surroundings: Surroundings) -> CelValue:
    """Call a function; BadExpression where there is none for such arguments."""
    try:
        if (run := FUNCTIONS.get(name)) is not None:
            return run(arguments, surroundings.meter.spend)
        if (asked := _WITH_SURROUNDINGS.get(name)) is not None:
            return asked(arguments, surroundings)
    except (IndexError, OverflowError) as error:
        raise BadExpression(f"{name.lstrip('.')}(): {error}") from None
    raise BadExpression(f"undeclared reference to function {name.lstrip('.')!r}")


# --- lists and sets ------------------------------------------------------------------------------


def _sum(arguments: Sequence[CelValue], spend: Spend) -> CelValue:
    items = listed(arguments[0])
    total: CelValue = items[0] if items else 0
    for item in items[1:]:
        total = add([total, item], spend)
    return total


def _extreme(sign: int) -> Run:
    def run(arguments: Sequence[CelValue], spend: Spend) -> CelValue:
        items = listed(arguments[0]) if len(arguments) == 1 else list(arguments)
        spend(1 + len(items))
        if not items:
            raise BadExpression("min() and max() of an empty list")
        return sorted(items, key=cmp_to_key(lambda a, b: sign * order(a, b)))[0]

    return run


def _sorted(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    items = listed(arguments[0])
    spend(1 + 8 * len(items))
    return sorted(items, key=cmp_to_key(order))


def _is_sorted(arguments: Sequence[CelValue], spend: Spend) -> bool:
    items = listed(arguments[0])
    spend(1 + len(items))
    return all(order(a, b) <= 0 for a, b in pairwise(items))


def _distinct(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    made: list[CelValue] = []
    for item in listed(arguments[0]):
        if not any(equal(item, each, spend) for each in made):
            made.append(item)
    return made


def _flatten(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    items = listed(arguments[0])
    depth = whole(arguments[1]) if len(arguments) > 1 else 1
    if depth < 0:
        raise BadExpression("flatten(): level must be non-negative")
    made: list[CelValue] = []
    for item in items:
        if isinstance(item, list) and depth > 0:
            made += _flatten([item, depth - 1], spend)
        else:
            made.append(item)
    spend(1 + len(made))
    return made


def _slice(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    items, start, end = listed(arguments[0]), whole(arguments[1]), whole(arguments[2])
    if not 0 <= start <= end <= len(items):
        raise BadExpression(f"cannot slice({start}, {end}) a list of {len(items)}")
    spend(1 + end - start)
    return items[start:end]


def _range(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    count = whole(arguments[0])
    spend(1 + max(count, 0))
    return list(range(count))


def _place(last: bool) -> Run:
    of_text = LAST_INDEX_OF if last else INDEX_OF

    def run(arguments: Sequence[CelValue], spend: Spend) -> CelValue:
        held = arguments[0]
        if not isinstance(held, list):
            return of_text(arguments, spend)
        places = [n for n, item in enumerate(held) if equal(item, arguments[1], spend)]
        return places[-1 if last else 0] if places else -1

    return run


def _reversed(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    held = listed(arguments[0])
    spend(1 + len(held))
    return held[::-1]


def _covers(arguments: Sequence[CelValue], spend: Spend) -> bool:
    held, wanted = listed(arguments[0]), listed(arguments[1])
    return all(any(equal(item, each, spend) for each in held) for item in wanted)


def _meets(arguments: Sequence[CelValue], spend: Spend) -> bool:
    held, wanted = listed(arguments[0]), listed(arguments[1])
    return any(equal(item, each, spend) for each in held for item in wanted)


# --- optional values -----------------------------------------------------------------------------


def _optional(value: CelValue) -> Optional:
    if not isinstance(value, Optional):
        raise no_overload("an optional's method", value)
    return value


def _or_value(arguments: Sequence[CelValue], _: Spend) -> CelValue:
    """A value that is not optional stays itself: so it is upstream."""
    held, other = arguments
    if not isinstance(held, Optional):
        return held
    return held.held[0] if held.held else other


def _value(arguments: Sequence[CelValue], _: Spend) -> CelValue:
    held = _optional(arguments[0]).held
    if not held:
        raise BadExpression("optional.none() dereference")
    return held[0]


def _non_zero(arguments: Sequence[CelValue], _: Spend) -> Optional:
    value = arguments[0]
    empty = value is None or (isinstance(value, str | bytes | list | dict) and not value)
    zero = is_number(value) and value == 0
    return Optional() if empty or zero or value is False else Optional((value,))


# --- quantities ----------------------------------------------------------------------------------


def _quantity(arguments: Sequence[CelValue], _: Spend) -> Quantity:
    text = text_of(arguments[0])
    number = parse_quantity(text)
    if number is None:
        raise BadExpression(f"{text!r:.60} is not a quantity")
    return Quantity(number, is_binary(text))


def _of_quantities(run: Callable[[Fraction, Fraction], _T]) -> Callable[..., _T]:
    def ask(arguments: Sequence[CelValue], _: Spend) -> _T:
        first, second = (_number(each) for each in arguments)
        return run(first, second)

    return ask


def _number(value: CelValue) -> Fraction:
    if isinstance(value, Quantity):
        return value.number
    return Fraction(whole(value))


def _changed(sign: int) -> Run:
    def run(arguments: Sequence[CelValue], _: Spend) -> Quantity:
        held = arguments[0]
        if not isinstance(held, Quantity):
            raise no_overload("add and sub", held)
        return Quantity(held.number + sign * _number(arguments[1]), held.binary)

    return run


# --- the table -----------------------------------------------------------------------------------


def _rounded(arguments: Sequence[CelValue], _: Spend) -> float:
    """math.round(x), and upstream's math.round(x, digits): halves go away from zero."""
    value = to_double(arguments, _)
    shift = 10.0 ** whole(arguments[1]) if len(arguments) > 1 else 1.0
    if not math.isfinite(value) or not math.isfinite(value * shift):
        return value
    return math.copysign(math.floor(abs(value * shift) + 0.5), value) / shift


def _of_double(run: Callable[[float], CelValue]) -> Run:
    def ask(arguments: Sequence[CelValue], spend: Spend) -> CelValue:
        value = to_double(arguments, spend)
        return run(value) if math.isfinite(value) else value

    return ask


def _absolute(arguments: Sequence[CelValue], _: Spend) -> CelValue:
    value = arguments[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise no_overload("math.abs", value)
    return abs(value) if isinstance(value, float) else checked_int(abs(value))


def _decoded(arguments: Sequence[CelValue], _: Spend) -> bytes:
    text = text_of(arguments[0])
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadExpression(f"base64.decode(): {error}") from None


def _marshalled(arguments: Sequence[CelValue], spend: Spend) -> str:
    return sized(compact(to_json(arguments[0], spend)), spend)


def _account(arguments: Sequence[CelValue], _: Spend) -> dict[str, CelValue]:
    rest = text_of(arguments[0])
    ours = rest.startswith("system:serviceaccount:") and rest.count(":") > 2
    parts = rest.split(":", 3) if ours else ["", "", "", ""]
    return {"Namespace": parts[2], "Name": parts[3]}


FUNCTIONS: Mapping[str, Run] = {
    **TEXTS,
    **OPERATORS,
    "bool": to_bool,
    "bytes": to_bytes,
    "double": to_double,
    "duration": duration,
    "dyn": lambda a, _: a[0],
    "int": to_int,
    "isQuantity": lambda a, _: isinstance(a[0], str) and parse_quantity(a[0]) is not None,
    "quantity": _quantity,
    "size": size,
    "string": to_string,
    "timestamp": timestamp,
    "type": lambda a, _: Kind(type_name(a[0])),
    "uint": to_uint,
    ".size": size,
    ".getDate": of_time(lambda t: t.day, None),
    ".getDayOfMonth": of_time(lambda t: t.day - 1, None),
    ".getDayOfWeek": of_time(lambda t: t.isoweekday() % 7, None),
    ".getDayOfYear": of_time(lambda t: t.timetuple().tm_yday - 1, None),
    ".getFullYear": of_time(lambda t: t.year, None),
    ".getHours": of_time(lambda t: t.hour, lambda d: d // timedelta(hours=1)),
    ".getMilliseconds": of_time(
        lambda t: t.microsecond // 1000, lambda d: d // timedelta(milliseconds=1)
    ),
    ".getMinutes": of_time(lambda t: t.minute, lambda d: d // timedelta(minutes=1)),
    ".getMonth": of_time(lambda t: t.month - 1, None),
    ".getSeconds": of_time(lambda t: t.second, lambda d: d // timedelta(seconds=1)),
    ".distinct": _distinct,
    ".first": lambda a, _: Optional(tuple(listed(a[0])[:1])),
    ".flatten": _flatten,
    ".indexOf": _place(last=False),
    ".isSorted": _is_sorted,
    ".last": lambda a, _: Optional(tuple(listed(a[0])[-1:])),
    ".lastIndexOf": _place(last=True),
    ".max": _extreme(-1),
    ".min": _extreme(1),
    ".reverse": _reversed,
    ".slice": _slice,
    ".sort": _sorted,
    ".sum": _sum,
    "lists.range": _range,
    "sets.contains": _covers,
    "sets.equivalent": lambda a, spend: _covers(a, spend) and _covers([a[1], a[0]], spend),
    "sets.intersects": _meets,
    ".hasValue": lambda a, _: bool(_optional(a[0]).held),
    ".or": lambda a, _: a[0] if _optional(a[0]).held else _optional(a[1]),
    ".orValue": _or_value,
    ".value": _value,
    "optional.none": lambda a, _: Optional(),
    "optional.of": lambda a, _: Optional((a[0],)),
    "optional.ofNonZeroValue": _non_zero,
    ".add": _changed(1),
    ".asApproximateFloat": lambda a, _: float(_number(a[0])),
    ".asInteger": lambda a, _: checked_int(int(_number(a[0]))),
    ".compareTo": _of_quantities(lambda a, b: (a > b) - (a < b)),
    ".isGreaterThan": _of_quantities(lambda a, b: a > b),
    ".isInteger": lambda a, _: _number(a[0]).denominator == 1,
    ".isLessThan": _of_quantities(lambda a, b: a < b),
    ".sub": _changed(-1),
    "base64.decode": _decoded,
    "base64.encode": lambda a, spend: sized(base64.b64encode(to_bytes(a, spend)).decode(), spend),
    "json.marshal": _marshalled,
    "math.@max": _extreme(-1),
    "math.@min": _extreme(1),
    "math.abs": _absolute,
    "math.ceil": _of_double(lambda v: float(math.ceil(v))),
    "math.floor": _of_double(lambda v: float(math.floor(v))),
    "math.isNaN": lambda a, spend: math.isnan(to_double(a, spend)),
    "math.round": _rounded,
    "math.trunc": _of_double(lambda v: float(math.trunc(v))),
    "parseServiceAccount": _account,
    "user.parseServiceAccount": _account,
}


def _by_jmespath(name: str) -> Callable[[Sequence[CelValue], Surroundings], CelValue]:
    """What both languages have."""

    def run(arguments: Sequence[CelValue], surroundings: Surroundings) -> CelValue:
        spend = surroundings.meter.spend
        given = [to_json(argument, spend) for argument in arguments]
        spend(1 + sum(len(each) // 8 for each in given if isinstance(each, str)))
        return jmespath.call(name, given, surroundings)

    return run


def _random(arguments: Sequence[CelValue], surroundings: Surroundings) -> CelValue:
    pattern = text_of(arguments[0]) if arguments else "[0-9a-z]{8}"
    return jmespath.call("random", [pattern], surroundings)


_WITH_SURROUNDINGS: Mapping[str, Callable[[Sequence[CelValue], Surroundings], CelValue]] = {
    **{name: _by_jmespath(name) for name in ("md5", "sha1", "sha256")},
    **{f"hash.{name}": _by_jmespath(name) for name in ("md5", "sha1", "sha256")},
    "json.unmarshal": _by_jmespath("parse_json"),
    "random": _random,
    "random.random": _random,
    "time.now": lambda _, surroundings: surroundings.now(),
    "yaml.parse": _by_jmespath("parse_yaml"),
}
NAMES = frozenset((*FUNCTIONS, *_WITH_SURROUNDINGS))


# --- macros of two variables ---------------------------------------------------------------------

Pairs = Sequence[tuple[CelValue, CelValue]]
Macro = Callable[[Pairs, Sequence[Node], Callable[[CelValue, CelValue, Node], CelValue]], CelValue]


def _truth(value: CelValue) -> bool:
    if not isinstance(value, bool):
        raise BadExpression(f"a {type_name(value)} is neither true nor false")
    return value


def _decided(by: bool) -> Macro:
    def run(
        pairs: Pairs, nodes: Sequence[Node], at: Callable[[CelValue, CelValue, Node], CelValue]
    ) -> bool:
        error: BadExpression | None = None
        for key, value in pairs:
            try:
                if _truth(at(key, value, nodes[0])) is by:
                    return by
            except BadExpression as failed:
                error = error or failed
        if error is not None:
            raise error
        return not by

    return run


def _exists_one(
    pairs: Pairs, nodes: Sequence[Node], at: Callable[[CelValue, CelValue, Node], CelValue]
) -> bool:
    return sum(_truth(at(key, value, nodes[0])) for key, value in pairs) == 1


def _transformed(maps: bool) -> Macro:
    def run(
        pairs: Pairs, nodes: Sequence[Node], at: Callable[[CelValue, CelValue, Node], CelValue]
    ) -> CelValue:
        kept = [
            (key, value)
            for key, value in pairs
            if len(nodes) == 1 or _truth(at(key, value, nodes[0]))
        ]
        made = {key: at(key, value, nodes[-1]) for key, value in kept}
        return made if maps else [*made.values()]

    return run


MACROS: Mapping[tuple[str, int], Macro] = {
    ("all", 3): _decided(by=False),
    ("exists", 3): _decided(by=True),
    ("existsOne", 3): _exists_one,
    ("exists_one", 3): _exists_one,
    ("transformList", 3): _transformed(maps=False),
    ("transformList", 4): _transformed(maps=False),
    ("transformMap", 3): _transformed(maps=True),
    ("transformMap", 4): _transformed(maps=True),
}
