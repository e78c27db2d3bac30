"""The functions that policies may call in expressions beyond those of JMESPath itself.

One table, `FUNCTIONS`: name, what each argument must be, and what it does. Functions left out on
purpose are in `LEFT_OUT`, with the reason that lint and errors give.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from generators.documents.json import Value, compact, equal, value_of
from generators.documents.yaml import documents, plain
from generators.errors import InputError
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import arithmetic, regexes, times, versions, wildcards
from generators.kyverno.model import MAX_TEXT

MAX_STEPS = 1_000_000
"""Steps of all expressions and regular expressions that one rule may take for one request."""


ELEMENT_STEPS = 50
"""What an element of a `foreach` costs: its scope, and a copy of the object."""


def never() -> bool:
    """No clock limits the rule."""
    return False


@dataclass(slots=True)
class Meter:
    """Counts down what a rule may still do."""

    left: int = MAX_STEPS
    overdue: Callable[[], bool] = never
    """Whether the time for the rule is over."""

    def spend(self, steps: int) -> None:
        """BadExpression when there is nothing left."""
        self.left -= steps
        if self.left < 0:
            raise BadExpression(f"the rule took more than {MAX_STEPS} steps")
        if self.overdue():
            raise BadExpression("the rule took longer than the request can wait")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Inputs besides the arguments: the present time, `random()`'s choices, the steps left."""

    now: Callable[[], datetime]
    pick: Callable[[int], int]
    meter: Meter = field(default_factory=Meter)


class Type(Enum):
    """What an argument may be."""

    STRING = (str,)
    NUMBER = (int, float)
    TEXT = (str, int, float)
    OBJECT = (dict,)
    LIST = (list,)
    BOTH = (dict, list)
    KEY = (str, int, float)
    ANY = (object,)


LEFT_OUT = {
    "image_normalize": "images are not supported",
    "is_external_url": "it would make policies look names up",
    "x509_decode": "certificates are not supported",
}


@dataclass(frozen=True, slots=True)
class Function:
    """One function; arguments are checked before it runs."""

    arguments: tuple[Type, ...]
    run: Callable[[Sequence[Value], Surroundings], Value]


def call(name: str, arguments: Sequence[Value], surroundings: Surroundings) -> Value:
    """Call one of our functions; BadExpression says what is wrong with the arguments."""
    function = FUNCTIONS[name]
    wanted = function.arguments
    if len(arguments) != len(wanted):
        raise BadExpression(f"{name}() takes {len(wanted)} arguments, not {len(arguments)}")
    for number, (argument, kind) in enumerate(zip(arguments, wanted, strict=True), 1):
        fine = isinstance(argument, kind.value) and (
            kind is Type.ANY or not isinstance(argument, bool)
        )
        if not fine:
            what = kind.name.lower()
            raise BadExpression(
                f"{name}(): argument {number} must be a {what}, not {argument!r:.80}"
            )
    result = function.run(arguments, surroundings)
    if isinstance(result, str) and len(result) > MAX_TEXT:
        raise BadExpression(f"{name}() makes a text of {len(result)} characters")
    return result


def _s(value: Value) -> str:
    """A string, or a number as text: `call` let nothing else through."""
    return value if isinstance(value, str) else compact(value)


def _n(value: Value, name: str) -> int:
    """A whole number."""
    if isinstance(value, int | float) and abs(value) < 1e15 and value == int(value):
        return int(value)
    raise BadExpression(f"{name}(): {value!r} must be a whole number")


def _whole(value: Value) -> float:
    """A number without its fraction."""
    return math.trunc(value) if isinstance(value, int | float) and abs(value) < 1e15 else 0


def _upper(text: str) -> str:
    """Character by character: none becomes two."""
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in text)


def _lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _folded(text: str) -> str:
    return _lower(_upper(text))


def _replace(text: str, old: str, new: str, count: int) -> str:
    if not old and count < 0:
        count = len(text) + 1
    hits = (text.count(old) if old else len(text) + 1) if count < 0 else min(count, len(text) + 1)
    if len(text) + hits * len(new) > MAX_TEXT:
        raise BadExpression("replace() would make too long a text")
    return text.replace(old, new, count)


def _regex_replace(
    arguments: Sequence[Value], surroundings: Surroundings, *, literal: bool
) -> Value:
    pattern, text, new = (_s(argument) for argument in arguments)
    regex = regexes.compiled(pattern)
    made = 0

    def replacement(found: regexes.RegexMatch) -> str:
        nonlocal made
        part = new if literal else regexes.expand(new, found)
        made += len(part)
        if made > MAX_TEXT:
            raise BadExpression("a replacement would make too long a text")
        return part

    return regexes.replace(regex, text, replacement, surroundings.meter.spend)


