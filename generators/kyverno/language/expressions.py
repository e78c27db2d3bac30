"""JMESPath with upstream's rules for what is missing, bounded in length, depth, steps and size.

The only importer of `jmespath`: its parser and its standard functions are used, the evaluation is
here, because two things differ. A key that a map does not have is an error, not null, where nothing
but dots, indices and the right side of `&&` lead to it; arguments, comparisons, `||`, `!`, pipes,
filters, projections and multi-selects make null of it. And every step is counted, so that no
expression, however hostile, runs long or builds a large value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol, TypedDict, cast

import jmespath.exceptions  # type: ignore[import-untyped]  # has no types: the classes below are its face
import jmespath.functions  # type: ignore[import-untyped]  # has no types, as above
import jmespath.parser  # type: ignore[import-untyped]  # has no types, as above
import jmespath.visitor  # type: ignore[import-untyped]  # has no types, as above

from generators.documents.json import Value, equal
from generators.kyverno.failures import BadExpression, RuleFailure
from generators.kyverno.language import functions, standard
from generators.kyverno.language.functions import Surroundings

MAX_LENGTH = 10_000
MAX_STEPS = 200_000
"""Nodes visited, and values looked at by functions and comparisons."""


class Missing(RuleFailure):
    """A field that does not exist, outside of everything that allows it."""


class Roots(Protocol):
    """What an expression starts from: names that are loaded when they are first asked for."""

    def root(self, name: str) -> Value:
        """The value called `name`; Missing when there is none."""


class _Node(TypedDict):
    type: str
    children: list[_Node]
    value: Value


class _Expression(Protocol):
    """Jmespath's expression references: their type's name is what its functions look for."""

    expression: _Node


_ERRORS: tuple[type[Exception], ...] = (jmespath.exceptions.JMESPathError,)
_make_expression = cast(
    "Callable[[_Node, object], _Expression]",
    getattr(jmespath.visitor, "_Expression"),  # noqa: B009 - private, and typed by the cast
)
_STANDARD = jmespath.functions.Functions()
STANDARD_FUNCTIONS: frozenset[str] = frozenset(_STANDARD.FUNCTION_TABLE)
_ORDER: Mapping[str, Callable[[int], bool]] = {
    "lt": lambda sign: sign < 0,
    "lte": lambda sign: sign <= 0,
    "gt": lambda sign: sign > 0,
    "gte": lambda sign: sign >= 0,
}


@lru_cache(maxsize=2_000)
def _parsed(expression: str) -> _Node:
    if len(expression) > MAX_LENGTH:
        raise BadExpression(f"an expression is longer than {MAX_LENGTH} characters")
    try:
        return cast("_Node", jmespath.parser.Parser().parse(expression).parsed)
    except _ERRORS as error:
        problem = str(error).split("\n")[0]
        raise BadExpression(f"{expression!r:.200}: {problem}") from None
    except RecursionError:
        raise BadExpression(f"{expression!r:.80}... is nested too deep") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadExpression(f"{expression!r:.200} cannot be read: {error}") from None


def check(expression: str) -> list[str]:
    """The errors of an expression that can be seen without values."""
    try:
        called = [
            node["value"]
            for node in _nodes(_parsed(expression))
            if node["type"] == "function_expression"
        ]
    except BadExpression as error:
        return [str(error)]
    return [unknown_function(str(name)) for name in called if not is_function(str(name))]


def is_function(name: str) -> bool:
    """Whether a function can be called."""
    return name in functions.FUNCTIONS or name in STANDARD_FUNCTIONS


def unknown_function(name: str) -> str:
    """Why a function cannot be called."""
    reason = functions.LEFT_OUT.get(name, "there is no such function")
    return f"{name}(): {reason}"


@lru_cache(maxsize=4096)
def roots_of(expression: str) -> frozenset[str]:
    """Names of all fields in an expression: its roots are among them."""
    return frozenset(
        str(node["value"]) for node in _nodes(_parsed(expression)) if node["type"] == "field"
    )


def first_fields(expression: str) -> frozenset[str]:
    """Names that an expression reads from its roots, as far as its form shows."""
    found: set[str] = set()
    stack = [_parsed(expression)]
    while stack:
        node = stack.pop()
        if node["type"] == "field":
            found.add(str(node["value"]))
        elif node["type"] in _ON_A_VALUE:
            stack += node["children"][:1]
        elif node["type"] != "expref":
            stack += [child for child in node["children"] if isinstance(child, dict)]
    return frozenset(found)


_ON_A_VALUE = frozenset(
    {
        "subexpression",
        "index_expression",
        "pipe",
        "projection",
        "value_projection",
        "filter_projection",
        "flatten",
    }
)
"""Their first child sees the roots, the others what came out of it."""


def _nodes(node: _Node) -> Iterator[_Node]:
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in node["children"] if isinstance(child, dict)]


def evaluate(expression: str, roots: Roots | Value, surroundings: Surroundings) -> Value:
    """The value of an expression. Missing for what does not exist, BadExpression for the rest."""
    if (names := _plain_path(expression)) is not None:
        return _followed(names, expression, roots, surroundings)
    try:
        return _Evaluation(expression, surroundings).run(roots)
    except RecursionError:
        raise BadExpression(f"{expression!r:.80}... goes too deep") from None


_NAME = r"[A-Za-z_][A-Za-z_0-9]*"
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME})*")


@lru_cache(maxsize=4096)
def _plain_path(expression: str) -> tuple[str, ...] | None:
    """The names of `request.object.metadata.name`; None for an expression that says more."""
    return tuple(expression.split(".")) if _PATH.fullmatch(expression) else None


def _followed(
    names: tuple[str, ...], expression: str, roots: Roots | Value, surroundings: Surroundings
) -> Value:
    """What the tree of such an expression gives, without the tree: most variables are paths."""
    run = _Budget(expression, surroundings)
    run.spend(2 * len(names))
    value: Value = None
    for place, name in enumerate(names):
        held = roots if place == 0 else value
        if held is None or isinstance(held, bool | int | float | str | list):
            return None
        if not isinstance(held, dict):
            value = held.root(name)
        elif name in held:
            value = held[name]
        else:
            raise Missing(f"there is no {name!r} in {expression!r:.200}")
    run.charge(value)
    return value


class _Start:
    """The roots as a value: `@` on it is not allowed, a field asks for one root."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots


