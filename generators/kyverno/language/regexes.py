"""Regular expressions as Go reads them, in time that grows with the text and no faster.

Python's `re` backtracks: one hostile policy could hold a webhook for hours. RE2 does not, and reads
Go's syntax; the little that it takes and Go does not is refused here. It is loaded with the first
pattern, so that processes without policies do without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar

from generators.kyverno.failures import BadExpression

MAX_PATTERN = 2_000
MAX_RANDOM = 4_096
_MEMORY = 1 << 20
"""Bytes for one pattern, with what RE2 keeps of the texts that it has seen."""
_AT_ONCE = 50
"""Instructions of a pattern that RE2 follows for one character in the time of a step, at worst."""
_SCANNED = 1_000
"""Characters that RE2 looks through for the next match in the time of a step, usually."""
_ENDLESS = 100
"""What rstr makes of every repeat that has no end or a later one."""
_PYTHON = {
    "(?<": "(?P<",
    r"\z": r"\Z",
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:ascii:]": r"\x00-\x7f",
    "[:blank:]": r"\t ",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:punct:]": r"!-/:-@\[-`{-~",
    "[:space:]": r"\s",
    "[:upper:]": "A-Z",
    "[:word:]": r"\w",
    "[:xdigit:]": "0-9A-Fa-f",
}
"""What Python spells otherwise than Go."""

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

Spend = Callable[[int], None]
T = TypeVar("T")


class RegexMatch(Protocol):
    """Of RE2, which has no types: where a pattern matched."""

    re: _Program

    def span(self) -> tuple[int, int]:
        """Of the whole."""

    def group(self, number: int) -> str | None:
        """The text of a group; None when it took no part."""


class _Program(Protocol):
    groups: int
    groupindex: Mapping[str, int]
    programsize: int

    def search(self, text: bytes) -> RegexMatch | None: ...

    def fullmatch(self, text: str) -> RegexMatch | None: ...

    def finditer(self, text: str) -> Iterator[RegexMatch]: ...


@dataclass(frozen=True, slots=True)
class Regex:
    """A compiled pattern; `spend` is charged for steps before they are taken."""

    program: _Program
    weight: int
    """Steps that a character may take."""
    ascii_only: bool
    """Whether it has `\\B`, which RE2 finds inside of longer characters as well."""

    def search(self, text: str, spend: Spend) -> bool:
        """Whether it matches anywhere."""
        encoded = self._begin(text, spend)
        return self.program.search(encoded) is not None

    def _begin(self, text: str, spend: Spend) -> bytes:
        if self.ascii_only and not text.isascii():
            raise BadExpression("a regular expression with \\B meets a text beyond ASCII")
        spend(len(text) * self.weight)
        return _encoded(text)

    def find(self, text: str, spend: Spend) -> Iterator[RegexMatch]:
        """Every match from left to right, without overlap and without nothing behind a match."""
        self._begin(text, spend)
        last_end = -1
        for found in self.program.finditer(text):
            start, end = found.span()
            # Each match may have taken a look at all that follows it.
            spend(1 + (len(text) - start) * self.weight // _SCANNED)
            if not start == end == last_end:
                yield found
            last_end = end


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadExpression(f"a regular expression meets half a character: {error}") from None


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Regex:
    """A pattern ready to run; BadExpression when it is wrong or too large."""
    import re2  # type: ignore[import-untyped]  # has no types: Match and _Program are its face

    if len(pattern) > MAX_PATTERN:
        raise BadExpression(f"a regular expression is longer than {MAX_PATTERN} characters")
    _encoded(pattern)
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        program: _Program = re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode(errors="replace")
        raise BadExpression(f"regular expression {pattern!r}: {why}") from None
    escaped = re.findall(r"\\(.)", pattern, re.DOTALL)
    if "C" in escaped:
        raise BadExpression(f"regular expression {pattern!r}: Go has no \\C")
    names = re.findall(r"\(\?P?<(\w+)>", re.sub(r"\\.", "", pattern, flags=re.DOTALL))
    if len(names) > len(set(names)):
        raise BadExpression(f"regular expression {pattern!r}: two groups have the same name")
    return Regex(program, 1 + program.programsize // _AT_ONCE, "B" in escaped)


def replace(regex: Regex, text: str, replacement: Callable[[RegexMatch], str], spend: Spend) -> str:
    """The text with every match replaced."""
    out: list[str] = []
    at = 0
    for found in regex.find(text, spend):
        start, end = found.span()
        out += (text[at:start], replacement(found))
        at = end
    return "".join((*out, text[at:]))


_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))", re.ASCII)


def expand(template: str, found: RegexMatch) -> str:
    """`$1`, `${1}`, `$name` and `$$` of a replacement, as Go reads them."""

    def text_of(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        index = found.re.groupindex
        number = int(name[:4]) if name.isdecimal() else index.get(name, found.re.groups + 1)
        return (found.group(number) or "") if number <= found.re.groups else ""

    return _REFERENCE.sub(text_of, template)


def generate(pattern: str, pick: Callable[[int], int], spend: Spend) -> str:
    """A text that the pattern matches; `pick(n)` chooses below n. BadExpression when none is made.

    rstr reads patterns as Python does: what it does not know, or reads otherwise, is refused.
    """
    from rstr import Rstr

    regex = compiled(pattern)
    if re.search(r"-[^\x00-\x7f]", pattern):
        raise BadExpression("random() takes no ranges beyond ASCII")
    python = pattern
    for go, spelled in _PYTHON.items():
        python = python.replace(go, spelled)
    try:
        made = Rstr(_Choices(pick, spend, len(pattern))).xeger(python)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadExpression(f"random() cannot make a text of {pattern!r}: {error}") from None
    if len(made) > MAX_RANDOM:
        raise BadExpression("random() would make too long a text")
    if regex.program.fullmatch(made) is None:
        raise BadExpression(f"random() cannot make a text of {pattern!r}")
    return made


class _Choices(Random):
    """What rstr asks for, from `pick`."""

    def __init__(self, pick: Callable[[int], int], spend: Spend, size: int) -> None:
        super().__init__(0)
        self._pick = pick
        self._spend = spend
        self._size = size

    def choice(self, seq: SupportsLenAndGetItem[T]) -> T:
        """One of characters or alternatives: characters in order, and printable where one is."""
        among = [seq[index] for index in range(len(seq))]
        self._spend(len(among))
        if all(isinstance(each, str) for each in among):
            among = sorted(set(among), key=str)
            among = [each for each in among if "!" <= str(each) <= "~"] or among
        if not among:
            raise BadExpression("random() of a class without characters")
        return among[self._pick(len(among))]

    def randint(self, a: int, b: int) -> int:
        """How often something is repeated: a few times if unbounded."""
        most = max(a, min(a + 10, b)) if b == _ENDLESS else b
        times = a + self._pick(most - a + 1)
        self._spend(times * self._size)
        return times
