"""Typed access to `Field` trees: every accessor gives a usable value and reports what is wrong.

Parsers walk a `Cursor` and never stop at the first defect; the reader raises all problems together.
A null is what the API server's JSON decoder makes of it: an absent field, and in a list an empty
object or an empty string. Paths are spelled as the API server spells them
(`spec.ingress[0].from[1].ipBlock.cidr`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from generators.documents.yaml import Field
from generators.errors import Problem

_QUOTE = "quote it"


@dataclass(slots=True)
class Report:
    """The problems of one object. `subject` is how the object is named in messages."""

    file: str
    subject: str = ""
    problems: dict[Problem, None] = field(default_factory=dict)

    def add(self, line: int, path: str, what: str, fix: str) -> None:
        """Note a problem once."""
        where = f"{self.subject}: {path}" if self.subject and path else self.subject or path
        self.problems[Problem(self.file, line, where, what, fix)] = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """One field of an object, its path, and where to report."""

    field: Field
    path: str
    report: Report

    @property
    def line(self) -> int:
        """Line of the value."""
        return self.field.line

    def fail(self, what: str, fix: str) -> None:
        """Report a problem of this value."""
        self.report.add(self.field.line, self.path, what, fix)

    def shown(self) -> str:
        """The value as the API server prints it in messages."""
        value = self.field.value
        if isinstance(value, str):
            return f'"{value}"'
        return self.field.text or ("[...]" if isinstance(value, tuple) else "{...}")

    def child(self, key: str) -> Cursor | None:
        """The field called `key`; None when it is absent or null."""
        found = self._entries().get(key)
        if found is None or found.value is None:
            return None
        return Cursor(found, f"{self.path}.{key}" if self.path else key, self.report)

    def part(self, key: str) -> Cursor:
        """The object called `key`; an empty one when it is absent or null."""
        path = f"{self.path}.{key}" if self.path else key
        return self.child(key) or Cursor(Field({}, self.line), path, self.report)

    def items(self) -> list[Cursor]:
        """The items of a list."""
        if not isinstance(self.field.value, tuple):
            self.fail(f"Invalid value: {self.shown()}: must be a list", "write a list")
            return []
        return [
            Cursor(item, f"{self.path}[{index}]", self.report)
            for index, item in enumerate(self.field.value)
        ]

    def children(self, key: str) -> list[Cursor]:
        """The items of the list called `key`; none when it is absent or null."""
        child = self.child(key)
        return child.items() if child is not None else []

    def entries(self) -> Iterator[tuple[str, Cursor]]:
        """The fields of a mapping, in the order of the file."""
        for key, value in self._entries().items():
            yield key, Cursor(value, f"{self.path}.{key}", self.report)

    def _entries(self) -> Mapping[str, Field]:
        if self.field.value is None:
            return {}
        if not isinstance(self.field.value, Mapping):
            self.fail(
                f"Invalid value: {self.shown()}: must be an object", "write `key: value` pairs"
            )
            return {}
        return self.field.value

    def text(self) -> str:
        """A string, empty for null; a scalar that YAML takes for something else is refused."""
        value = self.field.value
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, tuple | Mapping):
            self.fail("Invalid value: must be a string", "write one word")
            return ""
        kind = "a boolean" if isinstance(value, bool) else "a number"
        self.fail(f"Invalid value: {self.shown()} is {kind} to YAML, not a string", _QUOTE)
        return self.field.text

    def source_text(self) -> str:
        """A string, or the source of a scalar: `name: 1e3` can only mean a name."""
        if isinstance(self.field.value, tuple | Mapping):
            return self.text()
        return self.field.text

    def integer(self) -> int | None:
        """A whole number; None after reporting anything else."""
        value = self.field.value
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self.fail(f"Invalid value: {self.shown()}: must be an integer", "write a number, unquoted")
        return None

    def boolean(self) -> bool:
        """True or false."""
        if isinstance(self.field.value, bool):
            return self.field.value
        self.fail(f"Invalid value: {self.shown()}: must be a boolean", "write true or false")
        return False

    def string(self, key: str, default: str = "") -> str:
        """The string called `key`; `default` when it is absent or null."""
        child = self.child(key)
        return child.text() if child is not None else default

    def filled(self, key: str) -> Cursor | None:
        """The field called `key`; None when it is absent, null, or the empty string."""
        child = self.child(key)
        return None if child is None or child.field.value == "" else child

    def only(self, *known: str) -> None:
        """Report fields that the API does not know: a misspelt selector would select everything."""
        for key, value in self._entries().items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                fix = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                path = f"{self.path}.{key}" if self.path else key
                self.report.add(value.line, path, f'unknown field "{key}"', fix)
