"""The values of CEL as Python has them, and what makes them one another's equal.

    int, uint, double   int, Uint, float     timestamp, duration   datetime, timedelta
    string, bytes       str, bytes           list, map             list, dict
    optional            Optional             a message            Message, a named dict

A quantity of Kubernetes is a `Quantity`. Everything else that functions hand out is one of these.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TypeAlias

from generators.documents.json import MAX_DEPTH, Value
from generators.kyverno.cel.syntax import Uint
from generators.kyverno.failures import BadExpression
from generators.kyverno.language.quantities import write_quantity

CelValue: TypeAlias = object
Spend: TypeAlias = Callable[[int], None]
INT_MIN, INT_MAX, UINT_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Optional:
    """A value, or none."""

    held: tuple[CelValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A type as a value: `type(x) == string`."""

    name: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """`quantity("100m")`."""

    number: Fraction
    binary: bool

    def __str__(self) -> str:
        return write_quantity(self.number, self.binary)


class Message(dict[str, CelValue]):
    """`Object.spec{...}` or `JSONPatch{...}`: its fields."""

    def __init__(self, name: str, fields: Mapping[str, CelValue]) -> None:
        super().__init__(fields)
        self.name = name


class Lazy:
    """Fields that are computed when they are asked for: `variables`."""

    def __init__(self, names: frozenset[str], compute: Callable[[str], CelValue]) -> None:
        self.names = names
        self.compute = compute


_TYPES: Mapping[type, str] = {
    bool: "bool",
    Uint: "uint",
    int: "int",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    datetime: "google.protobuf.Timestamp",
    timedelta: "google.protobuf.Duration",
    Optional: "optional_type",
    Kind: "type",
    Quantity: "kubernetes.Quantity",
    type(None): "null_type",
}
TYPE_NAMES = frozenset(_TYPES.values())


def type_name(value: CelValue) -> str:
    """What `type(value)` is called."""
    if isinstance(value, Message):
        return value.name
    return _TYPES.get(type(value), "map")


def is_number(value: CelValue) -> bool:
    """Whether a value is an int, a uint or a double."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(one: CelValue, other: CelValue, spend: Spend, depth: int = 0) -> bool:
    """CEL's `==`: numbers of all types compare, other types are never equal to one another."""
    spend(1)
    if depth > MAX_DEPTH:
        raise BadExpression(f"a value is nested deeper than {MAX_DEPTH} levels")
    if is_number(one) and is_number(other):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(
            key in other and equal(value, other[key], spend, depth + 1)
            for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            equal(a, b, spend, depth + 1) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, Optional) and isinstance(other, Optional):
        return equal([*one.held], [*other.held], spend, depth + 1)
    return type(one) is type(other) and one == other


def to_json(value: CelValue, spend: Spend, depth: int = 0) -> Value:
    """A value as JSON says it; BadExpression for what it cannot say."""
    spend(1)
    if depth > MAX_DEPTH:
        raise BadExpression(f"a value is nested deeper than {MAX_DEPTH} levels")
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise BadExpression(f"{value} is no number of JSON")
            return value
        case Optional(held=(inner,)):
            return to_json(inner, spend, depth + 1)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return write_time(value)
        case timedelta():
            return write_span(value)
        case Quantity():
            return str(value)
        case list():
            return [to_json(item, spend, depth + 1) for item in value]
        case dict():
            return {_json_key(key): to_json(item, spend, depth + 1) for key, item in value.items()}
    raise BadExpression(f"a value of type {type_name(value)} is not JSON")


def _json_key(key: CelValue) -> str:
    if not isinstance(key, str):
        raise BadExpression(f"a {type_name(key)} is no key of a JSON object")
    return key


def write_time(moment: datetime) -> str:
    """RFC 3339, in UTC, with as many digits as needed."""
    text = moment.astimezone(UTC).isoformat().removesuffix("+00:00")
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"


def write_span(length: timedelta) -> str:
    """As protobuf writes a duration: `5400s`, `1.5s`."""
    micros = length // _MICROSECOND
    sign = "-" if micros < 0 else ""
    whole, rest = divmod(abs(micros), _SECOND // _MICROSECOND)
    return f"{sign}{whole}{f'.{rest:06}'.rstrip('0') if rest else ''}s"


def checked_int(number: int) -> int:
    """BadExpression for what does not fit an int of 64 bits."""
    if not INT_MIN <= number <= INT_MAX:
        raise BadExpression("integer overflow")
    return number


def checked_uint(number: int) -> Uint:
    """BadExpression for what does not fit a uint of 64 bits."""
    if not 0 <= number <= UINT_MAX:
        raise BadExpression("unsigned integer overflow")
    return Uint(number)
