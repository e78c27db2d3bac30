"""Regular expressions as Go reads them, in time that grows with pattern times text and no faster.

Python's `re` backtracks: one hostile policy could hold a webhook for hours. Here the tree that
`regexsyntax.py` makes of a pattern is compiled into a program that runs all alternatives side by
side; programs and steps are bounded. `random(pattern)` walks the same tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from generators.kyverno.failures import BadExpression
from generators.kyverno.language.regexsyntax import (
    MAX_GROUPS,
    Assertion,
    Chars,
    Choice,
    Group,
    Node,
    Ranges,
    Repeat,
    Sequence,
    parse,
)

MAX_PROGRAM = 5_000
MAX_STEPS = 1_000_000


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
    tree, groups = parse(pattern)
    compiler = _Compiler()
    compiler.compile(tree)
    compiler.emit(_Instruction(_Op.MATCH))
    return Regex(tree, tuple(compiler.program), groups, dict(_names(tree)))


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
