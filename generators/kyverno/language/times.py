"""Times in expressions: RFC 3339 text in and out, Go's layouts, Go's durations.

Pure: the present comes in as an argument. Fractions of a second are kept to the microsecond.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from generators.kyverno.failures import BadExpression
from generators.kyverno.language.quantities import parse_duration, write_duration

_ZERO = datetime(1, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_TOKENS = {
    "2006": "%Y",
    "January": "%B",
    "Jan": "%b",
    "01": "%m",
    "02": "%d",
    "15": "%H",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "06": "%y",
    "Monday": "%A",
    "Mon": "%a",
    "PM": "%p",
    "-07:00": "%z",
    "Z07:00": "%z",
    "-0700": "%z",
    "Z0700": "%z",
    "MST": "%Z",
    "_2": "%d",
    "2": "%d",
    "1": "%m",
    "3": "%I",
    "4": "%M",
    "5": "%S",
}
_LAYOUT = re.compile("|".join(re.escape(t) for t in sorted(_TOKENS, key=len, reverse=True)))


def parse(text: str) -> datetime:
    """An RFC 3339 time."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise BadExpression(f"{text!r} is not an RFC 3339 time")
    day, clock, fraction, zone = found.groups()
    shift = "+00:00" if zone in "Zz" else zone
    try:
        return datetime.fromisoformat(f"{day}T{clock}{(fraction or '')[:7]}{shift}")
    except ValueError as error:
        raise BadExpression(f"{text!r} is not a time: {error}") from None


def write(moment: datetime) -> str:
    """RFC 3339 in whole seconds, `Z` for UTC."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _epoch(text: str) -> datetime:
    if not _NUMBER.fullmatch(text):
        raise BadExpression(f"{text!r} is no number of seconds")
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (OverflowError, ValueError, OSError):
        raise BadExpression(f"{text} seconds since 1970 are no time") from None


def parse_layout(layout: str, text: str) -> datetime:
    """A time in one of Go's layouts, without a zone in UTC; of a number, seconds since 1970."""
    if _NUMBER.fullmatch(layout):
        return _epoch(text)
    if "06" not in layout:
        raise BadExpression(f"the layout {layout!r} has no year")
    form = _LAYOUT.sub(lambda m: _TOKENS[m[0]], layout.replace("%", "%%"))
    try:
        moment = datetime.strptime(text, form)
    except (ValueError, re.error) as error:
        raise BadExpression(f"{text!r} does not have the layout {layout!r}: {error}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def span(text: str) -> timedelta:
    """A duration."""
    nanoseconds = parse_duration(text)
    if nanoseconds is None:
        raise BadExpression(f"{text!r} is not a duration; write 90s, 1h30m")
    try:
        return timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        raise BadExpression(f"the duration {text!r} is too long") from None


def _shift(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        raise BadExpression(f"{write(moment)} cannot be moved that far") from None


def time_add(time: str, duration: str) -> str:
    """The time, that much later."""
    return write(_shift(parse(time), span(duration)))


def time_diff(start: str, end: str) -> str:
    """From start to end."""
    return _written(parse(end) - parse(start))


def _written(length: timedelta) -> str:
    return write_duration(length // timedelta(microseconds=1) * 1000)


def time_since(layout: str, start: str, end: str, now: datetime) -> str:
    """From start to end, or to the present when end is empty."""

    def read(text: str) -> datetime:
        return parse_layout(layout, text) if layout else parse(text)

    return _written((read(end) if end else now) - read(start))


def time_truncate(time: str, duration: str) -> str:
    """Rounded down to a multiple of the duration."""
    moment, step = parse(time), span(duration)
    if step <= timedelta(0):
        return write(moment)
    return write(moment - (moment - _ZERO) % step)


def time_to_cron(time: str) -> str:
    """The cron line of that minute in UTC."""
    at = parse(time)
    return f"{at.minute} {at.hour} {at.day} {at.month} {at.isoweekday() % 7}"


def time_utc(time: str) -> str:
    """The same moment in UTC."""
    try:
        return write(parse(time).astimezone(UTC))
    except OverflowError:
        raise BadExpression(f"{time} has no form in UTC") from None
