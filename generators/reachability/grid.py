"""A matrix for people: one grid of sources and destinations a port, and what dropped how often.

Used by `ringfence matrix` and the lab. Address families that answer alike share a grid; wide
clusters are cut into blocks, so that nothing is wider than the screen.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import click

from generators.reachability.protocols import port_text
from generators.reachability.verdicts import Cell, Judgement, Verdict

WIDTH = 100
"""Columns where there is no terminal to ask."""
_CAUSES = 20
_NAMED = 3
_NAME_WIDTH = 38
_LEAST_NAME_WIDTH = 8


class Style(Enum):
    """How verdicts are drawn."""

    PLAIN = "plain"
    COLOUR = "colour"


@dataclass(frozen=True, slots=True)
class _Mark:
    sign: str
    ascii_sign: str
    colour: str


_MARKS: Mapping[Verdict, _Mark] = {
    Verdict.FORWARDED: _Mark("✓", "+", "green"),
    Verdict.DROPPED: _Mark("✗", "-", "red"),
    Verdict.AUDIT: _Mark("!", "!", "yellow"),
    Verdict.REDIRECTED: _Mark("»", ">", "blue"),
}
_NO_CELL = "·"
_MIXED = "~"

_VERDICTS: Sequence[Verdict | None] = (None, *Verdict)
_CODES = {verdict: code for code, verdict in enumerate(_VERDICTS)}
MIXED = len(_VERDICTS)
"""The code of a group of pods that fare differently."""

Grid = Mapping[str, bytes]
"""By source, in order: the code of a verdict for each destination."""
T = TypeVar("T")


@dataclass(slots=True)
class VerdictTable:
    """Verdicts by port, family, source and destination, and what decided how often."""

    destinations: tuple[str, ...]
    """The columns of every row."""
    grids: dict[tuple[int, str], dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """(port, protocol) -> family -> source -> codes."""
    _counted: Counter[int] = field(default_factory=Counter)
    _cells: dict[int, Cell] = field(default_factory=dict)

    def draw(
        self, asked: tuple[int, str], family: str, source: str, row: Sequence[Cell | None]
    ) -> None:
        """One source and its answers, one for each destination; cells may be shared."""
        grid = self.grids.setdefault(asked, {}).setdefault(family, {})
        keys = [id(cell) for cell in row]
        shared = dict(zip(keys, row, strict=True))
        codes = {key: _CODES[cell.verdict if cell else None] for key, cell in shared.items()}
        grid[source] = bytes(map(codes.__getitem__, keys))
        self._counted.update(keys)
        self._cells.update((key, cell) for key, cell in shared.items() if cell is not None)

    def under(self, destinations: Iterable[str]) -> VerdictTable:
        """An empty table with other columns, and the same answers counted."""
        return VerdictTable(tuple(destinations), _counted=self._counted, _cells=self._cells)

    def counts(self) -> Iterator[tuple[Cell, int]]:
        """How often each answer was given."""
        return ((cell, self._counted[key]) for key, cell in self._cells.items())


def table_of(cells: Iterable[Cell]) -> VerdictTable:
    """The table of single answers."""
    by_row: dict[tuple[tuple[int, str], str, str], dict[str, Cell]] = {}
    for cell in cells:
        row = by_row.setdefault(((cell.port, cell.protocol), cell.family, cell.source), {})
        row[cell.destination] = cell
    found = VerdictTable(tuple(sorted({name for row in by_row.values() for name in row})))
    for (asked, family, source), row in sorted(by_row.items()):
        found.draw(asked, family, source, [row.get(name) for name in found.destinations])
    return found


def verdict_of(code: int) -> Verdict | None:
    """What a code of a row means; None where nothing was asked. Not for MIXED."""
    return _VERDICTS[code]


def columns_within(width: int, names: int) -> int:
    """How many of so many numbered names fit beside one another."""
    room = width - _name_width(width) - _digits(names) - 3
    return max(1, room // (_digits(names) + 1))


def _digits(names: int) -> int:
    return max(2, len(str(names)))


def _name_width(width: int) -> int:
    return max(_LEAST_NAME_WIDTH, min(_NAME_WIDTH, width * _NAME_WIDTH // WIDTH))


def grid_text(
    table: VerdictTable, style: Style = Style.PLAIN, encoding: str = "utf-8", width: int = WIDTH
) -> Iterator[str]:
    """The grids with a legend, piece by piece; the empty matrix says so.

    No grid is wider than `width`; its lines are cut there, those of the legend go on below.
    """
    if not table.grids:
        yield "no cells: no pods with addresses, or no ports (give --port)\n"
        return
    grids = list(_grids(table))
    sources = {source for _, grid in grids for source in grid}
    shown = {table.destinations[i] for _, grid in grids for i in _columns(grid)}
    numbers = {name: index for index, name in enumerate(sorted(sources | shown), start=1)}
    pen = _Pen(style, _can_encode(encoding))
    for title, grid in grids:
        yield from (f"{line}\n" for line in _wrapped(title, width))
        lines = _lines(grid, table.destinations, numbers, pen, width)
        yield from (f"{line}\n" for line in lines)
        yield "\n"
    if any(MIXED in row for _, grid in grids for row in grid.values()):
        yield f"{_MIXED} differs among the pods: ask with --by pod, --from and --to\n"
    counted, *causes = _legend(table, pen)
    yield f"{counted}\n"
    yield from (f"{line}\n" for cause in causes for line in _wrapped(cause, width))


def _wrapped(text: str, width: int) -> list[str]:
    """A line as it is, or cut at blanks and indented below itself where it is too wide."""
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=" " * 7, drop_whitespace=True)


def _can_encode(encoding: str) -> bool:
    try:
        "".join([_NO_CELL, *(mark.sign for mark in _MARKS.values())]).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws verdicts in the way that the terminal takes."""

    style: Style
    unicode: bool

    def draw(self, verdict: Verdict | None) -> str:
        if verdict is None:
            return _NO_CELL if self.unicode else "."
        mark = _MARKS[verdict]
        sign = mark.sign if self.unicode else mark.ascii_sign
        return click.style(sign, fg=mark.colour) if self.style is Style.COLOUR else sign