_JSON = (bool, int, float, str, list, dict, type(None))


class _Lenient:
    """Visits for functions such as map(): what is missing reads as null there."""

    def __init__(self, run: _Evaluation) -> None:
        self.visit = run.lenient


class _Budget:
    """What one run of one expression may cost."""

    def __init__(self, expression: str, surroundings: Surroundings) -> None:
        self.expression = expression
        self.surroundings = surroundings
        self.left = MAX_STEPS

    def fail(self, why: str) -> BadExpression:
        return BadExpression(f"{self.expression!r:.200}: {why}")

    def spend(self, steps: int) -> None:
        self.surroundings.meter.spend(steps)
        self.left -= steps
        if self.left < 0:
            raise self.fail(f"took more than {MAX_STEPS} steps")

    def charge(self, value: Value) -> None:
        """Count every value inside: shared parts as often as they would be written out."""
        stack = [value]
        while stack:
            top = stack.pop()
            if isinstance(top, dict):
                self.spend(len(top) + 1)
                stack += top.values()
            elif isinstance(top, list):
                self.spend(len(top) + 1)
                stack += top
            elif isinstance(top, str):
                self.spend(1 + (len(top) >> 6))


class _Evaluation(_Budget):
    """One run of one expression, by its tree."""

    def __init__(self, expression: str, surroundings: Surroundings) -> None:
        super().__init__(expression, surroundings)
        self.visitors: Mapping[str, Callable[[_Node, Value], Value]] = {
            "field": self.field,
            "subexpression": self.chain,
            "index_expression": self.chain,
            "pipe": self.pipe,
            "index": self.index,
            "slice": self.slice,
            "projection": self.projection,
            "value_projection": self.value_projection,
            "filter_projection": self.filter_projection,
            "flatten": self.flatten,
            "comparator": self.comparator,
            "or_expression": self.either,
            "and_expression": self.both,
            "not_expression": self.negation,
            "current": self.current,
            "identity": self.current,
            "literal": self.literal,
            "multi_select_list": self.multi_list,
            "multi_select_dict": self.multi_dict,
            "function_expression": self.function,
            "expref": self.reference,
        }

    def run(self, roots: Roots | Value) -> Value:
        if roots is None or isinstance(roots, bool | int | float | str | list | dict):
            start = roots
        else:
            # Only field() and the checks of `plain()` ever see it.
            start = cast("Value", _Start(roots))
        result = self.plain(self.visit(_parsed(self.expression), start))
        if not isinstance(result, _JSON):
            raise self.fail("& makes an expression for a function, and no value")
        self.charge(result)
        return result

    def plain(self, value: Value) -> Value:
        if isinstance(value, _Start):
            raise self.fail("@ has no meaning here; name what you want, such as request.object")
        return value

    def visit(self, node: _Node, value: Value) -> Value:
        self.spend(1)
        return self.visitors[node["type"]](node, value)

    def field(self, node: _Node, value: Value) -> Value:
        name = str(node["value"])
        if isinstance(value, _Start):
            return value.roots.root(name)
        if not isinstance(value, dict):
            return None
        if name in value:
            return value[name]
        raise Missing(f"there is no {name!r} in {self.expression!r:.200}")

    def chain(self, node: _Node, value: Value) -> Value:
        # A slice makes a projection, which takes null for what is missing.
        sliced = any(child["type"] == "slice" for child in node["children"])
        for child in node["children"]:
            value = self.lenient(child, value) if sliced else self.visit(child, value)
        return value

    def pipe(self, node: _Node, value: Value) -> Value:
        for child in node["children"]:
            value = self.lenient(child, value)
        return value

    def index(self, node: _Node, value: Value) -> Value:
        at = node["value"]
        if isinstance(value, list) and isinstance(at, int) and -len(value) <= at < len(value):
            return value[at]
        return None

    def slice(self, node: _Node, value: Value) -> Value:
        if not isinstance(value, list):
            return None
        low, high, step = cast("list[int | None]", node["children"])
        if step == 0:
            raise self.fail("a slice cannot have step 0")
        self.spend(len(value))
        return value[low:high:step]

    def projected(self, node: _Node, items: Sequence[Value]) -> Value:
        collected: list[Value] = []
        for item in items:
            found = self.lenient(node, item)
            if found is not None:
                collected.append(found)
        return collected

    def lenient(self, node: _Node, value: Value) -> Value:
        """Missing values read as null."""
        try:
            return self.visit(node, value)
        except Missing:
            return None

    def projection(self, node: _Node, value: Value) -> Value:
        base = self.lenient(node["children"][0], value)
        return self.projected(node["children"][1], base) if isinstance(base, list) else None

    def value_projection(self, node: _Node, value: Value) -> Value:
        base = self.lenient(node["children"][0], value)
        if not isinstance(base, dict):
            return None
        return self.projected(node["children"][1], list(base.values()))

    def filter_projection(self, node: _Node, value: Value) -> Value:
        base = self.lenient(node["children"][0], value)
        if not isinstance(base, list):
            return None
        wanted = [item for item in base if not _is_false(self.lenient(node["children"][2], item))]
        return self.projected(node["children"][1], wanted)

    def flatten(self, node: _Node, value: Value) -> Value:
        base = self.lenient(node["children"][0], value)
        if not isinstance(base, list):
            return None
        merged: list[Value] = []
        for item in base:
            inner = item if isinstance(item, list) else [item]
            self.spend(len(inner))
            merged += inner
        return merged

    def comparator(self, node: _Node, value: Value) -> Value:
        left = self.plain(self.lenient(node["children"][0], value))
        right = self.plain(self.lenient(node["children"][1], value))
        self.charge(left)
        operator = str(node["value"])
        if operator in ("eq", "ne"):
            return equal(left, right) is (operator == "eq")
        if _is_number(left) and _is_number(right):
            a, b = cast("float", left), cast("float", right)
            return _ORDER[operator]((a > b) - (a < b))
        return None

    def either(self, node: _Node, value: Value) -> Value:
        left = self.lenient(node["children"][0], value)
        return self.lenient(node["children"][1], value) if _is_false(left) else left

    def both(self, node: _Node, value: Value) -> Value:
        left = self.lenient(node["children"][0], value)
        return left if _is_false(left) else self.visit(node["children"][1], value)

    def negation(self, node: _Node, value: Value) -> Value:
        return _is_false(self.lenient(node["children"][0], value))

    def current(self, node: _Node, value: Value) -> Value:
        return value

    def literal(self, node: _Node, value: Value) -> Value:
        return node["value"]

    def multi_list(self, node: _Node, value: Value) -> Value:
        if value is None:
            return None
        return [self.plain(self.lenient(child, value)) for child in node["children"]]

    def multi_dict(self, node: _Node, value: Value) -> Value:
        if value is None:
            return None
        return {
            str(pair["value"]): self.plain(self.lenient(pair["children"][0], value))
            for pair in node["children"]
        }

    def reference(self, node: _Node, value: Value) -> Value:
        return cast("Value", _make_expression(node["children"][0], _Lenient(self)))

    def function(self, node: _Node, value: Value) -> Value:
        name = str(node["value"])
        arguments = [self.plain(self.lenient(child, value)) for child in node["children"]]
        for argument in arguments:
            self.charge(argument)
        if name in functions.FUNCTIONS:
            return functions.call(name, arguments, self.surroundings)
        if name not in STANDARD_FUNCTIONS:
            raise self.fail(unknown_function(name))
        if name in standard.ARITY:
            return standard.call(name, arguments)
        try:
            return cast("Value", _STANDARD.call_function(name, arguments))
        except _ERRORS as error:
            raise self.fail(f"{error!s:.300}") from None
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise self.fail(f"{name}(): {error}") from None


def _is_false(value: Value) -> bool:
    return value is None or value is False or value == "" or value == [] or value == {}


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
