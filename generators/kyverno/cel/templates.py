"""Templates of GeneratingPolicies: text with `(( expressions ))` in it, read from left to right.

A placeholder ends at the first `))` outside of its own parentheses and texts. `\\((` is `((`.
"""

from __future__ import annotations

from dataclasses import dataclass

from generators.kyverno.failures import BadExpression


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: as it is, or an expression."""

    text: str
    expression: bool


def pieces(text: str) -> tuple[Piece, ...]:
    """The parts of a text; BadExpression for a placeholder that does not end well."""
    found: list[Piece] = []
    literal = ""
    at = 0
    while at < len(text):
        if text.startswith("\\((", at):
            literal, at = literal + "((", at + 3
        elif text.startswith("((", at):
            if literal:
                found.append(Piece(literal, expression=False))
            expression, at = _placeholder(text, at)
            found.append(Piece(expression, expression=True))
            literal = ""
        else:
            literal, at = literal + text[at], at + 1
    return (*found, Piece(literal, expression=False)) if literal else tuple(found)


def _placeholder(text: str, start: int) -> tuple[str, int]:
    depth, quote, at = 0, "", start + 2
    while at < len(text):
        mark = text[at]
        if quote:
            at += 1 if mark == "\\" else 0
            quote = "" if mark == quote else quote
        elif mark in "\"'":
            quote = mark
        elif mark == "(":
            depth += 1
        elif mark == ")" and depth:
            depth -= 1
        elif mark == ")":
            expression = text[start + 2 : at].strip()
            if not text.startswith("))", at):
                raise BadExpression(
                    f"unbalanced parenthesis in the placeholder {text[start:]!r:.60}"
                )
            if not expression:
                raise BadExpression("empty placeholder")
            return expression, at + 2
        at += 1
    what = "a text in it does not end" if quote else "its `))` is missing"
    raise BadExpression(f"the placeholder {text[start:]!r:.60} does not end: {what}")


def has_placeholder(text: str) -> bool:
    """Whether a text is to be filled in, or to lose an escape."""
    return "((" in text
