"""What another tenant file changes: verdicts before and after, what opened first, then what closed.

`matrix --instead-of` prints it. Compares two answers to the same questions. Connections of two
groups that change alike are one line, with all their ports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from generators.addresses import Family
from generators.reachability.grid import VerdictTable, verdict_of
from generators.reachability.levels import Distance, Groups
from generators.reachability.matrix import cell_document
from generators.reachability.packets import Question
from generators.reachability.protocols import port_text
from generators.reachability.verdicts import Cell, Verdict, decided_by


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """One question whose answer differs."""

    source: str
    destination: str
    asked: tuple[int, str]
    """Port and protocol."""
    family: str
    before: Verdict
    after: Verdict

    @property
    def question(self) -> Question:
        """To be asked again, for the rule."""
        port, protocol = self.asked
        return Question(self.source, self.destination, protocol, port, Family(self.family))


@dataclass(frozen=True, slots=True)
class Line:
    """All connections of two groups that change alike."""

    source: str
    destination: str
    before: Verdict
    after: Verdict
    by: str
    """What decides now."""
    ports: tuple[tuple[int, str], ...]
    count: int


def changes(before: VerdictTable, after: VerdictTable) -> Iterator[VerdictChange]:
    """Where two tables of the same questions differ."""
    for asked, families in after.grids.items():
        for family, grid in families.items():
            old = before.grids[asked][family]
            for source, row in grid.items():
                if row == old[source]:
                    continue
                for name, was, now in zip(after.destinations, old[source], row, strict=True):
                    first, then = verdict_of(was), verdict_of(now)
                    if first is not None and then is not None and first is not then:
                        yield VerdictChange(source, name, asked, family, first, then)


def lines(
    found: Iterable[VerdictChange], cells: Iterable[Cell], groups: Groups
) -> tuple[Line, ...]:
    """Opened first, then closed, then what is only reported otherwise; each by its ends.

    `cells` are today's answers to the changed questions, in their order.
    """
    ports: dict[tuple[str, str, Verdict, Verdict, str], set[tuple[int, str]]] = {}
    counts: Counter[tuple[str, str, Verdict, Verdict, str]] = Counter()
    for change, cell in zip(found, cells, strict=True):
        ends = (groups[change.source], groups[change.destination])
        key = (*ends, change.before, change.after, decided_by(cell))
        ports.setdefault(key, set()).add(change.asked)
        counts[key] += 1
    listed = [Line(*key, tuple(sorted(asked)), counts[key]) for key, asked in ports.items()]
    return tuple(sorted(listed, key=lambda i: (_turn(i), i.source, i.destination, i.ports, i.by)))


def _turn(line: Line) -> int:
    """What was dropped and passes, what passed and is dropped, the rest."""
    return 0 if line.before is Verdict.DROPPED else 1 if line.after is Verdict.DROPPED else 2


_TITLES = ("opened", "closed", "reported otherwise")


def text(found: Iterable[Line], asked: int) -> Iterator[str]:
    """The lines for people, under what they mean; `asked`: how many answers were compared."""
    listed = list(found)
    if not listed:
        yield f"nothing changes: {asked} answers are the same before and after"
    for turn, title in enumerate(_TITLES):
        of_it = [line for line in listed if _turn(line) == turn]
        if of_it:
            total = sum(line.count for line in of_it)
            yield f"{title}: {total} of {asked} connections"
            yield from (f"  {_text(line)}" for line in of_it)


def _text(line: Line) -> str:
    ports = ", ".join(port_text(*asked) for asked in line.ports)
    verdicts = f"{line.before.value} -> {line.after.value}"
    return f"{line.source} -> {line.destination} {ports}: {verdicts} by {line.by}"


def chosen_level(counted: Mapping[Distance, int], rows: int) -> Distance:
    """The nearest level with no more lines than that, else the farthest."""
    near_first = [level for level in reversed(Distance) if level in counted]
    return next((level for level in near_first if counted[level] <= rows), near_first[-1])


def document(change: VerdictChange, cell: Cell) -> dict[str, object]:
    """A changed cell as `matrix --instead-of -o json` prints it."""
    return {**cell_document(cell), "before": change.before.value}
