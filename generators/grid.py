"""A matrix for people: one grid of sources and destinations a port, and what dropped how often.

Used by `ringfence matrix` and the lab. Address families that answer alike share a grid; wide
clusters are cut into blocks, so that nothing is wider than 100 columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import click

from generators.protocols import port_text
from generators.verdicts import Cell, Judgement, Verdict

_COLUMNS = 18
_NAME_WIDTH = 38


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
}
_NO_CELL = "·"

Key = tuple[str, str]
Grid = Mapping[Key, Verdict]
T = TypeVar("T")


def grid_text(cells: Iterable[Cell], style: Style = Style.PLAIN, encoding: str = "utf-8") -> str:
    """All cells as grids with a legend; the empty matrix says so."""
    cells = tuple(cells)
    if not cells:
        return "no cells: no pods with addresses, or no ports (give --port)\n"
    ends = sorted({name for cell in cells for name in (cell.source, cell.destination)})
    numbers = {name: index for index, name in enumerate(ends, start=1)}
    pen = _Pen(style, _can_encode(encoding))
    blocks = ["\n".join(_lines(title, grid, numbers, pen)) for title, grid in _grids(cells)]
    return "\n\n".join([*blocks, "\n".join(_legend(cells, pen))]) + "\n"


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


def _grids(cells: Iterable[Cell]) -> Iterator[tuple[str, Grid]]:
    """(title, grid) of every port; equal grids of families, and then of ports, are one."""
    found: dict[tuple[int, str], dict[str, dict[Key, Verdict]]] = {}
    for cell in cells:
        families = found.setdefault((cell.port, cell.protocol), {})
        families.setdefault(str(cell.family), {})[cell.source, cell.destination] = cell.verdict
    by_port = []
    for (port, protocol), families in sorted(found.items()):
        for names, grid in _alike(sorted(families.items())):
            by_port.append((port_text(port, protocol), (" and ".join(names), grid)))
    for ports, (family, grid) in _alike(by_port):
        yield f"{', '.join(ports)} ({family})", grid


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


def _lines(title: str, grid: Grid, numbers: Mapping[str, int], pen: _Pen) -> Iterator[str]:
    sources = sorted({source for source, _ in grid})
    destinations = sorted({destination for _, destination in grid})
    yield title
    for start in range(0, len(destinations), _COLUMNS):
        block = destinations[start : start + _COLUMNS]
        yield " " * (_NAME_WIDTH + 5) + "".join(f"{numbers[name]:>3}" for name in block)
        for source in sources:
            signs = "".join("  " + pen.draw(grid.get((source, name))) for name in block)
            yield f"{numbers[source]:>3} {_short(source):<{_NAME_WIDTH}} {signs}"
        hidden = [name for name in block if name not in sources]
        yield from (f"{numbers[name]:>3} {_short(name)}" for name in hidden)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 3]}..."


def _legend(cells: Sequence[Cell], pen: _Pen) -> Iterator[str]:
    """How many cells each verdict has, and what decided where not everything passed."""
    verdicts = Counter(cell.verdict for cell in cells)
    counts = (f"{pen.draw(v)} {v.value} {verdicts[v]}" for v in Verdict if verdicts[v])
    yield "   ".join(counts)
    causes = Counter(
        text
        for cell in cells
        for judgement, side in ((cell.egress, "egress"), (cell.ingress, "ingress"))
        if judgement.verdict is not Verdict.FORWARDED
        for text in (_cause(judgement, side),)
    )
    for text, count in sorted(causes.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:>5}  {text}"


def _cause(judgement: Judgement, side: str) -> str:
    by = judgement.rule or ", ".join(judgement.policies)
    return f"{judgement.verdict.value} at {side}: {judgement.reason.value} by {by}"
