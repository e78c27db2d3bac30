"""Go's syntax for regular expressions: a pattern becomes a small tree.

Read by `regexes.py`, which runs it. Characters are code points; classes such as `\\d` are ASCII.
What cannot run in linear time (back references, look-around) is refused here, and so are repeats
and nesting beyond all use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from generators.kyverno.failures import BadExpression

MAX_PATTERN = 2_000
MAX_REPEAT = 1_000
MAX_GROUPS = 50
_MAX_DEPTH = 100
_LAST = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]


class Assertion(Enum):
    """Places that take no character."""

    TEXT_START = auto()
    TEXT_END = auto()
    LINE_START = auto()
    LINE_END = auto()
    WORD = auto()
    NOT_WORD = auto()


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of ranges."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The first alternative that leads to a match."""

    alternatives: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` None = without end."""

    part: Node
    least: int
    most: int | None
    greedy: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A capturing group."""

    part: Node
    number: int
    name: str = ""


Node = Chars | Sequence | Choice | Repeat | Group | Assertion

_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_NAMED: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "digit": _DIGIT,
    "lower": ((97, 122),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}


def _negate(ranges: Ranges) -> Ranges:
    out: list[tuple[int, int]] = []
    low = 0
    for start, end in sorted(ranges):
        if start > low:
            out.append((low, start - 1))
        low = max(low, end + 1)
    if low <= _LAST:
        out.append((low, _LAST))
    return tuple(out)


def _fold(ranges: Ranges) -> Ranges:
    """Both cases of the letters; beyond ASCII only of single characters."""
    extra: list[tuple[int, int]] = []
    for start, end in ranges:
        for low, high, shift in ((65, 90, 32), (97, 122, -32)):
            if start <= high and end >= low:
                extra.append((max(start, low) + shift, min(end, high) + shift))
        if start == end:
            extra += [
                (ord(c), ord(c)) for c in (chr(start).lower(), chr(start).upper()) if len(c) == 1
            ]
    return tuple(sorted({*ranges, *extra}))


class _Parser:
    """Recursive descent over one pattern; flags are those of the innermost group."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise BadExpression(f"a regular expression is longer than {MAX_PATTERN} characters")
        self.pattern = pattern
        self.at = 0
        self.groups = 0
        self.depth = 0
        self.flags = frozenset[str]()

    def fail(self, why: str) -> BadExpression:
        return BadExpression(f"regular expression {self.pattern!r}: {why}")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self, literal: str) -> bool:
        if self.pattern.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def parse(self) -> Node:
        node = self.choice()
        if self.at < len(self.pattern):
            raise self.fail("unexpected )")
        return node

    def choice(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.fail(f"nested deeper than {_MAX_DEPTH} groups")
        flags = self.flags
        alternatives = [self.sequence()]
        while self.take("|"):
            alternatives.append(self.sequence())
        self.flags = flags
        self.depth -= 1
        return alternatives[0] if len(alternatives) == 1 else Choice(tuple(alternatives))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            atom = self.atom()
            if atom is not None:
                parts.append(self.repeats(atom))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def repeats(self, node: Node) -> Node:
        seen = False
        while (bounds := self.bounds()) is not None:
            if seen:
                raise self.fail("a repeat of a repeat needs a group")
            seen = True
            node = Repeat(node, *bounds, greedy=not self.take("?"))
        return node

    def bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.take(sign):
                return bounds
        if self.peek() != "{":
            return None
        end = self.pattern.find("}", self.at)
        low, comma, high = self.pattern[self.at + 1 : end].partition(",")
        if end < 0 or not low.isdecimal() or not (high.isdecimal() or high == ""):
            return None
        self.at = end + 1
        least = int(low[:10])
        most = int(high[:10]) if high else None if comma else least
        if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
            raise self.fail(f"bad repeat count, at most {MAX_REPEAT}")
        return least, most

    def atom(self) -> Node | None:
        c = self.peek()
        self.at += 1
        if c == "(":
            return self.group()
        if c == "[":
            return self.bracket()
        if c == ".":
            return Chars(((0, _LAST),) if "s" in self.flags else _negate(((10, 10),)))
        if c == "^":
            return Assertion.LINE_START if "m" in self.flags else Assertion.TEXT_START
        if c == "$":
            return Assertion.LINE_END if "m" in self.flags else Assertion.TEXT_END
        if c in "*+?":
            raise self.fail(f"nothing to repeat before {c}")
        if c == "\\":
            return self.escape()
        return self.chars(((ord(c), ord(c)),))

    def chars(self, ranges: Ranges) -> Chars:
        return Chars(_fold(ranges) if "i" in self.flags else ranges)

    def group(self) -> Node | None:
        if not self.take("?"):
            return self.capture("")
        if self.take("P<") or (
            self.peek() == "<"
            and self.pattern[self.at + 1 : self.at + 2] not in "=!"
            and self.take("<")
        ):
            end = self.pattern.find(">", self.at)
            name = self.pattern[self.at : end]
            if end < 0 or not name.isidentifier():
                raise self.fail("bad group name")
            self.at = end + 1
            return self.capture(name)
        outer = self.flags
        self.set_flags()
        if self.take(")"):
            return None
        if not self.take(":"):
            raise self.fail("look-around and back references do not exist here")
        node = self.closed()
        self.flags = outer
        return node

    def set_flags(self) -> None:
        on = True
        while (c := self.peek()) and c in "ims-":
            self.at += 1
            if c == "-":
                on = False
            else:
                self.flags = self.flags | {c} if on else self.flags - {c}

    def capture(self, name: str) -> Node:
        self.groups += 1
        if self.groups > MAX_GROUPS:
            raise self.fail(f"more than {MAX_GROUPS} groups")
        number = self.groups
        return Group(self.closed(), number, name)

    def closed(self) -> Node:
        node = self.choice()
        if not self.take(")"):
            raise self.fail("missing )")
        return node

    def escape(self) -> Node:
        c = self.peek()
        assertions = {
            "b": Assertion.WORD,
            "B": Assertion.NOT_WORD,
            "A": Assertion.TEXT_START,
            "z": Assertion.TEXT_END,
        }
        if c in assertions and c:
            self.at += 1
            return assertions[c]
        ranges = self.escaped()
        return self.chars(ranges)

    def escaped(self) -> Ranges:
        c = self.peek()
        self.at += 1
        if c.lower() in _CLASSES and c:
            ranges = _CLASSES[c.lower()]
            return ranges if c.islower() else _negate(ranges)
        if c == "x":
            return self.hexadecimal()
        if c in _CONTROLS:
            return ((_CONTROLS[c], _CONTROLS[c]),)
        if c == "" or c.isalnum():
            raise self.fail(f"unknown escape \\{c}")
        return ((ord(c), ord(c)),)

    def hexadecimal(self) -> Ranges:
        if self.take("{"):
            end = self.pattern.find("}", self.at)
            digits = self.pattern[self.at : end] if end > 0 else ""
            self.at = end + 1
        else:
            digits = self.pattern[self.at : self.at + 2]
            self.at += 2
        if not 0 < len(digits) <= 6 or not all(d in "0123456789abcdefABCDEF" for d in digits):
            raise self.fail("bad \\x escape")
        return ((min(int(digits, 16), _LAST),) * 2,)

    def bracket(self) -> Node:
        negated = self.take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self.peek() != "]":
            if self.peek() == "":
                raise self.fail("missing ]")
            first = False
            ranges += self.member()
        self.at += 1
        found = tuple(sorted(ranges))
        if "i" in self.flags:
            found = _fold(found)
        return Chars(_negate(found) if negated else found)

    def member(self) -> Ranges:
        if self.take("[:"):
            end = self.pattern.find(":]", self.at)
            name = self.pattern[self.at : end] if end > 0 else ""
            negated, name = name.startswith("^"), name.removeprefix("^")
            if name not in _NAMED:
                raise self.fail(f"unknown class [:{name}:]")
            self.at = end + 2
            return _negate(_NAMED[name]) if negated else _NAMED[name]
        low = self.one()
        after = self.pattern[self.at + 1 : self.at + 2]
        if self.peek() != "-" or after in ("]", "") or len(low) != 1 or low[0][0] != low[0][1]:
            return low
        self.at += 1
        high = self.one()
        if len(high) != 1 or high[0][0] != high[0][1] or high[0][0] < low[0][0]:
            raise self.fail("bad range in [ ]")
        return ((low[0][0], high[0][0]),)

    def one(self) -> Ranges:
        if self.take("\\"):
            return self.escaped()
        c = self.peek()
        self.at += 1
        if c == "":
            raise self.fail("missing ]")
        return ((ord(c), ord(c)),)


def parse(pattern: str) -> tuple[Node, int]:
    """The tree of a pattern, and how many groups it has; BadExpression when it is wrong."""
    parser = _Parser(pattern)
    return parser.parse(), parser.groups
