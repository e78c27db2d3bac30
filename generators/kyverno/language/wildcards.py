"""Wildcards of policies: `*` is any run, also the empty one; `?` is exactly one character.

Hand-written, since `fnmatch` reads `[..]` as a class and folds case on some systems. Backs up only
to the last star, so the time is bounded by the product of both lengths, which has a limit.
"""

from __future__ import annotations

from generators.kyverno.failures import BadExpression

MAX_WORK = 20_000_000
"""Longest pattern times longest text; far beyond names, labels and annotations of any use."""


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits the pattern."""
    if pattern in ("*", text) or not has_wildcard(pattern):
        return pattern in ("*", text)
    if len(pattern) * len(text) > MAX_WORK and "*" in pattern:
        raise BadExpression(f"{pattern:.40}... is too long a pattern for so long a text")
    at, here = 0, 0
    star, resume = -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at += 1
            here += 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return all(c == "*" for c in pattern[at:])


def has_wildcard(pattern: str) -> bool:
    """Whether a text is a pattern at all."""
    return "*" in pattern or "?" in pattern


def overlap(one: str, other: str) -> bool:
    """Whether some text can fit both patterns; both sides may hold wildcards."""
    reachable = {0}
    reachable |= _past_stars(other, reachable)
    for c in one:
        following: set[int] = set()
        for at in reachable:
            if c == "*":
                following |= set(range(at, len(other) + 1))
            elif at < len(other):
                d = other[at]
                if d == "*":
                    following.add(at)
                elif "?" in (c, d) or c == d:
                    following.add(at + 1)
        reachable = following | _past_stars(other, following)
    return len(other) in reachable


def _past_stars(pattern: str, places: set[int]) -> set[int]:
    further = set()
    for at in places:
        while at < len(pattern) and pattern[at] == "*":
            at += 1
            further.add(at)
    return further
