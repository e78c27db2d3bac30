"""Names behind the numbers of groups and rules, for as long as somebody may ask for them.

The compiler keeps them. What may surprise: an event of the kernel may be older than the change that
took its group away, so the names of the last groups that went are kept for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from enforcer.policy.identity import Numbering
from enforcer.policy.rulebook import Group, Turnover
from enforcer.policy.tables import Dir

REMEMBERED = 512
"""Groups that are gone and still have their names."""


class GroupNames:
    """What groups mean to people."""

    def __init__(self) -> None:
        self.isolating: dict[tuple[int, Dir], tuple[str, ...]] = {}
        """Group and direction -> the policies that isolate."""
        self.walls: dict[int, str] = {}
        """Group of a tenant wall -> the rule that a denial names."""
        self._gone: deque[int] = deque()

    def follow(self, turnover: Turnover) -> None:
        """Groups came and went."""
        for group in turnover.added:
            self.put(group)
        for group in turnover.removed:
            self.drop(group.number)

    def put(self, group: Group) -> None:
        """A group is there under its number."""
        for direction, policies in group.definition.isolating.items():
            self.isolating[group.number, direction] = policies
        if group.definition.wall:
            self.walls[group.number] = group.definition.wall

    def drop(self, number: int) -> None:
        """A number is out of use."""
        self._gone.append(number)
        while len(self._gone) > REMEMBERED:
            oldest = self._gone.popleft()
            self.walls.pop(oldest, None)
            for direction in Dir:
                self.isolating.pop((oldest, direction), None)


class RuleNames(Mapping[int, str]):
    """Rule id -> name, out of the numbering that knows it the other way round."""

    def __init__(self, rules: Numbering) -> None:
        self._rules = rules
        self._names: dict[int, str] = {}
        self._as_of = 0

    def __getitem__(self, number: int) -> str:
        return self._current()[number]

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[int]:
        return iter(self._current())

    def _current(self) -> Mapping[int, str]:
        """Made anew when a number was given since; what is merely forgotten may stay."""
        if self._as_of != self._rules.next:
            self._as_of = self._rules.next
            self._names = {n: str(name) for name, n in list(self._rules.known.items())}
        return self._names