def _lookup(arguments: Sequence[Value], _: Surroundings) -> Value:
    where, key = arguments
    if isinstance(where, dict):
        if not isinstance(key, str):
            raise BadExpression("lookup(): the key of an object must be a string")
        return where.get(key)
    if isinstance(where, list):
        index = _n(key, "lookup")
        return where[index] if 0 <= index < len(where) else None
    return None


def _items(arguments: Sequence[Value], _: Surroundings) -> Value:
    where, key_name, value_name = arguments
    pairs: list[tuple[Value, Value]] = []
    if isinstance(where, dict):
        pairs += sorted(where.items())
    elif isinstance(where, list):
        pairs += enumerate(where)
    return [{_s(key_name): key, _s(value_name): value} for key, value in pairs]


def _object_from_lists(arguments: Sequence[Value], _: Surroundings) -> Value:
    keys, values = arguments
    if not isinstance(keys, list) or not isinstance(values, list):
        return None
    if any(key is None or isinstance(key, list | dict) for key in keys):
        raise BadExpression("object_from_lists(): every key must be a plain value")
    padded = [*values, *[None] * len(keys)]
    return {_s(key): value for key, value in zip(keys, padded, strict=False)}


def _label_match(arguments: Sequence[Value], _: Surroundings) -> Value:
    wanted, labels = arguments
    if not isinstance(wanted, dict) or not isinstance(labels, dict):
        return False
    return all(key in labels and equal(labels[key], value) for key, value in wanted.items())


def _parse_json(arguments: Sequence[Value], _: Surroundings) -> Value:
    try:
        return value_of(json.loads(_s(arguments[0])))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadExpression(f"parse_json(): {error}") from None


def _parse_yaml(arguments: Sequence[Value], _: Surroundings) -> Value:
    try:
        read = list(documents(_s(arguments[0]).encode(errors="replace"), "parse_yaml()"))
    except InputError as error:
        raise BadExpression(str(error)) from None
    return plain(read[0]) if read else None


def _to_boolean(arguments: Sequence[Value], _: Surroundings) -> Value:
    words = {"true": True, "false": False}
    word = _s(arguments[0]).lower()
    if word not in words:
        raise BadExpression(f"to_boolean(): {word!r:.80} is neither true nor false")
    return words[word]


def _base64_decode(arguments: Sequence[Value], _: Surroundings) -> Value:
    try:
        return base64.b64decode(_s(arguments[0]), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError) as error:
        raise BadExpression(f"base64_decode(): {error}") from None


def _round(arguments: Sequence[Value], _: Surroundings) -> Value:
    number, digits = arguments
    places = _n(digits, "round")
    if not 0 <= places <= 15 or not isinstance(number, int | float):
        raise BadExpression("round(): the number of digits must be between 0 and 15")
    shift: int = 10**places
    try:
        nearest: float = int(abs(number) * shift + 0.5) / shift
    except (OverflowError, ValueError):
        raise BadExpression(f"round(): {number} cannot be rounded") from None
    return -nearest if number < 0 else nearest


def _random(arguments: Sequence[Value], surroundings: Surroundings) -> Value:
    pattern = _s(arguments[0])
    if not pattern:
        raise BadExpression("random(): the pattern is empty")
    return regexes.generate(pattern, surroundings.pick, surroundings.meter.spend)


def _split(arguments: Sequence[Value], _: Surroundings) -> Value:
    text, separator = _s(arguments[0]), _s(arguments[1])
    return [*text.split(separator)] if separator else [*text]


def _trim_set(arguments: Sequence[Value], _: Surroundings) -> Value:
    cut = _s(arguments[1])
    return _s(arguments[0]).strip(cut) if cut else arguments[0]


def _compare(arguments: Sequence[Value], _: Surroundings) -> Value:
    one, other = _s(arguments[0]), _s(arguments[1])
    return (one > other) - (one < other)


def _canonical(arguments: Sequence[Value], _: Surroundings) -> Value:
    path = _s(arguments[0])
    if not path:
        return ""
    return (
        "/" + posixpath.normpath(path).lstrip("/")
        if path.startswith("/")
        else posixpath.normpath(path)
    )


_Strings = Callable[[str], Value]


def _of_string(run: _Strings) -> Function:
    return Function((Type.STRING,), lambda given, _: run(_s(given[0])))


def _of_two(run: Callable[[str, str], Value]) -> Function:
    return Function((Type.STRING, Type.STRING), lambda given, _: run(_s(given[0]), _s(given[1])))


def _of_values(run: Callable[[Value, Value], Value]) -> Function:
    return Function((Type.ANY, Type.ANY), lambda given, _: run(given[0], given[1]))


