"""Which range of the flows to show: the last, the first, from and until when.

Both commands that read flows use it on lines of the agent or of a file. A moment may be given as an
age (`5m`), which counts back from now.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from enforcer.observe.fields import Json
from generators.documents.json import shown
from generators.errors import RingfenceError

_AGE = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class BadMoment(RingfenceError):
    """Neither a time nor an age."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f'"{text}" is not a time: write 2026-01-05T10:00:00Z, or an age such as 30s, 5m, 1h30m'
        )


@dataclass(frozen=True, slots=True)
class FlowRange:
    """What is wanted; without `last` and `first` all of it."""

    last: int | None = None
    first: int | None = None
    since: datetime | None = None
    until: datetime | None = None


def moment(text: str, now: datetime) -> datetime:
    """The time that `text` names, seen from now."""
    ages = list(_AGE.finditer(text))
    if text and "".join(age[0] for age in ages) == text:
        return now - sum((timedelta(**{_UNITS[a[2]]: int(a[1])}) for a in ages), timedelta())
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadMoment(text) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def cut(lines: Iterable[Json], wanted: FlowRange, keep: Callable[[Json], bool]) -> Iterator[Json]:
    """The lines of the range that are to be kept, oldest first."""
    kept = (line for line in lines if _within(line, wanted) and keep(line))
    if wanted.first is not None:
        for number, line in enumerate(kept, start=1):
            if number > wanted.first:
                return
            yield line
            if number == wanted.first:
                return
        return
    yield from deque(kept, maxlen=wanted.last) if wanted.last is not None else kept


def _within(line: Json, wanted: FlowRange) -> bool:
    if wanted.since is None and wanted.until is None:
        return True
    try:
        at = datetime.fromisoformat(shown(line, "time"))
    except ValueError:
        return False
    after = wanted.since is None or at >= wanted.since
    return after and (wanted.until is None or at <= wanted.until)
