"""`-o jsonpath=TEMPLATE`, in kubectl's grammar and with its error words.

https://kubernetes.io/docs/reference/kubectl/jsonpath/ is the source; no kept library has its
templates (text, `range`, `end`). Three deviations: an empty list among many ends nothing, the
fields of an object come sorted, and an answer that is a list has `.items` as well as `[*]`.
"""

from __future__ import annotations

import operator
import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from generators.errors import RingfenceError

Values = list[object]
Step = Callable[[Values], Values]

_END_OF_NAME = " \t\r\n.,[]$@{}"
_KEY = re.compile(r"'([^']*)'")
_SLICE = re.compile(r"(-?\d*)(?::(-?\d*))?(?::(-?\d*))?")
_COMPARISON = re.compile(r"([^!<>=]+)([!<>=]+)(.+)")
_ESCAPE = re.compile(r"""\\([abfnrtv\\"']|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3})""")
"""What Go reads behind a backslash in a quoted text."""
_NUMBER = re.compile(r"[+-]?[\d.]+")
_OPERATORS: Mapping[str, Callable[[object, object], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item]  # both sides are of one kind, see _compare
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}


class JsonPathError(RingfenceError):
    """A template that cannot be read, or that does not fit the answer."""


class _Listing(list[object]):
    """An answer that is a list: kubectl would give it as the items of a List."""


@dataclass(frozen=True, slots=True)
class _Action:
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class _Range:
    steps: tuple[Step, ...]
    body: list[_Part]


_Part = str | _Action | _Range


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A template that was read; `render` fills it in."""

    text: str
    parts: tuple[_Part, ...]

    def values(self, document: object) -> Values:
        """What the actions find, for `jsonpath-as-json`; errors as of `render`."""
        return [
            each for part in self._found(document) if not isinstance(part, str) for each in part
        ]

    def render(self, document: object) -> str:
        """The answer in this form; JsonPathError where an index or comparison does not fit it."""
        return "".join(
            part if isinstance(part, str) else " ".join(map(_printed, part))
            for part in self._found(document)
        )

    def _found(self, document: object) -> list[str | Values]:
        root = _Listing(document) if isinstance(document, list) else document
        try:
            return list(_pieces(self.parts, root))
        except JsonPathError as error:
            raise JsonPathError(f'error executing jsonpath "{self.text}": {error}') from None


def parse(text: str) -> JsonPath:
    """Read a template; JsonPathError with kubectl's words and what was expected."""
    try:
        return JsonPath(text, tuple(_parts(text)))
    except JsonPathError as error:
        raise JsonPathError(f"error parsing jsonpath {text}, {error}") from None


def _parts(text: str) -> list[_Part]:
    """Text and actions, what is between `range` and `end` inside of its range."""
    outermost: list[_Part] = []
    open_ranges = [outermost]
    at = 0
    while (brace := text.find("{", at)) >= 0:
        if brace > at:
            open_ranges[-1].append(text[at:brace])
        reader = _Reader(text, brace + 1)
        word, steps = reader.action()
        at = reader.at
        if word == "range":
            found = _Range(steps, [])
            open_ranges[-1].append(found)
            open_ranges.append(found.body)
        elif word != "end":
            open_ranges[-1].append(_Action(steps))
        elif len(open_ranges) > 1:
            open_ranges.pop()
        else:
            raise JsonPathError("not in range, nothing to end")
    if at < len(text):
        open_ranges[-1].append(text[at:])
    return outermost


def _pieces(parts: Sequence[_Part], current: object) -> Iterator[str | Values]:
    for part in parts:
        if isinstance(part, str):
            yield part
            continue
        found = _walked(part.steps, [current])
        if isinstance(part, _Range):
            for value in found:
                yield from _pieces(part.body, value)
        else:
            yield found


def _walked(steps: tuple[Step, ...], values: Values) -> Values:
    for step in steps:
        values = step(values)
    return values


