"""Variables in templates: `{{ expression }}`, `$(path)`, and the escapes of both.

    "{{ x }}"           the value itself, with its type
    "a-{{ x }}"         text; anything else is written as JSON
    "{{ a.{{ b }} }}"   the inner one first
    "\\{{ x }}"          literally {{ x }}
    "{{- x }}"          the same as {{ x }}, and what comes out is never read again
    "$(./../key)"       the value at that place of the same template

The pattern allows one level of single braces inside. What comes out of a variable is read again for
variables when a policy's author wrote it (ConfigMaps, literal values); text out of requests and the
cluster never is: users who may annotate a namespace must not be able to write expressions.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Protocol

from generators.documents.json import Path, Value, compact, copy
from generators.kyverno.failures import BadExpression, UnresolvedVariable
from generators.kyverno.language.expressions import Missing
from generators.kyverno.language.printing import as_text
from generators.kyverno.model import MAX_TEXT, Template

_VARIABLE = re.compile(r"(?<!\\)\{\{((?:\{[^{}]*\}|[^{}])*)\}\}")
_REFERENCE = re.compile(r"(?<!\\)\$\(([^ ]*?)\)")
_ESCAPED_REFERENCE = re.compile(r"\\(\$\([^ ]*?\))")
_ANCHORED = re.compile(r"[+<=X^]?\((.+)\)")
_HELD = re.compile("\x00([0-9]+)\x00")
_MAX_ROUNDS = 500
_OPERATORS = (">=", "<=", ">", "<", "!")


class Scope(Protocol):
    """Where variables get their values."""

    def query(self, expression: str) -> Value:
        """The value of an expression; Missing when there is none."""

    def trusted(self, expression: str) -> bool:
        """Whether the value was written by who wrote the policy, and may hold variables itself."""

    def current(self) -> str:
        """What `@` stands for: `target` or `request.object`."""

    def deleting(self) -> bool:
        """Whether the request is a DELETE: then `request.object` means the old object."""


def has_variable(value: str) -> bool:
    """Whether a text holds a variable."""
    return _VARIABLE.search(value) is not None


def is_variable(value: str) -> bool:
    """Whether a text is one variable and nothing else."""
    return _VARIABLE.fullmatch(value.strip()) is not None


def expressions_in(value: str) -> list[str]:
    """All expressions of a text, as far as they are known without values."""
    return [found.strip() for found in _VARIABLE.findall(value)]


def substitute(value: Value, scope: Scope) -> Value:
    """The template with all references and variables replaced, in keys too."""
    return _walk(_references(value), (), _Substitution(scope))


def fill(template: Template, scope: Scope) -> Value:
    """A policy's template with everything replaced; a failure names its file and line."""
    try:
        given = _references(template.written) if template.refers else template.written
        return _walk(given, (), _Substitution(scope))
    except UnresolvedVariable as error:
        raise error.at(str(template.place_of(error.path))) from None


def fill_text(template: Template, scope: Scope) -> str:
    """A template that must come out as text, such as a name."""
    return as_text(fill(template, scope))


def _walk(value: Value, path: Path, run: _Substitution) -> Value:
    if isinstance(value, dict):
        return {_key(key, path, run): _walk(item, (*path, key), run) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, (*path, index), run) for index, item in enumerate(value)]
    return run.resolve(value, path) if isinstance(value, str) else value


def _key(key: str, path: Path, run: _Substitution) -> str:
    """A key with its variables replaced; null leaves it as it is written."""
    found = run.resolve(key, (*path, key))
    if found is None or isinstance(found, str):
        return key if found is None else found
    raise UnresolvedVariable(key, path, f"a key must be text, not {compact(found):.80}")


@dataclass(slots=True)
class _Substitution:
    """Replaces the variables of one text after the other."""

    scope: Scope
    made: int = 0

    def resolve(self, template: str, path: Path) -> Value:
        if "{{" not in template:
            return template
        if "\x00" in template:
            raise BadExpression("a text with variables may not hold NUL characters")
        held: list[Value] = []
        for _ in range(_MAX_ROUNDS):
            found = _VARIABLE.search(template)
            if found is None:
                break
            expression = self.released(found[1], held).strip()
            shallow = expression.startswith("-")
            expression = expression.removeprefix("-").strip()
            value = self.value(expression, path)
            alone = found.start() == 0 and found.end() == len(template)
            trusted = not shallow and self.scope.trusted(expression)
            if alone and not (trusted and isinstance(value, str)):
                return value
            if trusted:
                put = as_text(value)
            else:
                held.append(value)
                put = f"\x00{len(held) - 1}\x00"
            template = template[: found.start()] + put + template[found.end() :]
            self.count(len(template), path)
        else:
            raise UnresolvedVariable(template[:80], path, "it never comes to an end")
        return self.released(template.replace("\\{{", "{{"), held)

    def released(self, template: str, held: list[Value]) -> str:
        return _HELD.sub(lambda match: as_text(held[int(match[1])]), template)

    def count(self, length: int, path: Path) -> None:
        self.made += length
        if length > MAX_TEXT or self.made > 16 * MAX_TEXT:
            raise UnresolvedVariable("a text", path, f"it grows beyond {MAX_TEXT} characters")

    def value(self, expression: str, path: Path) -> Value:
        if expression == "@":
            expression = ".".join((self.scope.current(), *_as_query(path)))
            expression = expression.replace(".[", "[")
        if self.scope.deleting():
            expression = expression.replace("request.object", "request.oldObject")
        try:
            value = self.scope.query(expression)
        except Missing as error:
            raise UnresolvedVariable(f"{{{{ {expression} }}}}", path, str(error)) from None
        self.count(len(value) if isinstance(value, str) else 0, path)
        return copy(value)


def _as_query(path: Path) -> list[str]:
    """A path as parts of an expression, without anchors."""
    return [
        f"[{part}]" if isinstance(part, int) else '"' + bare(part).replace('"', '\\"') + '"'
        for part in path
    ]


def bare(key: str) -> str:
    """A key without its anchor."""
    found = _ANCHORED.fullmatch(key)
    return found[1] if found else key


def _references(document: Value) -> Value:
    """The template with `$(path)` replaced."""

    def walk(value: Value, path: Path) -> Value:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "$(" not in value:
            return value
        replaced = _REFERENCE.sub(lambda found: _referred(document, found[1], path), value)
        return _ESCAPED_REFERENCE.sub(r"\1", replaced)

    return walk(document, ())


def _referred(document: Value, reference: str, path: Path) -> str:
    operator = next((sign for sign in _OPERATORS if reference.startswith(sign)), "")
    here = "/" + "/".join(bare(part) if isinstance(part, str) else str(part) for part in path)
    there = posixpath.normpath(posixpath.join(here, reference[len(operator) :].strip()))
    found = document
    for part in [part for part in there.split("/") if part]:
        found = _step(found, part)
    if isinstance(found, str) and "$(" not in found:
        return operator + found
    if operator and isinstance(found, int | float) and not isinstance(found, bool):
        return operator + (f"{found:f}" if abs(found) < 1e30 else as_text(found))
    shown = f"$({reference})"
    raise UnresolvedVariable(shown, path, f"there is no text at {there} of the same template")


def _step(value: Value, part: str) -> Value:
    if isinstance(value, dict):
        return next((item for key, item in value.items() if bare(key) == part), None)
    if isinstance(value, list) and part.isdecimal() and int(part[:9]) < len(value):
        return value[int(part)]
    return None
