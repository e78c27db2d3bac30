"""Errors that a user can meet: one tree, each with the exit code that the command line gives.

    RingfenceError          base; never raised itself
    ├── InputError          2  unreadable input or bad usage, with file and line
    ├── InvalidConfig       1  the tenant file breaks rules; carries every Problem
    ├── Refused             1  the answer is no (an admission refused, a change not possible)
    └── MachineLacks        3  root, eBPF, bcc, ... is missing here, with how to get it

The command line prints `error.for_users()` to stderr and exits with `exit_code`; no other code
catches them broadly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

MOST_TOLD = 3
LONGEST = 300
"""Of `InputError.brief`: problems, and letters of each."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One defect of an input: `FILE:LINE: path: what is wrong; what to do`."""

    file: str
    line: int
    path: str
    what: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}: {where}{self.what}; {self.fix}"


class RingfenceError(Exception):
    """Base of all errors that are meant for the user's eyes."""

    exit_code: ClassVar[int] = 2

    def for_users(self) -> str:
        """What the command line prints; logs have `str(error)`."""
        return str(self)


class InputError(RingfenceError):
    """Input that cannot be read, or that the API server would refuse; every Problem found."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(p) for p in self.problems))

    def brief(self) -> str:
        """For a place that names the object already: its first problems, without file and name."""
        told = [
            f"{p.path.partition(': ')[2] or p.path}: {p.what}; {p.fix}"[:LONGEST]
            for p in self.problems[:MOST_TOLD]
        ]
        more = len(self.problems) - len(told)
        return " | ".join((*told, *((f"and {more} more",) if more > 0 else ())))


class InvalidConfig(RingfenceError):
    """The tenant file is readable but breaks rules; every Problem found, in file order."""

    exit_code = 1

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(p) for p in self.problems))


class Refused(RingfenceError):
    """A well-formed request was refused; the message says why and what to do."""

    exit_code = 1


class MachineLacks(RingfenceError):
    """This machine lacks something the command needs; the message says what and how to get it."""

    exit_code = 3

    def __init__(self, what: str, how: str) -> None:
        self.what = what
        self.how = how
        super().__init__(f"{what}; {how}")