def _grids(table: VerdictTable) -> Iterator[tuple[str, Grid]]:
    """(title, grid) of every port; equal grids of families, and then of ports, are one."""
    by_port = []
    for (port, protocol), families in sorted(table.grids.items()):
        drawn = {family: _asked(grid) for family, grid in sorted(families.items())}
        for names, grid in _alike([(family, grid) for family, grid in drawn.items() if grid]):
            by_port.append((port_text(port, protocol), (" and ".join(names), grid)))
    for ports, (family, grid) in _alike(by_port):
        yield f"{', '.join(ports)} ({family})", grid


def _asked(grid: Grid) -> Grid:
    return {source: row for source, row in grid.items() if any(row)}


def _columns(grid: Grid) -> list[int]:
    """The destinations that any source was asked about."""
    width = len(next(iter(grid.values())))
    union = 0
    for row in set(grid.values()):
        union |= int.from_bytes(row)
    return [index for index, code in enumerate(union.to_bytes(width)) if code]


def _alike(pairs: Iterable[tuple[str, T]]) -> list[tuple[list[str], T]]:
    """Names with equal values put together, in the order of the first."""
    groups: list[tuple[list[str], T]] = []
    for name, value in pairs:
        same = next((names for names, other in groups if other == value), None)
        if same is not None:
            same.append(name)
        else:
            groups.append(([name], value))
    return groups


def _lines(
    grid: Grid, names: Sequence[str], numbers: Mapping[str, int], pen: _Pen, width: int
) -> Iterator[str]:
    digits = _digits(len(numbers))
    gap = " " * digits
    signs = {code: gap + pen.draw(verdict) for code, verdict in enumerate(_VERDICTS)}
    signs[MIXED] = gap + _MIXED
    columns = _columns(grid)
    each = columns_within(width, len(numbers))
    left = width - digits - 3 - min(each, len(columns)) * (digits + 1)
    wide = max(_name_width(width), min(left, max(map(len, numbers))))
    for start in range(0, len(columns), each):
        block = columns[start : start + each]
        head = "".join(f"{numbers[names[i]]:>{digits + 1}}" for i in block)
        yield " " * (wide + digits + 3) + head
        for source, row in grid.items():
            drawn = "".join(signs[row[i]] for i in block)
            yield f"{numbers[source]:>{digits + 1}} {_short(source, wide):<{wide}} {drawn}"
        hidden = [names[i] for i in block if names[i] not in grid]
        yield from (f"{numbers[name]:>{digits + 1}} {_short(name, wide)}" for name in hidden)


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


def _legend(table: VerdictTable, pen: _Pen) -> Iterator[str]:
    """How many cells each verdict has, and what decided where not everything passed."""
    verdicts: Counter[Verdict] = Counter()
    causes: Counter[str] = Counter()
    for cell, count in table.counts():
        verdicts[cell.verdict] += count
        for judgement, side in ((cell.egress, "egress"), (cell.ingress, "ingress")):
            if judgement.verdict is not Verdict.FORWARDED:
                causes[_cause(judgement, side)] += count
    counts = (f"{pen.draw(v)} {v.value} {verdicts[v]}" for v in Verdict if verdicts[v])
    yield "   ".join(counts)
    ranked = sorted(causes.items(), key=lambda item: (-item[1], item[0]))
    for text, count in ranked[:_CAUSES]:
        yield f"{count:>5}  {text}"
    if len(ranked) > _CAUSES:
        left = sum(count for _, count in ranked[_CAUSES:])
        yield f"{left:>5}  for {len(ranked) - _CAUSES} more reasons (all of them: -o json)"


def _cause(judgement: Judgement, side: str) -> str:
    by = judgement.rule or _named(judgement.policies)
    return f"{judgement.verdict.value} at {side}: {judgement.reason.value} by {by}"


def _named(policies: Sequence[str]) -> str:
    """The policies, as many as a line holds."""
    if len(policies) <= _NAMED:
        return ", ".join(policies)
    return f"{', '.join(policies[:_NAMED])} and {len(policies) - _NAMED} more"
