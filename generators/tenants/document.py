"""YAML text to a plain document that knows its lines: the strict reader of the tenant file.

Called by load.py only. It accepts only a small part of YAML. A tenant file decides who may talk to
whom, so anything that two YAML readers may understand differently is refused with "quote it" (`no`,
`1e3`, `0123`, `~`, dates), and so are duplicate keys, anchors, aliases, tags and a second document.
It never expands anything: a file of aliases of any size is answered at its first alias.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import yaml

from generators.documents.yaml import Field, Open, Reader, Stop
from generators.errors import Problem
from generators.tenants.folder import Sources, located

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_PROBLEMS = 20
"""A file that is broken this often is not read further."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Unclear:
    """A plain scalar that YAML readers take for something else than text, or differently."""

    text: str
    looks_like: str


Scalar = str | int | bool | Unclear | None
Value = Scalar | list["Value"] | dict[str, "Value"]


@dataclass(slots=True)
class Document:
    """What was read: the value and, for every path in it, its line (a collection's: its key's)."""

    file: str
    root: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    whole: bool = False
    """Read to the end; otherwise what is missing in `root` may stand in the file all the same."""
    sources: Sources = ()
    """Of a folder: which file each line is of."""

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def take(self, field: Field, path: Path) -> Value:
        """The value of a field, whose lines are noted."""
        self.lines[path] = field.line
        if isinstance(field.value, tuple):
            return [self.take(item, (*path, index)) for index, item in enumerate(field.value)]
        if isinstance(field.value, Mapping):
            return {key: self.take(item, (*path, key)) for key, item in field.value.items()}
        return _value(field)

    def problem(self, path: Path, what: str, fix: str) -> Problem:
        """A Problem at a path's line."""
        file, line = located(self.sources, self.file, self.line(path))
        return Problem(file, line, spell(path), what, fix)

    def where(self, path: Path) -> str:
        """Where a path stands, for messages: its line, of a folder with the file."""
        file, line = located(self.sources, self.file, self.line(path))
        return f"{file}:{line}" if self.sources else f"line {line}"


# What YAML 1.1 or YAML 1.2 readers take for something else than text, after the forms that all
# agree on. Order matters: the first match names it.
_CLEAR_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,17})\Z")
_UNCLEAR = (
    (re.compile(r"(?:~|null|Null|NULL)\Z"), "null"),
    (re.compile(r"(?i:y|yes|n|no|true|false|on|off)\Z"), "a boolean"),
    (re.compile(r"\d{4}-\d\d?-\d\d?(?:(?:[Tt]|[ \t]+)\d[\d:.]*.*)?\Z"), "a date"),
    (
        re.compile(
            r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+"
            r"|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
            r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
            r"|\.(?i:inf|nan))\Z"
        ),
        "a number",
    ),
    (re.compile(r"(?:=|<<)\Z"), "a YAML operator"),
)


def read_document(data: bytes, file: str) -> Document:
    """Read one YAML document; its errors as YAML are in `problems`."""
    document = Document(file)
    text = _decode(data, document)
    if text is None:
        return document
    reader = _Reader(document)
    try:
        deque(reader.read(text), maxlen=0)
    except Stop:
        pass
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error, text, file))
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        what = f"broken YAML: character U+{_code_point(error):04X} is not allowed"
        document.problems.append(Problem(file, line, "", what, "remove it"))
    else:
        document.whole = True
        if reader.root is not None:
            document.root = document.take(reader.root, ())
    return document


