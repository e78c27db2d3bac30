"""HTTP rules of policies as values, and which of them lets a request pass.

A request is matched as Envoy matches it behind Cilium's policies: method, path and host by regular
expressions (RE2) for the whole value, the path with its query behind it, the host with its port.

What may surprise: a header that is sent twice matches if any of its values does; `..` and `//` are
resolved before a path is matched, and what nobody could resolve for sure is refused by the proxy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

LONGEST_PATTERN = 4_096
"""Characters of one regular expression."""
LARGEST_PROGRAM = 1_000
"""Instructions that RE2 makes of one; the proxy has a wider bound (enforcer/http/xds.py)."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNRESERVED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNCLEAR = re.compile(r"%(2[Ff]|5[Cc]|00)|[#\x00-\x20\x7f]")


class BadPattern(ValueError):
    """A regular expression that RE2 refuses, or that is too large; `position` from 1, 0 = none."""

    def __init__(self, what: str, position: int = 0) -> None:
        self.position = position
        super().__init__(what)


class _Program(Protocol):
    programsize: int

    def fullmatch(self, text: bytes) -> object | None: ...


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> _Program:
    """A regular expression as the proxy reads it: of bytes, each a character of Latin-1.

    BadPattern for one that it would refuse.
    """
    if len(pattern) > LONGEST_PATTERN:
        what = f"is longer than {LONGEST_PATTERN} characters ({len(pattern)})"
        raise BadPattern(what, LONGEST_PATTERN + 1)
    import re2  # type: ignore[import-untyped]  # has no types: _Program is its face

    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        program: _Program = re2.compile(pattern.encode(), options)
    except re2.error as error:
        why = error.args[0]
        text = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise BadPattern(text, _position(pattern, text)) from None
    except UnicodeEncodeError as error:
        raise BadPattern("half a character", error.start + 1) from None
    if program.programsize > LARGEST_PROGRAM:
        size = program.programsize
        raise BadPattern(f"makes a program of {size} instructions, the most is {LARGEST_PROGRAM}")
    return program


def matches_whole(pattern: str, text: str) -> bool:
    """Whether an expression that `compiled` takes matches all of a text."""
    return compiled(pattern).fullmatch(text.encode(errors="replace")) is not None


def _position(pattern: str, why: str) -> int:
    """Where the piece stands that RE2 complains of; it names the piece, not the place."""
    piece = why.partition(": ")[2]
    return pattern.rfind(piece) + 1 if piece else 0


def is_token(text: str) -> bool:
    """Whether it can be the name of a header."""
    return bool(_TOKEN.fullmatch(text))


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """A header that a request must have; `value` None: whatever it says."""

    name: str
    """In small letters."""
    value: str | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One item of `rules.http`: all that it names must match; an empty text is not asked for."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[HeaderRule, ...] = ()
    name: str = ""
    """Its place in the policy's rule: `toPorts[0].rules.http[1]`."""

    def misses(self, request: Request) -> str:
        """Which part does not match, in words; empty when all of it does."""
        asked = (
            ("method", self.method, request.method),
            ("path", self.path, request.path),
            ("host", self.host, request.host),
        )
        for what, pattern, value in asked:
            if pattern and not matches_whole(pattern, value):
                shown = repr(value) if value else "not given"
                return f"{what} {shown} does not match {pattern}"
        for header in self.headers:
            found = [value for name, value in request.headers if name == header.name]
            if not found:
                return f"no header {header.name}"
            if header.value is not None and header.value not in found:
                return f"header {header.name} is {', '.join(map(repr, found))}, wanted {header}"
        return ""

    def __str__(self) -> str:
        words = [self.method or "any method", self.path or "any path"]
        words += [f"host {self.host}"] if self.host else []
        words += [f"header {header}" for header in self.headers]
        return " ".join(words)


@dataclass(frozen=True)
class RuleSet:
    """What HTTP rules let pass on some connections: a request that any of them matches.

    `rules` by full name (`ns/cnp:policy#ingress[0].toPorts[0].rules.http[1]`), in policy order;
    `direction` is that of the policies, `Ingress` or `Egress`; `rule` their first policy rule.
    """

    direction: str
    rule: str
    rules: tuple[tuple[str, HttpRule], ...]

    @cached_property
    def id(self) -> str:
        """Equal for equal sets, on every node."""
        text = repr((self.direction, self.rule, self.rules))
        return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]

    @property
    def name(self) -> str:
        """What its number in entries stands for."""
        return f"{self.rule}@http-{self.id}"

    def matching(self, request: Request) -> str | None:
        """The first rule that lets a request pass; None: it is refused."""
        found = (name for name, rule in self.rules if not rule.misses(request))
        return None if request.unclear else next(found, None)


def policy_rule_of(name: str) -> str:
    """The policy rule in the name of a rule set or of an HTTP rule; others are one themselves."""
    return name.partition("@http-")[0].partition(".toPorts[")[0]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as rules see it; names of headers in small letters."""

    method: str
    path: str
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    unclear: str = ""
    """Why the proxy refuses it whatever rules say; empty: it asks them."""


def request_of(
    method: str, target: str, host: str = "", headers: Iterable[tuple[str, str]] = ()
) -> Request:
    """A request as a client sends it, its path as the proxy resolves it before it asks rules."""
    path, mark, query = target.partition("?")
    found = tuple((name.lower(), value) for name, value in headers)
    named = host or next((value for name, value in found if name == "host"), "")
    kept = tuple(pair for pair in found if pair[0] != "host")
    unclear = ""
    if method == "CONNECT" or not path.startswith("/"):
        unclear = "the proxy refuses CONNECT, and paths that do not begin with /"
    elif found_at := _UNCLEAR.search(path):
        unclear = f"the proxy refuses {found_at[0]!r} in a path, which servers read differently"
    resolved = path if unclear else _resolved(path)
    return Request(method, f"{resolved}{mark}{query}", named, kept, unclear)


def _resolved(path: str) -> str:
    """Without dots, then without doubled slashes, and without escapes of what needs none."""
    plain = _UNRESERVED.sub(_unescaped, path).replace("\\", "/")
    kept: list[str] = []
    *parents, last = plain.split("/")[1:]
    for part in parents:
        if _dots(part) == "..":
            kept = kept[:-1]
        elif not _dots(part):
            kept.append(part)
    if _dots(last):
        kept, last = kept[:-1] if _dots(last) == ".." else kept, ""
    return re.sub("/+", "/", "/".join(("", *kept, last)))


def _dots(segment: str) -> str:
    """The dots that a segment is, with or without parameters: `..;x` is `..` to Envoy."""
    name = segment.partition(";")[0]
    return name if name in (".", "..") else ""


def _unescaped(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    plain = character.isascii() and (character.isalnum() or character in "-._~")
    return character if plain else found[0]
