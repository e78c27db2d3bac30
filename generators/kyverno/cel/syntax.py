"""The text of a CEL expression -> a tree. Google's parser reads it (cel-expr-python, an extra).

Only the parser of that library is used. Its evaluator ends the process where an optional value
reaches a function of ours, and gives texts a gigabyte; a webhook can afford neither. What the
parser hands out is a `cel.expr.ParsedExpr`, whose fields are those of cel-spec's syntax.proto.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

from generators.kyverno.failures import BadExpression

if TYPE_CHECKING:
    from cel_expr_python import cel  # type: ignore[import-untyped]  # its stubs are not marked

MAX_LENGTH = 20_000
"""Characters of one expression."""
MISSING = "CEL needs the package cel-expr-python, which is not installed"
INSTALL = "pip install 'ringfence[cel]'"
_SIGN = 1 << 63


class Uint(int):
    """An unsigned number: `3u`."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Identifier:
    """A name on its own."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`; `test`: has(operand.field)."""

    operand: Node
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class CallOf:
    """A function or an operator, which is one called `_+_` and the like."""

    function: str
    target: Node | None
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, ?b]`, with the places of what is optional."""

    items: tuple[Node, ...]
    optional: frozenset[int]


@dataclass(frozen=True, slots=True)
class MapEntry:
    """One entry of a map or a message."""

    key: Node
    value: Node
    optional: bool


@dataclass(frozen=True, slots=True)
class MapOf:
    """`{a: b}`; with a message's name `Object.spec{a: b}`."""

    message: str
    entries: tuple[MapEntry, ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What `all`, `map`, `cel.bind` and the like are made of."""

    variable: str
    range: Node
    accumulator: str
    initial: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = Constant | Identifier | Select | CallOf | ListOf | MapOf | Comprehension


def installed() -> bool:
    """Whether expressions can be read here."""
    return find_spec("cel_expr_python") is not None


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of an expression; BadExpression says row and column of what is wrong."""
    if not installed():
        raise BadExpression(f"{MISSING}: {INSTALL}")
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"an expression is longer than {MAX_LENGTH} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadExpression(f"an expression holds half a character: {error}") from None
    with _LOCK:
        try:
            parsed = _environment().compile(text, disable_check=True).serialize()
        except RuntimeError as error:
            raise BadExpression(_told(str(error))) from None
    envelope = dict(_fields(parsed))
    return _node(_bytes(dict(_fields(_bytes(envelope[2])))[2]))


_LOCK = threading.Lock()


@lru_cache(maxsize=1)
def _environment() -> cel.Env:
    """With the macros of upstream's environment as far as this parser has them."""
    from cel_expr_python import cel
    from cel_expr_python.ext import (  # type: ignore[import-untyped]  # the same
        ext_bindings,
        ext_math,
        ext_optional,
    )

    macros = [ext_optional.ExtOptional(), ext_bindings.ExtBindings(), ext_math.ExtMath()]
    return cel.NewEnv(extensions=macros)


def _told(message: str) -> str:
    """`row:column: what`, without the library's frame around it."""
    first = message.splitlines()[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ")
    first = first.removeprefix("CANCELLED: ").removesuffix(" [CANCELLED]")
    first = first.removeprefix("<input>:").removesuffix(" [INVALID_ARGUMENT]")
    # Of what has no place, the parser says the largest number there is.
    return re.sub(r"^\d{9,}:\d+: ", "", first)


# --- protobuf -----------------------------------------------------------------------------------

_Wire: TypeAlias = "int | bytes"


def _fields(data: bytes) -> Iterator[tuple[int, _Wire]]:
    """(number, value) of a message: varints as numbers, all else as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case 1:
                yield tag >> 3, data[at : at + 8]
                at += 8
            case _:
                length, at = _varint(data, at)
                yield tag >> 3, data[at : at + length]
                at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(value: _Wire) -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(value: _Wire) -> str:
    return _bytes(value).decode()


def _node(data: bytes) -> Node:
    for number, value in _fields(data):
        body = _bytes(value)
        match number:
            case 3:
                return Constant(_constant(body))
            case 4:
                return Identifier(_text(dict(_fields(body)).get(1, b"")))
            case 5:
                return _select(body)
            case 6:
                return _call(body)
            case 7:
                return _list(body)
            case 8:
                return _map(body)
            case 9:
                return _comprehension(body)
    raise BadExpression("the expression is empty")


def _constant(data: bytes) -> bool | int | float | str | bytes | None:
    for number, value in _fields(data):
        match number, value:
            case 2, int():
                return bool(value)
            case 3, int():
                return value - 2 * _SIGN if value >= _SIGN else value
            case 4, int():
                return Uint(value)
            case 5, bytes():
                number_: float = struct.unpack("<d", value)[0]
                return number_
            case 6, bytes():
                return value.decode()
            case 7, bytes():
                return value
    return None


def _select(data: bytes) -> Select:
    found = dict(_fields(data))
    return Select(_node(_bytes(found[1])), _text(found[2]), bool(found.get(3, 0)))


def _call(data: bytes) -> CallOf:
    target: Node | None = None
    function = ""
    arguments = []
    for number, value in _fields(data):
        match number:
            case 1:
                target = _node(_bytes(value))
            case 2:
                function = _text(value)
            case 3:
                arguments.append(_node(_bytes(value)))
    return CallOf(function, target, tuple(arguments))


def _list(data: bytes) -> ListOf:
    items = []
    optional: set[int] = set()
    for number, value in _fields(data):
        if number == 1:
            items.append(_node(_bytes(value)))
        elif isinstance(value, int):
            optional.add(value)
        else:
            at = 0
            while at < len(value):
                index, at = _varint(value, at)
                optional.add(index)
    return ListOf(tuple(items), frozenset(optional))


def _map(data: bytes) -> MapOf:
    message = ""
    entries = []
    for number, value in _fields(data):
        if number == 1:
            message = _text(value)
        else:
            entries.append(_entry(_bytes(value)))
    return MapOf(message, tuple(entries))


def _entry(data: bytes) -> MapEntry:
    found = dict(_fields(data))
    key = Constant(_text(found[2])) if 2 in found else _node(_bytes(found[3]))
    return MapEntry(key, _node(_bytes(found[4])), bool(found.get(5, 0)))


def _comprehension(data: bytes) -> Comprehension:
    found = dict(_fields(data))
    first, initial, condition, step, result = (_node(_bytes(found[n])) for n in (2, 4, 5, 6, 7))
    return Comprehension(_text(found[1]), first, _text(found[3]), initial, condition, step, result)
