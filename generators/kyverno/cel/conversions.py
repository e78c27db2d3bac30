"""CEL's conversions between types, and the parts of times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from generators.kyverno.cel.operators import no_overload
from generators.kyverno.cel.syntax import Uint
from generators.kyverno.cel.texts import Run, number_text, sized, text_of
from generators.kyverno.cel.values import (
    CelValue,
    Spend,
    checked_int,
    checked_uint,
    type_name,
    write_span,
    write_time,
)
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import times
from generators.kyverno.language.quantities import parse_duration


def size(arguments: Sequence[CelValue], _: Spend) -> int:
    """`size(x)`: characters, bytes, elements or entries."""
    if isinstance(arguments[0], str | bytes | list | dict):
        return len(arguments[0])
    raise no_overload("size", arguments[0])


def to_int(arguments: Sequence[CelValue], _: Spend) -> int:
    """`int(x)`."""
    value = arguments[0]
    if isinstance(value, str) and value.lstrip("+-").isdecimal() and len(value) < 25:
        return checked_int(int(value))
    if isinstance(value, float) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, datetime):
        return int(value.timestamp() // 1)
    if isinstance(value, int) and not isinstance(value, bool):
        return checked_int(int(value))
    raise BadExpression(f"type conversion error from {type_name(value)} to int")


def to_uint(arguments: Sequence[CelValue], spend: Spend) -> Uint:
    """`uint(x)`."""
    return checked_uint(to_int(arguments, spend))


def to_double(arguments: Sequence[CelValue], _: Spend) -> float:
    """`double(x)`."""
    value = arguments[0]
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise BadExpression(f"type conversion error from {type_name(value)} to double")


def to_bool(arguments: Sequence[CelValue], _: Spend) -> bool:
    """`bool(x)`."""
    value = arguments[0]
    if isinstance(value, bool):
        return value
    words = {"1": True, "t": True, "T": True, "true": True, "TRUE": True, "True": True}
    words |= {"0": False, "f": False, "F": False, "false": False, "FALSE": False, "False": False}
    if isinstance(value, str) and value in words:
        return words[value]
    raise BadExpression(f"type conversion error from {type_name(value)} to bool")


def to_string(arguments: Sequence[CelValue], spend: Spend) -> str:
    """`string(x)`."""
    value = arguments[0]
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(value)
        case bytes():
            try:
                return sized(value.decode(), spend)
            except UnicodeDecodeError:
                raise BadExpression("bytes that are no text") from None
        case datetime():
            return write_time(value)
        case timedelta():
            return write_span(value)
    raise BadExpression(f"type conversion error from {type_name(value)} to string")


def to_bytes(arguments: Sequence[CelValue], _: Spend) -> bytes:
    """`bytes(x)`."""
    value = arguments[0]
    return value if isinstance(value, bytes) else text_of(value).encode(errors="replace")


def duration(arguments: Sequence[CelValue], _: Spend) -> timedelta:
    """`duration("1h")`."""
    value = arguments[0]
    if isinstance(value, timedelta):
        return value
    nanoseconds = parse_duration(text_of(value))
    if nanoseconds is None:
        raise BadExpression(f"{value!r:.60} is not a duration")
    return timedelta(microseconds=nanoseconds / 1000)


def timestamp(arguments: Sequence[CelValue], _: Spend) -> datetime:
    """`timestamp("2026-01-01T00:00:00Z")`, or of seconds since 1970."""
    value = arguments[0]
    if isinstance(value, datetime):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    return times.parse(text_of(value))


def of_time(part: Callable[[datetime], int], spans: Callable[[timedelta], int] | None) -> Run:
    """A part of a time, in UTC, or of a duration where that has one."""

    def run(arguments: Sequence[CelValue], _: Spend) -> int:
        held = arguments[0]
        if isinstance(held, timedelta) and spans is not None:
            return spans(held)
        if not isinstance(held, datetime) or len(arguments) > 1:
            raise no_overload("a part of a time", *arguments)
        return part(held.astimezone(UTC))

    return run