def spell(path: Path) -> str:
    """A path as people write it: `tenants[2].namespaces.prefixes[0]`, odd keys in quotes."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif re.fullmatch(r"[A-Za-z0-9_-]{1,64}|\?", step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{show(step)}]")
    return "".join(parts)


def show(text: str) -> str:
    """Text in quotes as an error shows it: pure ASCII, one line, never long.

    Other characters are escaped, so that look-alikes of ASCII letters can be seen.
    """
    short = text if len(text) <= 80 else f"{text[:77]}..."
    shown = short.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(c if " " <= c <= "~" else _escape(c) for c in shown)}"'


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _decode(data: bytes, document: Document) -> str | None:
    def refuse(line: int, what: str, fix: str) -> None:
        document.problems.append(Problem(document.file, line, "", what, fix))

    if len(data) > MAX_BYTES:
        refuse(1, f"the file is larger than {MAX_BYTES >> 20} MiB", "shorten it")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        refuse(line, what, "save the file as UTF-8")
        return None


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    lines = text.removesuffix("\n").split("\n")
    # What is missing at the end is reported behind it, in a line that no editor shows.
    line = min(mark.line + 1, len(lines)) if mark else 1
    broken = lines[line - 1]
    fix = f"correct the syntax near column {mark.column + 1 if mark else 1}"
    if "\t" in broken[: len(broken) - len(broken.lstrip())]:
        fix = "indent with spaces, not tabs"
    began = f"(line {error.context_mark.line + 1})" if error.context_mark else None
    detail = " ".join(part for part in (error.context, began, error.problem) if part)
    return Problem(file, line, "", f"broken YAML: {show(detail)[1:-1]}", fix)


def _code_point(error: yaml.reader.ReaderError) -> int:
    # The type stubs and the C parser disagree: text in one, a number in the other.
    found: object = error.character
    return found if isinstance(found, int) else ord(str(found)[:1] or "\0")


@dataclass(frozen=True, slots=True)
class _Doubtful(Field):
    """A plain scalar that is Unclear."""

    looks_like: str = ""


class _Reader(Reader):
    """What the lenient reader takes and a tenant file may not have is a problem of the document."""

    max_depth = MAX_DEPTH
    too_deep = (
        f"nested deeper than {MAX_DEPTH} levels",
        "no field of a tenant file is that deep; remove it",
    )
    key_is_collection = ("a list or mapping is used as a key", "write a plain text key")

    def __init__(self, document: Document) -> None:
        super().__init__(document.file)
        self.document = document
        self.begun = 0

    def _begin(self, line: int) -> None:
        self.begun += 1
        if self.begun > 1:
            what = "a second YAML document begins; a tenant file is one document"
            self._refuse(line, what, "put all tenants into the first and remove the `---`")
            raise Stop

    def _decorated(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        if event.anchor is not None:
            what = f"anchor &{event.anchor}: anchors and aliases are not read in a tenant file"
            self._refuse(line, what, "remove it and write values out")
        if event.tag is not None:
            what = f"tag {show(event.tag)}: tags are not read in a tenant file"
            self._refuse(line, what, "remove it; quote a value to make it text")

    def _alias(self, name: str, line: int) -> Field:
        what = f"alias *{name}: anchors and aliases are not read in a tenant file"
        self._refuse(line, what, "write the value out")
        raise Stop

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Field:
        text = event.value
        value = _resolve(text) if event.implicit[0] and not event.style else text
        if isinstance(value, Unclear):
            return _Doubtful(text, line, text, looks_like=value.looks_like)
        return Field(value, line, text)

    def _key(self, top: Open, found: Field, line: int) -> str | None:
        value = _value(found)
        if not isinstance(value, str):
            what = f"key {show(found.text)} is read as {kind_of(value)}, not as text"
            self._refuse(line, what, f"quote it: {show(found.text)}")
            return None
        if value in top.entries:
            first = top.entries[value].line
            what = f"key {show(value)} is given twice, first in line {first}"
            self._note(line, (*self._path(), value), what, f"remove line {first} or this one")
            return None
        return value

    def _entry(self, top: Open, key: str, found: Field) -> None:
        if isinstance(found.value, tuple | Mapping):
            found = replace(found, line=top.lines[key])
        top.entries[key] = found

    def _path(self) -> Path:
        """Where the innermost list or mapping is."""
        return tuple(
            len(each.items) if each.items is not None else "?" if each.key is None else each.key
            for each in self.stack[:-1]
        )

    def _refuse(self, line: int, what: str, fix: str) -> None:
        self._note(line, self._path(), what, fix)

    def _note(self, line: int, path: Path, what: str, fix: str) -> None:
        self.document.problems.append(Problem(self.file, line, spell(path), what, fix))
        if len(self.document.problems) >= MAX_PROBLEMS:
            raise Stop


def _value(found: Field) -> Scalar:
    """Of a scalar."""
    if isinstance(found, _Doubtful):
        return Unclear(found.text, found.looks_like)
    return None if isinstance(found.value, float | tuple | Mapping) else found.value


def _resolve(text: str) -> Scalar:
    """A plain scalar as a value, where all YAML readers agree; else Unclear."""
    if text == "":
        return None
    if text in ("true", "false"):
        return text == "true"
    if _CLEAR_INTEGER.match(text):
        return int(text)
    for pattern, looks_like in _UNCLEAR:
        if pattern.match(text):
            return Unclear(text, looks_like)
    return text


def kind_of(value: Value) -> str:
    """What a value is, in words; shared by all messages about wrong types."""
    kinds = {bool: "a boolean", int: "a number", str: "text", list: "a list", dict: "a mapping"}
    if isinstance(value, Unclear):
        return value.looks_like
    return kinds.get(type(value), "nothing")
