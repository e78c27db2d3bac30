"""YAML and JSON text -> `Field` trees in which every value knows its line.

Scalars are read as the API server reads them (`no` is a boolean, `1e3` a number), but keep their
source text: a namespace that is called `no` stays recognizable. Nothing here recurses over text,
and aliases are shared, not copied: they are only counted. The tenant file is read more strictly, by
the same reader: `generators/tenants/document.py`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from generators.documents.json import MAX_DEPTH, Value
from generators.errors import InputError, Problem

MAX_BYTES = 64 * 1024 * 1024
MAX_ALIASED = 1_000_000
"""Values of one document that are there by aliases only."""

_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = (
    yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUES = frozenset({"yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"})
_FALSES = frozenset({"no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"})
SINGLE_LETTERS = frozenset({"y", "Y", "n", "N"})
"""Booleans to YAML 1.1 and to the API server, strings to YAML 1.2 and to most libraries that write
YAML: read as the letters that they are, written in quotes."""
_INTEGER = re.compile(r"[-+]?(0[bB][01_]+|0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_INTEGER = 25
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON = json.JSONDecoder()
_SPACE = re.compile(r"\s*")
_JSON_ONLY = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # one character in two halves
    r"|\\u[0-9a-fA-F]{4}|\\."  # any escape as a whole, so that none is taken for its half
    r"|[\t\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"  # white space, no white space to JSON
)
_STRING_TAG = "tag:yaml.org,2002:str"
_MERGE = "<<"


class _Mark(Protocol):
    """A place in the text, from either of PyYAML's parsers."""

    line: int


Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a document: scalar, tuple of fields, or mapping of fields."""

    value: Scalar | tuple[Field, ...] | Mapping[str, Field]
    line: int
    text: str = ""
    """The source of a scalar."""
    size: int = 1
    """How many values it holds, itself included, with aliases written out."""


def resolve(text: str) -> Scalar:
    """What an unquoted scalar is to the API server's YAML reader."""
    if text in _NULLS:
        return None
    if text in _TRUES:
        return True
    if text in _FALSES:
        return False
    if _INTEGER.fullmatch(text) and len(text) <= _LONGEST_INTEGER:
        return _integer(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return text


def _integer(text: str) -> Scalar:
    digits = text.lstrip("+-")
    if not digits[-1].isalnum():
        return text
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        text = text.replace("0", "0o", 1)
    try:
        return int(text, 0)
    except ValueError:
        return text


def from_sent(value: object, file: str, line: int) -> Field:
    """The tree of decoded JSON, with one line for all of it: what was sent has no lines."""
    try:
        return _from_plain(value, line)
    except (TypeError, ValueError) as error:
        raise _error(file, line, str(error), "correct it") from None


def _from_plain(value: object, line: int, depth: int = 0) -> Field:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool | int | float | str):
        return Field(value, line, value if isinstance(value, str) else json.dumps(value))
    if isinstance(value, list | tuple):
        return Field(tuple(_from_plain(item, line, depth + 1) for item in value), line)
    if isinstance(value, Mapping):
        return Field({str(k): _from_plain(v, line, depth + 1) for k, v in value.items()}, line)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def plain(field: Field) -> Value:
    """The value of a field tree, without lines; the reader bounds its depth."""
    if isinstance(field.value, tuple):
        return [plain(item) for item in field.value]
    if isinstance(field.value, Mapping):
        return {key: plain(item) for key, item in field.value.items()}
    return field.value


