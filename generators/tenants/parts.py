"""A sound tenant file to walk through: each value with its path and its line.

load.py builds the model from parts, rules.py finds contradictions among them. What the schema
refused is simply absent, so both read a broken file as far as it can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from generators.errors import Problem
from generators.tenants.document import Document, Path
from generators.tenants.schema import HOLE, Hole, Sound


@dataclass(frozen=True, slots=True)
class Part:
    """One value of the file. Absent fields are parts too; they hold nothing."""

    document: Document
    path: Path
    value: Sound

    @property
    def present(self) -> bool:
        """Whether there is a sound value."""
        return not isinstance(self.value, Hole)

    @property
    def line(self) -> int:
        """Where it stands in the file."""
        return self.document.line(self.path)

    @property
    def where(self) -> str:
        """The same for messages."""
        return self.document.where(self.path)

    def field(self, name: str) -> Part:
        """A field of a mapping."""
        found = self.value.get(name, HOLE) if isinstance(self.value, dict) else HOLE
        return Part(self.document, (*self.path, name), found)

    def items(self) -> Iterator[Part]:
        """The sound items of a list."""
        for at, item in enumerate(self.value if isinstance(self.value, list) else ()):
            if not isinstance(item, Hole):
                yield Part(self.document, (*self.path, at), item)

    def fields(self) -> Iterator[tuple[str, Part]]:
        """The sound fields of a mapping whose keys the user chooses."""
        for key in self.value if isinstance(self.value, dict) else ():
            yield key, self.field(key)

    def text(self, default: str = "") -> str:
        """The text; `default` when absent."""
        return self.value if isinstance(self.value, str) else default

    def texts(self) -> tuple[str, ...]:
        """The texts of a list, in file order."""
        return tuple(item.text() for item in self.items())

    def number(self) -> int | None:
        """The number; None when absent."""
        return self.value if isinstance(self.value, int) else None

    def flag(self) -> bool:
        """The boolean; false when absent."""
        return self.value is True

    def problem(self, what: str, fix: str) -> Problem:
        """A defect of this value."""
        return self.document.problem(self.path, what, fix)
