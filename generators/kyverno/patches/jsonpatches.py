"""RFC 6902 with the three leniencies that policies count on.

    add      creates missing parents: lists where the next part is a number or `-`, else maps
    remove   of a missing value does nothing
    index    may be negative: -1 is the last element

Written by hand: the library that answers admission requests has none of the three. Removing several
elements shifts the indices of those behind, exactly as written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from generators.documents.json import Value, copied, copy, equal, leaves
from generators.kyverno.failures import BadPatch
from generators.kyverno.model import Document

MAX_OPERATIONS = 10_000
MAX_COPIED = 200_000
"""Values that all `copy` operations together may write: each could double the object."""
_INDEX = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation."""

    op: str
    path: tuple[str, ...]
    source: tuple[str, ...] = ()
    value: Value = None


def parse(operations: Value) -> tuple[Step, ...]:
    """The list of operations."""
    if not isinstance(operations, list) or len(operations) > MAX_OPERATIONS:
        raise BadPatch(f"patchesJson6902 must be a list of at most {MAX_OPERATIONS} operations")
    return tuple(_step(number, item) for number, item in enumerate(operations))


def _step(number: int, item: Value) -> Step:
    op = item.get("op") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(op, str) or op not in _RUN:
        raise BadPatch(f"operation {number}: op must be one of {', '.join(_RUN)}")
    path = _pointer(number, item.get("path"))
    source = _pointer(number, item.get("from")) if op in ("move", "copy") else ()
    if op in ("add", "replace", "test") and "value" not in item:
        raise BadPatch(f"operation {number}: {op} needs a value")
    return Step(op, path, source, item.get("value"))


def _pointer(number: int, text: Value) -> tuple[str, ...]:
    if isinstance(text, str) and (text == "" or text.startswith("/")):
        parts = text.split("/")[1:]
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)
    raise BadPatch(f"operation {number}: {text!r} is not a path; write /metadata/labels/x")


def apply(document: Document, steps: tuple[Step, ...]) -> Document:
    """The object after all operations."""
    result = copied(document)
    copies = 0
    for number, step in enumerate(steps):
        if not step.path or _into_itself(step):
            raise BadPatch(f"operation {number}: {step.op} of this path is not possible")
        try:
            if step.op == "copy":
                copies += sum(1 for _ in leaves(_value_at(result, step.source)))
                if copies > MAX_COPIED:
                    raise BadPatch(f"copies more than {MAX_COPIED} values")
            _RUN[step.op](result, step)
        except BadPatch as error:
            where = "/" + "/".join(step.path)
            raise BadPatch(f"operation {number} ({step.op} {where}): {error}") from None
    return result


def _into_itself(step: Step) -> bool:
    deeper = len(step.path) > len(step.source)
    return step.op == "move" and deeper and step.path[: len(step.source)] == step.source


def _parent(document: Document, path: tuple[str, ...], *, create: bool = False) -> Value:
    """What holds the last part of a path."""
    here: Value = document
    for part, following in pairwise(path):
        below = _below(here, part)
        if below is None and create and part != "-":
            below = _padded(following) if _INDEX.fullmatch(following) or following == "-" else {}
            _insert(here, part, below)
        if below is None:
            raise BadPatch(f"there is no {part!r}")
        here = below
    return here


def _padded(index: str) -> list[Value]:
    """A new list whose element of this index comes next."""
    at = 0 if index == "-" else int(index)
    if at > MAX_OPERATIONS:
        raise BadPatch(f"index {index} is far outside a list that is not there")
    return [None for _ in range(at)]


def _below(value: Value, part: str) -> Value:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and _INDEX.fullmatch(part):
        at = int(part)
        return value[at] if -len(value) <= at < len(value) else None
    return None


def _insert(holder: Value, part: str, value: Value) -> None:
    if isinstance(holder, dict):
        holder[part] = value
    elif isinstance(holder, list) and part == "-":
        holder.append(value)
    elif isinstance(holder, list) and _INDEX.fullmatch(part):
        at = int(part)
        at = at + len(holder) + 1 if at < 0 else at
        if not 0 <= at <= len(holder):
            raise BadPatch(f"index {part} is outside a list of {len(holder)}")
        holder.insert(at, value)
    else:
        raise BadPatch(f"{part!r} cannot be put into a {type(holder).__name__}")


def _add(document: Document, step: Step) -> None:
    _insert(_parent(document, step.path, create=True), step.path[-1], copy(step.value))


def _take(document: Document, path: tuple[str, ...]) -> Value:
    holder, part = _parent(document, path), path[-1]
    if isinstance(holder, dict) and part in holder:
        return holder.pop(part)
    if isinstance(holder, list) and _INDEX.fullmatch(part):
        at = int(part)
        if -len(holder) <= at < len(holder):
            return holder.pop(at)
    raise BadPatch(f"there is no {part!r}")


def _remove(document: Document, step: Step) -> None:
    try:
        holder = _parent(document, step.path)
    except BadPatch:
        return
    if isinstance(holder, list) and not _INDEX.fullmatch(step.path[-1]):
        raise BadPatch(f"{step.path[-1]!r} is no index")
    try:
        _take(document, step.path)
    except BadPatch:
        return


def _replace(document: Document, step: Step) -> None:
    holder, part = _parent(document, step.path), step.path[-1]
    if isinstance(holder, dict) and part in holder:
        holder[part] = copy(step.value)
        return
    _take(document, step.path)
    at = int(part)
    _insert(holder, str(at), copy(step.value))


def _value_at(document: Document, path: tuple[str, ...]) -> Value:
    if not path:
        return document
    holder, part = _parent(document, path), path[-1]
    found = _below(holder, part)
    if found is None and not (isinstance(holder, dict) and part in holder):
        raise BadPatch(f"there is no {part!r}")
    return found


def _move(document: Document, step: Step) -> None:
    value = _take(document, step.source)
    _insert(_parent(document, step.path), step.path[-1], value)


def _copy(document: Document, step: Step) -> None:
    value = copy(_value_at(document, step.source))
    _insert(_parent(document, step.path), step.path[-1], value)


def _test(document: Document, step: Step) -> None:
    try:
        found = _value_at(document, step.path)
    except BadPatch:
        # What is not there is null, as long as what should hold it is there.
        found = None
        _parent(document, step.path)
    if not equal(found, step.value):
        raise BadPatch(f"the value is not {step.value!r:.80}")


_RUN: dict[str, Callable[[Document, Step], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