def documents(data: bytes, file: str) -> Iterator[Field]:
    """Every non-empty document of a YAML or JSON file; InputError at the first broken line."""
    if len(data) > MAX_BYTES:
        raise _error(file, 1, f"is larger than {MAX_BYTES >> 20} MiB", "split the file")
    try:
        text = data.decode("utf-16" if data.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(file, line, "is not UTF-8 text", "save the file as UTF-8") from None
    for line, part in _parts(text, file):
        yield from Reader(file, line).documents(part)


def _parts(text: str, file: str) -> Iterator[tuple[int, str]]:
    """The text in pieces that YAML reads, with the line of each.

    As kubectl does: a file that begins with a JSON value is a stream of JSON values, which may go
    on with YAML documents.
    """
    line, start = 1, 0
    while text.startswith(("{", "["), begin := _end_of_space(text, start)):
        try:
            _, end = _JSON.raw_decode(text, begin)
        except (ValueError, RecursionError):
            if start:
                break
            # A flow mapping, not JSON: YAML refuses a tab as white space in it.
            yield line, text.replace("\t", " ")
            return
        yield line, text[start:begin] + _JSON_ONLY.sub(_as_yaml, text[begin:end])
        line, start = line + text.count("\n", start, end), end
    begin = _end_of_space(text, start)
    if start and begin < len(text) and not text.startswith("---", begin):
        line += text.count("\n", start, begin)
        raise _error(file, line, "what follows the JSON value is not JSON", "correct it")
    yield line, text[start:]


def _end_of_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _as_yaml(found: re.Match[str]) -> str:
    """A piece of JSON text that YAML would read otherwise or refuse, as YAML's escape for it."""
    piece = found[0]
    if piece == "\t":
        return " "
    if piece[0] != "\\":
        return f"\\U{ord(piece):08x}"
    if piece[1] != "u":
        return piece
    text: str = json.loads(f'"{piece}"')
    return "\\ufffd" if "\ud800" <= text <= "\udfff" else f"\\U{ord(text):08x}"


def _error(file: str, line: int, what: str, fix: str) -> InputError:
    return InputError([Problem(file, line, "", what, fix)])


@dataclass(slots=True)
class Open:
    """A list or mapping whose end has not been seen."""

    line: int
    anchor: str | None
    is_key: bool
    """It stands where a key should."""
    items: list[Field] | None
    expects_key: bool
    key: str | None = None
    """The key whose value comes next; None = a refused key, whose value is dropped."""
    entries: dict[str, Field] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    merged: list[Field] = field(default_factory=list)
    size: int = 1


class Stop(Exception):
    """Reading ends here; what was refused says why."""


class Reader:
    """Turns the parser's events into fields, with a stack of its own instead of recursion.

    Lenient, as the API server reads; `tenants/document.py` overrides what a tenant file is refused
    for. Where `_refuse` returns, reading goes on without what was refused.
    """

    max_depth = MAX_DEPTH
    too_deep = (f"nested deeper than {MAX_DEPTH} levels", "flatten it")
    key_is_collection = ("a key that is a list or a mapping", "use a plain word as key")

    def __init__(self, file: str, first_line: int = 1) -> None:
        self.file = file
        self.first_line = first_line
        self.stack: list[Open] = []
        self.anchors: dict[str, Field] = {}
        self.root: Field | None = None
        self.written = 0
        """Values of the document so far, aliases not counted."""

    def documents(self, text: str) -> Iterator[Field]:
        """Every document that is not empty; InputError where it is broken."""
        try:
            yield from self.read(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = f"broken YAML: {error.problem or error.context}"
            raise _error(self.file, self._line(mark), what, "correct it") from None
        except yaml.YAMLError as error:
            what = f"broken YAML: {str(error).splitlines()[0]}"
            raise _error(self.file, self.first_line, what, "correct it") from None

    def read(self, text: str) -> Iterator[Field]:
        """The same, with the parser's own errors."""
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                self._begin(self._line(event.start_mark))
            elif isinstance(event, yaml.DocumentEndEvent):
                if self.root is not None and self.root.value is not None:
                    yield self.root
            else:
                self._event(event)

    # --- what may be read otherwise -------------------------------------------------------------

    def _begin(self, line: int) -> None:
        self.anchors, self.root, self.written = {}, None, 0

    def _refuse(self, line: int, what: str, fix: str) -> None:
        raise _error(self.file, line, what, fix)

    def _decorated(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        """A value may have an anchor or a tag."""

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Field:
        quoted = event.style in ("'", '"', "|", ">") or event.tag == _STRING_TAG
        return Field(event.value if quoted else resolve(event.value), line, event.value)

    def _alias(self, name: str, line: int) -> Field:
        anchored = self.anchors.get(name)
        if anchored is None:
            self._refuse(line, f"alias *{name} has no finished anchor", "write it out")
            raise Stop
        return anchored

    def _key(self, top: Open, found: Field, line: int) -> str | None:
        """The key that a scalar is; None when it was refused."""
        if isinstance(found.value, tuple | Mapping):
            self._refuse(line, *self.key_is_collection)
        key = found.text
        if key in top.lines:
            what = f"key {key!r} is given twice, first in line {top.lines[key]}"
            self._refuse(line, what, "keep one")
        return key

    def _entry(self, top: Open, key: str, found: Field) -> None:
        if key != _MERGE:
            top.entries[key] = found
        elif isinstance(found.value, tuple):
            top.merged.extend(found.value)
        else:
            top.merged.append(found)

    # --- events ---------------------------------------------------------------------------------

    def _event(self, event: yaml.Event) -> None:
        self.written += 1
        line = self._line(event.start_mark)
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._place(self._alias(event.anchor or "", line), line, None)
        elif isinstance(event, yaml.ScalarEvent):
            self._decorated(event, line)
            self._place(self._scalar(event, line), line, event.anchor)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        self._decorated(event, line)
        if len(self.stack) >= self.max_depth:
            self._refuse(line, *self.too_deep)
            raise Stop
        is_key = bool(self.stack) and self.stack[-1].expects_key
        if is_key:
            self._refuse(line, *self.key_is_collection)
            self.stack[-1].key, self.stack[-1].expects_key = None, False
        items: list[Field] | None = [] if isinstance(event, yaml.SequenceStartEvent) else None
        self.stack.append(Open(line, event.anchor, is_key, items, items is None))

    def _close(self) -> None:
        done = self.stack.pop()
        if done.items is not None:
            found = Field(tuple(done.items), done.line, size=done.size)
        else:
            entries = done.entries
            for source in done.merged:
                entries = {**self._mapping(source), **entries}
            found = Field(entries, done.line, size=done.size)
        if not done.is_key:
            self._place(found, done.line, done.anchor)

    def _mapping(self, found: Field) -> Mapping[str, Field]:
        if not isinstance(found.value, Mapping):
            self._refuse(found.line, "<< does not name a mapping", "write the keys out")
            raise Stop
        return found.value

    def _place(self, found: Field, line: int, anchor: str | None) -> None:
        """Put a finished field where it belongs: root, item, key or value."""
        if anchor is not None:
            self.anchors[anchor] = found
        if not self.stack:
            self.root = found
            return
        top = self.stack[-1]
        top.size += found.size
        if top.size - self.written > MAX_ALIASED:
            self._refuse(line, f"aliases expand it by {MAX_ALIASED} values", "write it out")
        if top.items is not None:
            top.items.append(found)
        elif top.expects_key:
            top.key, top.expects_key = self._key(top, found, line), False
            if top.key is not None:
                top.lines[top.key] = line
        else:
            if top.key is not None:
                self._entry(top, top.key, found)
            top.key, top.expects_key = None, True

    def _line(self, mark: _Mark | None) -> int:
        return self.first_line + (mark.line if mark else 0)
