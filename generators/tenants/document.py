"""YAML text to a plain document that knows its lines: the strict reader of the tenant file.

Called by load.py only. The surprise: this is a small part of YAML. A tenant file decides who may
talk to whom, so whatever two YAML readers may understand differently is refused with "quote it"
(`no`, `1e3`, `0123`, `~`, dates), and so are duplicate keys, anchors, aliases, tags and a second
document. It works on the parser's events, without recursion, and never expands anything: a file
of aliases of any size is answered at its first alias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from generators.errors import Problem

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


Value = str | int | bool | Unclear | list["Value"] | dict[str, "Value"] | None


@dataclass(slots=True)
class Document:
    """What was read: the value and, for every path in it, its line (a collection's: its key's)."""

    file: str
    root: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    whole: bool = False
    """Read to the end; otherwise what is missing in `root` may stand in the file all the same."""

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, what: str, fix: str) -> Problem:
        """A Problem at a path's line."""
        return Problem(self.file, self.line(path), spell(path), what, fix)


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
    """Read one YAML document; what is wrong with it as YAML is in `problems`."""
    document = Document(file)
    text = _decode(data, document)
    if text is None:
        return document
    try:
        _Reader(document).read(yaml.parse(text, Loader=yaml.CSafeLoader))
        document.whole = True
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error, text, file))
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        what = f"broken YAML: character U+{_code_point(error):04X} is not allowed"
        document.problems.append(Problem(file, line, "", what, "remove it"))
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

    What is not ASCII is escaped, so that look-alikes of ASCII letters can be seen.
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


class _Stop(Exception):
    """Reading ends here; the reason is in the problems."""


@dataclass(slots=True)
class _Open:
    """A collection that has begun.

    `key` is the key that waits for its value; None when the key was refused: its value is read,
    but put nowhere.
    """

    value: list[Value] | dict[str, Value]
    path: Path
    key: str | None = None
    expects_key: bool = False


class _Reader:
    """Builds the document from parser events, with the open collections on a stack of its own."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.stack: list[_Open] = []
        self.documents = 0

    def read(self, events: Iterator[yaml.Event]) -> None:
        """Take in all events; raises _Stop when there is no point in reading on."""
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.start_document(event)
            elif isinstance(event, yaml.AliasEvent):
                what = f"alias *{event.anchor}: anchors and aliases are not read in a tenant file"
                self.refuse(event, what, "write the value out")
                raise _Stop
            elif isinstance(event, yaml.ScalarEvent):
                self.scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self.start_collection(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.end_collection()

    def start_document(self, event: yaml.DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            what = "a second YAML document begins; a tenant file is one document"
            self.refuse(event, what, "put all tenants into the first and remove the `---`")
            raise _Stop

    def start_collection(self, event: yaml.CollectionStartEvent) -> None:
        self.refuse_decoration(event)
        if len(self.stack) >= MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
            self.refuse(event, what, "no field of a tenant file is that deep; remove it")
            raise _Stop
        mapping = isinstance(event, yaml.MappingStartEvent)
        value: list[Value] | dict[str, Value] = {} if mapping else []
        if self.stack and self.stack[-1].expects_key:
            self.refuse(event, "a list or mapping is used as a key", "write a plain text key")
            self.stack[-1].key, self.stack[-1].expects_key = None, False
            path = (*self.stack[-1].path, "?")
        else:
            path = self.place(value, event)
        self.stack.append(_Open(value, path, expects_key=mapping))

    def end_collection(self) -> None:
        self.stack.pop()

    def scalar(self, event: yaml.ScalarEvent) -> None:
        self.refuse_decoration(event)
        value = _resolve(event.value) if event.implicit[0] and not event.style else event.value
        if self.stack and self.stack[-1].expects_key:
            self.take_key(event, value)
        else:
            self.place(value, event)

    def take_key(self, event: yaml.ScalarEvent, key: Value) -> None:
        """Remember the key whose value comes next; refuse one that is no text or there already."""
        top = self.stack[-1]
        top.key, top.expects_key = None, False
        if not isinstance(key, str):
            what = f"key {show(event.value)} is read as {kind_of(key)}, not as text"
            self.refuse(event, what, f"quote it: {show(event.value)}")
            return
        path = (*top.path, key)
        if isinstance(top.value, dict) and key in top.value:
            first = self.document.lines[path]
            what = f"key {show(key)} is given twice, first in line {first}"
            fix = f"remove line {first} or this one"
            self.note(Problem(self.document.file, _line(event), spell(path), what, fix))
            return
        self.document.lines[path] = _line(event)
        top.key = key

    def place(self, value: Value, event: yaml.NodeEvent) -> Path:
        """Put a value where it belongs, and note its line."""
        if not self.stack:
            self.document.root = value
            self.document.lines[()] = _line(event)
            return ()
        top = self.stack[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            top.value.append(value)
            self.document.lines[path] = _line(event)
            return path
        key, top.key, top.expects_key = top.key, None, True
        if key is None:
            return (*top.path, "?")
        path = (*top.path, key)
        top.value[key] = value
        if not isinstance(value, list | dict):
            self.document.lines[path] = _line(event)
        return path

    def refuse_decoration(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            what = f"anchor &{event.anchor}: anchors and aliases are not read in a tenant file"
            self.refuse(event, what, "remove it and write values out")
        if event.tag is not None:
            what = f"tag {show(event.tag)}: tags are not read in a tenant file"
            self.refuse(event, what, "remove it; quote a value to make it text")

    def refuse(self, event: yaml.Event, what: str, fix: str) -> None:
        path = self.stack[-1].path if self.stack else ()
        self.note(Problem(self.document.file, _line(event), spell(path), what, fix))

    def note(self, problem: Problem) -> None:
        self.document.problems.append(problem)
        if len(self.document.problems) >= MAX_PROBLEMS:
            raise _Stop


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _resolve(text: str) -> Value:
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