def _sum(arguments: Sequence[Value], _: Surroundings) -> Value:
    return arithmetic.total(arguments[0]) if isinstance(arguments[0], list) else None


def _hash(name: str) -> Function:
    return _of_string(
        lambda text: hashlib.new(
            name, text.encode(errors="replace"), usedforsecurity=False
        ).hexdigest()
    )


_THREE = (Type.STRING, Type.TEXT, Type.TEXT)

FUNCTIONS: Mapping[str, Function] = {
    "add": _of_values(arithmetic.add),
    "base64_decode": Function((Type.STRING,), _base64_decode),
    "base64_encode": _of_string(
        lambda text: base64.b64encode(text.encode(errors="replace")).decode()
    ),
    "compare": Function((Type.STRING, Type.STRING), _compare),
    "divide": _of_values(arithmetic.divide),
    "equal_fold": _of_two(lambda one, other: _folded(one) == _folded(other)),
    "items": Function((Type.BOTH, Type.STRING, Type.STRING), _items),
    "label_match": Function((Type.OBJECT, Type.OBJECT), _label_match),
    "lookup": Function((Type.BOTH, Type.KEY), _lookup),
    "md5": _hash("md5"),
    "modulo": _of_values(arithmetic.modulo),
    "multiply": _of_values(arithmetic.multiply),
    "object_from_lists": Function((Type.LIST, Type.LIST), _object_from_lists),
    "parse_json": Function((Type.STRING,), _parse_json),
    "parse_yaml": Function((Type.STRING,), _parse_yaml),
    "path_canonicalize": Function((Type.STRING,), _canonical),
    "pattern_match": Function(
        (Type.STRING, Type.TEXT), lambda given, _: wildcards.matches(_s(given[0]), _s(given[1]))
    ),
    "random": Function((Type.STRING,), _random),
    "regex_match": Function(
        (Type.STRING, Type.TEXT),
        lambda given, around: regexes.compiled(_s(given[0])).search(
            _s(given[1]), around.meter.spend
        ),
    ),
    "regex_replace_all": Function(
        _THREE, lambda given, around: _regex_replace(given, around, literal=False)
    ),
    "regex_replace_all_literal": Function(
        _THREE, lambda given, around: _regex_replace(given, around, literal=True)
    ),
    "replace": Function(
        (Type.STRING, Type.STRING, Type.STRING, Type.NUMBER),
        lambda given, _: _replace(
            _s(given[0]), _s(given[1]), _s(given[2]), _n(given[3], "replace")
        ),
    ),
    "replace_all": Function(
        (Type.STRING, Type.STRING, Type.STRING),
        lambda given, _: _replace(_s(given[0]), _s(given[1]), _s(given[2]), -1),
    ),
    "round": Function((Type.NUMBER, Type.NUMBER), _round),
    "semver_compare": _of_two(versions.in_range),
    "sha1": _hash("sha1"),
    "sha256": _hash("sha256"),
    "split": Function((Type.STRING, Type.STRING), _split),
    "subtract": _of_values(arithmetic.subtract),
    "sum": Function((Type.LIST,), _sum),
    "time_add": _of_two(times.time_add),
    "time_after": _of_two(lambda one, other: times.parse(one) > times.parse(other)),
    "time_before": _of_two(lambda one, other: times.parse(one) < times.parse(other)),
    "time_between": Function(
        (Type.STRING, Type.STRING, Type.STRING),
        lambda given, _: (
            times.parse(_s(given[1])) < times.parse(_s(given[0])) < times.parse(_s(given[2]))
        ),
    ),
    "time_diff": _of_two(times.time_diff),
    "time_now": Function((), lambda _, around: times.write(around.now())),
    "time_now_utc": Function((), lambda _, around: times.write(around.now().astimezone(UTC))),
    "time_parse": _of_two(lambda layout, text: times.write(times.parse_layout(layout, text))),
    "time_since": Function(
        (Type.STRING, Type.STRING, Type.STRING),
        lambda given, around: times.time_since(
            _s(given[0]), _s(given[1]), _s(given[2]), around.now()
        ),
    ),
    "time_to_cron": _of_string(times.time_to_cron),
    "time_truncate": _of_two(times.time_truncate),
    "time_utc": _of_string(times.time_utc),
    "to_boolean": Function((Type.STRING,), _to_boolean),
    "to_lower": _of_string(_lower),
    "to_upper": _of_string(_upper),
    "trim": Function((Type.STRING, Type.STRING), _trim_set),
    "trim_prefix": _of_two(str.removeprefix),
    "truncate": Function(
        (Type.STRING, Type.NUMBER),
        lambda given, _: _s(given[0])[: max(0, int(_whole(given[1])))],
    ),
}
