"""Regular expressions as Go reads them, in time that grows with pattern times text and no faster.

Python's `re` backtracks: one hostile policy could hold a webhook for hours. Here a pattern is
parsed into a small tree and compiled into a program that runs all alternatives side by side.
Back references and look-around do not exist, as upstream; programs, repeats and steps are bounded.
`random(pattern)` walks the same tree. Characters are code points; classes such as `\\d` are ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from generators.kyverno.failures import BadExpression

MAX_PATTERN = 2_000
MAX_REPEAT = 1_000
MAX_PROGRAM = 5_000
MAX_STEPS = 1_000_000
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
        while (c := self.peek()) and c in "imsU-":
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


class _Op(Enum):
    CHARS = auto()
    SPLIT = auto()
    JUMP = auto()
    SAVE = auto()
    ASSERT = auto()
    MATCH = auto()


@dataclass(slots=True)
class _Instruction:
    op: _Op
    ranges: Ranges = ()
    first: int = 0
    second: int = 0
    assertion: Assertion = Assertion.TEXT_START


class _Compiler:
    """Lays a tree out as a program."""

    def __init__(self) -> None:
        self.program: list[_Instruction] = []

    def emit(self, instruction: _Instruction) -> int:
        if len(self.program) >= MAX_PROGRAM:
            raise BadExpression(f"a regular expression is larger than {MAX_PROGRAM} steps")
        self.program.append(instruction)
        return len(self.program) - 1

    def compile(self, node: Node) -> None:
        match node:
            case Chars():
                self.emit(_Instruction(_Op.CHARS, ranges=node.ranges))
            case Assertion():
                self.emit(_Instruction(_Op.ASSERT, assertion=node))
            case Sequence():
                for part in node.parts:
                    self.compile(part)
            case Group():
                self.emit(_Instruction(_Op.SAVE, first=2 * node.number))
                self.compile(node.part)
                self.emit(_Instruction(_Op.SAVE, first=2 * node.number + 1))
            case Choice():
                self.choice(node)
            case Repeat():
                self.repeat(node)

    def choice(self, node: Choice) -> None:
        jumps = []
        for alternative in node.alternatives[:-1]:
            split = self.emit(_Instruction(_Op.SPLIT, first=len(self.program) + 1))
            self.compile(alternative)
            jumps.append(self.emit(_Instruction(_Op.JUMP)))
            self.program[split].second = len(self.program)
        self.compile(node.alternatives[-1])
        for jump in jumps:
            self.program[jump].first = len(self.program)

    def split(self, greedy: bool) -> Callable[[], None]:
        """A split whose other way is where the program ends when the answer is called."""
        at = self.emit(_Instruction(_Op.SPLIT))

        def close() -> None:
            inside, after = at + 1, len(self.program)
            order = (inside, after) if greedy else (after, inside)
            self.program[at].first, self.program[at].second = order

        return close

    def repeat(self, node: Repeat) -> None:
        for _ in range(node.least):
            self.compile(node.part)
        if node.most is None:
            start = len(self.program)
            close = self.split(node.greedy)
            self.compile(node.part)
            self.emit(_Instruction(_Op.JUMP, first=start))
            close()
            return
        closers = []
        for _ in range(node.most - node.least):
            closers.append(self.split(node.greedy))
            self.compile(node.part)
        for close in closers:
            close()


Saved = tuple[int, ...]
Spend = Callable[[int], None]


def bounded() -> Spend:
    """A budget for one search on its own."""
    left = MAX_STEPS

    def spend(steps: int) -> None:
        nonlocal left
        left -= steps
        if left < 0:
            raise BadExpression(f"a regular expression took more than {MAX_STEPS} steps")

    return spend


@dataclass(frozen=True, slots=True)
class Match:
    """Where a pattern matched: start and end of the whole and of each group, -1 where none."""

    spans: Saved

    def group(self, text: str, number: int) -> str:
        """The text of a group; empty when it took no part."""
        if 2 * number + 1 >= len(self.spans) or self.spans[2 * number + 1] < 0:
            return ""
        return text[self.spans[2 * number] : self.spans[2 * number + 1]]


@dataclass(frozen=True, slots=True)
class Regex:
    """A compiled pattern."""

    tree: Node
    program: tuple[_Instruction, ...]
    groups: int
    names: dict[str, int]

    def search(self, text: str, spend: Spend | None = None) -> bool:
        """Whether it matches anywhere."""
        return next(self.find(text, spend), None) is not None

    def find(self, text: str, spend: Spend | None = None) -> Iterator[Match]:
        """Every match from left to right, without overlap; `spend` is told of every step."""
        count = spend if spend is not None else bounded()
        at, last_end = 0, -1
        while at <= len(text):
            found = self._run(text, at, count)
            if found is None:
                return
            start, end = found.spans[:2]
            if start == end == last_end:
                at = end + 1
                continue
            yield found
            last_end = end
            at = end if end > start else end + 1

    def _run(self, text: str, start: int, spend: Spend) -> Match | None:
        current: list[tuple[int, Saved]] = []
        found: Saved | None = None
        blank = (-1,) * (2 * self.groups + 2)
        for at in range(start, len(text) + 1):
            following: list[tuple[int, Saved]] = []
            seen = {place for place, _ in current}
            if found is None:
                self._add(current, seen, 0, (at, *blank[1:]), text, at, spend)
            code = ord(text[at]) if at < len(text) else -1
            fresh: set[int] = set()
            for place, saved in current:
                instruction = self.program[place]
                if instruction.op is _Op.MATCH:
                    found = (saved[0], at, *saved[2:])
                    break
                spend(len(instruction.ranges))
                if any(low <= code <= high for low, high in instruction.ranges):
                    self._add(following, fresh, place + 1, saved, text, at + 1, spend)
            if not following and found is not None:
                break
            current = following
        return Match(found) if found is not None else None

    def _add(
        self,
        threads: list[tuple[int, Saved]],
        seen: set[int],
        place: int,
        saved: Saved,
        text: str,
        at: int,
        spend: Spend,
    ) -> None:
        """Follow everything that takes no character, first choice first."""
        stack = [(place, saved)]
        while stack:
            place, saved = stack.pop()
            if place in seen:
                continue
            seen.add(place)
            spend(1)
            instruction = self.program[place]
            match instruction.op:
                case _Op.JUMP:
                    stack.append((instruction.first, saved))
                case _Op.SPLIT:
                    stack.append((instruction.second, saved))
                    stack.append((instruction.first, saved))
                case _Op.SAVE:
                    slot = instruction.first
                    stack.append((place + 1, (*saved[:slot], at, *saved[slot + 1 :])))
                case _Op.ASSERT:
                    if _holds(instruction.assertion, text, at):
                        stack.append((place + 1, saved))
                case _Op.CHARS | _Op.MATCH:
                    threads.append((place, saved))


def _holds(assertion: Assertion, text: str, at: int) -> bool:
    match assertion:
        case Assertion.TEXT_START:
            return at == 0
        case Assertion.TEXT_END:
            return at == len(text)
        case Assertion.LINE_START:
            return at == 0 or text[at - 1] == "\n"
        case Assertion.LINE_END:
            return at == len(text) or text[at] == "\n"
    before = at > 0 and _is_word(text[at - 1])
    after = at < len(text) and _is_word(text[at])
    return (before is not after) is (assertion is Assertion.WORD)


def _is_word(c: str) -> bool:
    return c == "_" or (c.isascii() and c.isalnum())


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Regex:
    """A pattern ready to run; BadExpression when it is wrong or too large."""
    parser = _Parser(pattern)
    tree = parser.parse()
    compiler = _Compiler()
    compiler.compile(tree)
    compiler.emit(_Instruction(_Op.MATCH))
    return Regex(tree, tuple(compiler.program), parser.groups, dict(_names(tree)))


def _names(node: Node) -> Iterator[tuple[str, int]]:
    match node:
        case Group():
            if node.name:
                yield node.name, node.number
            yield from _names(node.part)
        case Repeat():
            yield from _names(node.part)
        case Sequence():
            for part in node.parts:
                yield from _names(part)
        case Choice():
            for part in node.alternatives:
                yield from _names(part)
        case Chars() | Assertion():
            return


def replace(
    regex: Regex, text: str, replacement: Callable[[Match], str], spend: Spend | None = None
) -> str:
    """The text with every match replaced."""
    out: list[str] = []
    at = 0
    for found in regex.find(text, spend):
        start, end = found.spans[:2]
        out += (text[at:start], replacement(found))
        at = end
    return "".join((*out, text[at:]))


def expand(template: str, regex: Regex, found: Match, text: str) -> str:
    """`$1`, `${1}`, `$name` and `$$` of a replacement, as Go reads them."""
    out: list[str] = []
    at = 0
    while at < len(template):
        if template[at] != "$":
            out.append(template[at])
            at += 1
            continue
        if template.startswith("$$", at):
            out.append("$")
            at += 2
            continue
        braced = template.startswith("${", at)
        begin = at + 2 if braced else at + 1
        end = begin
        while end < len(template) and _is_word(template[end]):
            end += 1
        name = template[begin:end]
        if not name or (braced and template[end : end + 1] != "}"):
            out.append("$")
            at += 1
            continue
        number = int(name[:4]) if name.isdecimal() else regex.names.get(name, MAX_GROUPS + 1)
        out.append(found.group(text, number))
        at = end + 1 if braced else end
    return "".join(out)


def generate(node: Node, pick: Callable[[int], int], room: int) -> str:
    """A text that the pattern matches; `pick(n)` chooses below n. Repeats without end stop soon."""
    match node:
        case Chars():
            return _character(node.ranges, pick)
        case Group():
            return generate(node.part, pick, room)
        case Choice():
            return generate(node.alternatives[pick(len(node.alternatives))], pick, room)
        case Sequence():
            parts: list[str] = []
            for part in node.parts:
                parts.append(generate(part, pick, room))
                room -= len(parts[-1])
            return "".join(parts)
        case Repeat():
            most = node.least + 10 if node.most is None else node.most
            repeated: list[str] = []
            for _ in range(node.least + pick(most - node.least + 1)):
                repeated.append(generate(node.part, pick, room))
                room -= len(repeated[-1]) + 1
                if room < 0:
                    raise BadExpression("random() would make too long a text")
            return "".join(repeated)
        case Assertion():
            return ""


def _character(ranges: Ranges, pick: Callable[[int], int]) -> str:
    """Printable ASCII where the class has any: names and labels are made of it."""
    printable = [(max(a, 33), min(b, 126)) for a, b in ranges if max(a, 33) <= min(b, 126)]
    usable = printable or list(ranges)
    if not usable:
        raise BadExpression("random() of a class without characters")
    chosen = pick(sum(high - low + 1 for low, high in usable))
    for low, high in usable:
        if chosen <= high - low:
            return chr(low + chosen)
        chosen -= high - low + 1
    return chr(usable[0][0])