def _printed(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # as Go prints it
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class _Reader:
    """Reads one action, `{...}`, from behind its brace."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def action(self) -> tuple[str, tuple[Step, ...]]:
        """`range` or `end` where the action is one, and its steps."""
        word, steps = "", list[Step]()
        while not self._takes("}"):
            head = self._text[self.at : self.at + 1]
            if head in ("", "\r", "\n"):
                raise JsonPathError("unclosed action")
            if head in " @$":
                self.at += 1
            elif head.isalpha() or head == "_":
                name = self._name()
                if name in ("range", "end") and not word and not steps:
                    word = name
                elif name in ("true", "false"):
                    steps.append(_constant(name == "true"))
                else:
                    raise JsonPathError(f"unrecognized identifier {name}")
            else:
                steps.append(self._step(head))
        return word, tuple(steps)

    def _step(self, head: str) -> Step:
        if self._takes("[?("):
            return self._filter()
        if self._takes(".."):
            following = self._text[self.at : self.at + 1]
            named = following.isalnum() or following == "_"
            return _after(_descend, _field(self._name())) if named else _descend
        if self._takes("["):
            return self._array()
        if self._takes("."):
            name = self._name()
            return _children if name == "*" else _field(name)
        if head in "\"'":
            return _constant(self._quoted(head))
        if number := _NUMBER.match(self._text, self.at):
            self.at = number.end()
            try:
                value = float(number[0]) if "." in number[0] else int(number[0])
            except ValueError:
                raise JsonPathError(f"cannot parse number {number[0]}") from None
            return _constant(value)
        raise JsonPathError(f"unrecognized character in action: U+{ord(head):04X} '{head}'")

    def _takes(self, token: str) -> bool:
        found = self._text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def _name(self) -> str:
        """Up to what ends a name; a backslash takes the next character as it is."""
        name = ""
        while self.at < len(self._text) and self._text[self.at] not in _END_OF_NAME:
            self.at += self._text[self.at] == "\\"
            name += self._text[self.at : self.at + 1]
            self.at += 1
        return name

    def _quoted(self, quote: str) -> str:
        literal = re.compile(rf"{quote}(\\.|[^\\\n{quote}])*{quote}").match(self._text, self.at)
        if literal is None:
            raise JsonPathError("unterminated quoted string")
        self.at = literal.end()
        if "\\" in _ESCAPE.sub("", literal[0]):
            raise JsonPathError(f"unquote string {literal[0]} error invalid syntax")
        return str(literal_eval(literal[0]))

    def _array(self) -> Step:
        end = self._text.find("]", self.at)
        text = self._text[self.at : end]
        if end < 0 or "\n" in text:
            raise JsonPathError("unterminated array")
        self.at = end + 1
        if "," in text:
            return _union([_selected(each.strip()) for each in text.split(",")])
        return _selected(text)

    def _filter(self) -> Step:
        condition = re.compile(r"""((?:[^"')\n]|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')*)\)""")
        found = condition.match(self._text, self.at)
        if found is None:
            raise JsonPathError("unterminated filter")
        self.at = found.end()
        if not self._takes("]"):
            raise JsonPathError("unclosed array expect ]")
        if comparison := _COMPARISON.fullmatch(found[1]):
            left, sign, right = comparison.groups()
            sides = _inner(left), _inner(right)
            if sign not in _OPERATORS:
                raise JsonPathError(f"unrecognized filter operator {sign}")
            return _filtered(_holds(sides, sign))
        steps = _inner(found[1])
        return _filtered(lambda value: bool(_walked(steps, [value])))


def _inner(text: str) -> tuple[Step, ...]:
    return _Reader(text + "}", 0).action()[1]


def _selected(text: str) -> Step:
    """What is between brackets: `*`, a quoted name, an index or a slice."""
    if text == "*":
        return _sliced(0, None, 1)
    if key := _KEY.fullmatch(text):
        steps = _inner(f".{key[1]}")
        return lambda values: _walked(steps, values)
    found = _SLICE.fullmatch(text)
    if found is None or not text:
        raise JsonPathError(f"invalid array index {text}")
    start, end, step = (int(number) if number else None for number in found.groups())
    if step is not None and step <= 0:
        raise JsonPathError("step must be > 0")
    if found[2] is None:
        return _indexed(start or 0)
    return _sliced(start or 0, end, step or 1)


def _constant(value: object) -> Step:
    return lambda values: [value for _ in values]


def _after(first: Step, then: Step) -> Step:
    return lambda values: then(first(values))


def _union(steps: list[Step]) -> Step:
    return lambda values: [found for step in steps for found in step(values)]


def _field(name: str) -> Step:
    def step(values: Values) -> Values:
        listings = [value for value in values if name == "items" and isinstance(value, _Listing)]
        return [
            *listings,
            *(value[name] for value in values if isinstance(value, Mapping) and name in value),
        ]

    return step


def _lists(values: Values) -> Iterator[list[object]]:
    for value in values:
        if isinstance(value, list):
            yield value
        elif value is not None:
            raise JsonPathError(f"{type(value).__name__} is not array or slice")


def _indexed(index: int) -> Step:
    def step(values: Values) -> Values:
        found = []
        for value in _lists(values):
            place = index + len(value) if index < 0 else index
            if not 0 <= place < len(value):
                raise JsonPathError(
                    f"array index out of bounds: index {place}, length {len(value)}"
                )
            found.append(value[place])
        return found

    return step


def _sliced(start: int, end: int | None, by: int) -> Step:
    def step(values: Values) -> Values:
        found = list[object]()
        for value in _lists(values):
            length = len(value)
            first = start + length if start < 0 else start
            last = length if end is None else end + length if end < 0 else end
            for place in (first, last - 1):
                if first != last and not 0 <= place < length:
                    raise JsonPathError(
                        f"array index out of bounds: index {place}, length {length}"
                    )
            if first > last:
                raise JsonPathError(f"starting index {first} is greater than ending index {last}")
            found += value[first:last:by]
        return found

    return step


def _children(values: Values) -> Values:
    return [child for value in values for child in _below(value)]


def _below(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [value[key] for key in sorted(value)]
    return list(value) if isinstance(value, list) else []


def _descend(values: Values) -> Values:
    found = list[object]()
    for value in values:
        if below := _below(value):
            found += [value, *_descend(below)]
    return found


def _filtered(passes: Callable[[object], bool]) -> Step:
    def step(values: Values) -> Values:
        for value in values:
            if not isinstance(value, list):
                raise JsonPathError(
                    f"{type(value).__name__} is not array or slice and cannot be filtered"
                )
        return [item for value in values for item in _below(value) if passes(item)]

    return step


def _holds(sides: tuple[tuple[Step, ...], tuple[Step, ...]], sign: str) -> Callable[[object], bool]:
    def passes(item: object) -> bool:
        left, right = (_walked(side, [item]) for side in sides)
        if not left or not right:
            return False
        if len(left) > 1 or len(right) > 1:
            raise JsonPathError("can only compare one element at a time")
        return _compare(left[0], sign, right[0])

    return passes


def _compare(one: object, sign: str, other: object) -> bool:
    basic = (bool, int, float, str)
    for value in (one, other):
        if type(value) not in basic or (isinstance(value, bool) and sign not in ("==", "!=")):
            raise JsonPathError("invalid type for comparison")
    if type(one) is not type(other):
        raise JsonPathError("incompatible types for comparison")
    return _OPERATORS[sign](one, other)
