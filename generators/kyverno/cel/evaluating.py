"""Runs the tree of a CEL expression. Every node costs a step of the rule, texts and lists more.

`&&`, `||` and the macros made of them take an error of one side for nothing where the other side
decides, as CEL says. A rule that has no steps left is stopped by the next step, whatever it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from generators.kyverno.cel import functions
from generators.kyverno.cel.syntax import (
    CallOf,
    Comprehension,
    Constant,
    Identifier,
    ListOf,
    MapEntry,
    MapOf,
    Node,
    Select,
)
from generators.kyverno.cel.values import (
    TYPE_NAMES,
    CelValue,
    Kind,
    Lazy,
    Message,
    Optional,
    equal,
    type_name,
)
from generators.kyverno.failures import BadExpression
from generators.kyverno.language.functions import Surroundings

_NONE = Optional()
Host = Mapping[str, Callable[[Sequence[CelValue]], CelValue]]
"""Functions that read or note something outside: `resource.get`, `generator.apply`."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """An accumulator whose last step failed: the error of whoever reads it."""

    error: BadExpression


@dataclass(frozen=True, slots=True)
class CelRun:
    """Evaluates expressions over the same names."""

    names: Mapping[str, Callable[[], CelValue]]
    host: Host
    surroundings: Surroundings
    locals: Mapping[str, CelValue | _Failed] = field(default_factory=dict)

    def evaluate(self, node: Node) -> CelValue:
        """The value; BadExpression when there is none."""
        self.spend(1)
        match node:
            case Constant():
                return node.value
            case Identifier():
                return self._named(node.name)
            case Select():
                return self._selected(node)
            case CallOf():
                return self._called(node)
            case ListOf():
                return self._listed(node)
            case MapOf():
                return self._mapped(node)
            case Comprehension():
                return self._comprehended(node)

    def boolean(self, node: Node) -> bool:
        """A value that must be true or false."""
        value = self.evaluate(node)
        if not isinstance(value, bool):
            raise BadExpression(f"a {type_name(value)} is neither true nor false")
        return value

    def spend(self, steps: int) -> None:
        """Charge the rule."""
        self.surroundings.meter.spend(steps)

    def _named(self, name: str) -> CelValue:
        if name in self.locals:
            found = self.locals[name]
            if isinstance(found, _Failed):
                raise found.error
            return found
        if name in self.names:
            return self.names[name]()
        if name in TYPE_NAMES:
            return Kind(name)
        raise BadExpression(f"undeclared reference to {name!r}")

    # --- fields and elements --------------------------------------------------------------------

    def _selected(self, node: Select) -> CelValue:
        named = dotted(node)
        if named in TYPE_NAMES and not node.test:
            return Kind(named)
        held = self.evaluate(node.operand)
        if node.test:
            return self._has(held, node.field)
        if isinstance(held, Optional):
            return self._of_optional(held, node.field)
        return field_of(held, node.field)

    def _has(self, held: CelValue, name: str) -> bool:
        if isinstance(held, Optional):
            return bool(held.held) and self._has(held.held[0], name)
        if isinstance(held, Lazy):
            return name in held.names
        if isinstance(held, dict):
            return name in held
        raise BadExpression(f"has(): a {type_name(held)} has no fields")

    def _of_optional(self, held: Optional, key: CelValue) -> Optional:
        """An optional step stays optional to the end of the chain."""
        return self._maybe(held.held[0], key) if held.held else _NONE

    def _maybe(self, held: CelValue, key: CelValue) -> Optional:
        if isinstance(held, Optional):
            return self._of_optional(held, key)
        if isinstance(held, list):
            fine = isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(held)
            return Optional((held[key],)) if fine and isinstance(key, int) else _NONE
        if isinstance(held, Lazy):
            known = isinstance(key, str) and key in held.names
            return Optional((held.compute(str(key)),)) if known else _NONE
        if isinstance(held, dict):
            return Optional((held[key],)) if key in held else _NONE
        raise BadExpression(f"no such overload: a {type_name(held)} has no fields")

    def _element(self, held: CelValue, key: CelValue) -> CelValue:
        if isinstance(held, Optional):
            return self._of_optional(held, key)
        if isinstance(held, list):
            whole = isinstance(key, float) and key.is_integer()
            place = int(key) if isinstance(key, float) and whole else key
            if isinstance(place, bool) or not isinstance(place, int):
                raise BadExpression(f"a list has no element {key!r:.40}")
            if not 0 <= place < len(held):
                raise BadExpression(f"index out of bounds: {place}")
            return held[place]
        if isinstance(key, str):
            return field_of(held, key)
        if isinstance(held, dict) and isinstance(key, int | float):
            if key in held:
                return held[key]
            raise BadExpression(f"no such key: {key}")
        raise BadExpression(f"no such overload: {type_name(held)}[{type_name(key)}]")

    # --- literals -------------------------------------------------------------------------------

    def _listed(self, node: ListOf) -> list[CelValue]:
        made: list[CelValue] = []
        for index, item in enumerate(node.items):
            value = self.evaluate(item)
            if index in node.optional:
                made += _optional(value).held
            else:
                made.append(value)
        return made

    def _mapped(self, node: MapOf) -> dict[CelValue, CelValue] | Message:
        made: dict[CelValue, CelValue] = {}
        for entry in node.entries:
            key = self.evaluate(entry.key)
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise BadExpression(f"a {type_name(key)} is no key of a map here")
            for value in self._held(entry):
                made[key] = value
        if node.message:
            return Message(node.message, {str(key): value for key, value in made.items()})
        return made

    def _held(self, entry: MapEntry) -> tuple[CelValue, ...]:
        value = self.evaluate(entry.value)
        return _optional(value).held if entry.optional else (value,)

    # --- calls ----------------------------------------------------------------------------------

    def _called(self, node: CallOf) -> CelValue:
        special = _SPECIAL.get(node.function)
        if special is not None and node.target is None:
            return special(self, node.arguments)
        macro = functions.MACROS.get((node.function, len(node.arguments)))
        if macro is not None and node.target is not None:
            return self._macro(macro, node.target, node.arguments)
        name = self.qualified(node)
        if name:
            arguments = [self.evaluate(argument) for argument in node.arguments]
            if name in self.host:
                return self.host[name](arguments)
            return functions.call(name, arguments, self.surroundings)
        target = () if node.target is None else (node.target,)
        arguments = [self.evaluate(argument) for argument in (*target, *node.arguments)]
        member = f".{node.function}" if node.target is not None else node.function
        return functions.call(member, arguments, self.surroundings)

    def qualified(self, node: CallOf) -> str:
        """`regex.replace` of a call whose target is a library's name and no variable."""
        prefix = dotted(node.target) if node.target is not None else ""
        if not prefix or prefix.partition(".")[0] in self.locals:
            return ""
        name = f"{prefix}.{node.function}"
        return name if name in self.host or name in functions.NAMES else ""

    def _macro(self, macro: functions.Macro, range_: Node, arguments: Sequence[Node]) -> CelValue:
        """Macros of two variables, which the parser leaves as calls."""
        held = self.evaluate(range_)
        pairs = list(held.items()) if isinstance(held, dict) else None
        if isinstance(held, list):
            pairs = list(enumerate(held))
        first, second = (a.name if isinstance(a, Identifier) else "" for a in arguments[:2])
        if pairs is None or not first or not second:
            raise BadExpression("a macro of two variables wants a map or a list, and two names")
        inner = dict(self.locals)
        run = replace(self, locals=inner)

        def at(key: CelValue, value: CelValue, node: Node) -> CelValue:
            inner[first], inner[second] = key, value
            return run.evaluate(node)

        return macro(pairs, arguments[2:], at)

    def _comprehended(self, node: Comprehension) -> CelValue:
        held = self.evaluate(node.range)
        if not isinstance(held, list | dict):
            raise BadExpression(f"a {type_name(held)} has no elements")
        inner: dict[str, CelValue | _Failed] = dict(self.locals)
        run = replace(self, locals=inner)
        inner[node.accumulator] = self.evaluate(node.initial)
        for item in list(held):
            inner[node.variable] = item
            if run.evaluate(node.condition) is False:
                break
            try:
                inner[node.accumulator] = run._step(node)
            except BadExpression as error:
                self.spend(1)
                inner[node.accumulator] = _Failed(error)
        inner.pop(node.variable, None)
        return run.evaluate(node.result)

    def _step(self, node: Comprehension) -> CelValue:
        """Lists grow in place: nobody else can name the accumulator of `map` and `filter`."""
        step = node.step
        if (
            isinstance(step, CallOf)
            and step.function == "_?_:_"
            and _grows(step.arguments[1], node)
        ):
            if not self.boolean(step.arguments[0]):
                return self._named(node.accumulator)
            step = step.arguments[1]
        if not _grows(step, node) or not isinstance(step, CallOf):
            return self.evaluate(step)
        grown, more = self._named(node.accumulator), self.evaluate(step.arguments[1])
        if not isinstance(grown, list) or not isinstance(more, list):
            return self.evaluate(step)
        grown += more
        return grown


def _grows(node: Node, of: Comprehension) -> bool:
    return (
        isinstance(node, CallOf)
        and node.function == "_+_"
        and node.arguments[0] == Identifier("@result")
        and isinstance(node.arguments[1], ListOf)
        and of.accumulator == "@result"
    )


def field_of(held: CelValue, name: str) -> CelValue:
    """`held.name`."""
    if isinstance(held, Lazy) and name in held.names:
        return held.compute(name)
    if isinstance(held, dict) and name in held:
        found: CelValue = held[name]
        return found
    if isinstance(held, dict | Lazy):
        raise BadExpression(f"no such key: {name}")
    raise BadExpression(f"no such overload: a {type_name(held)} has no field {name}")


def _optional(value: CelValue) -> Optional:
    if not isinstance(value, Optional):
        raise BadExpression(f"`?` before a {type_name(value)}, which is no optional value")
    return value


def dotted(node: Node | None) -> str:
    """`a.b` of names and fields; empty for all else."""
    match node:
        case Identifier():
            return node.name
        case Select(test=False):
            below = dotted(node.operand)
            return f"{below}.{node.field}" if below else ""
    return ""


# --- operators whose sides are not always evaluated ----------------------------------------------


def _decided(run: CelRun, sides: Sequence[Node], by: bool) -> bool:
    """`||` is decided by true, `&&` by false, also where the other side fails."""
    error: BadExpression | None = None
    for side in sides:
        try:
            if run.boolean(side) is by:
                return by
        except BadExpression as failed:
            error = error or failed
    if error is not None:
        raise error
    return not by


def _ternary(run: CelRun, arguments: Sequence[Node]) -> CelValue:
    condition, yes, no = arguments
    return run.evaluate(yes if run.boolean(condition) else no)


def _not_false(run: CelRun, arguments: Sequence[Node]) -> CelValue:
    try:
        return run.evaluate(arguments[0]) is not False
    except BadExpression:
        run.spend(1)
        return True


def _index(run: CelRun, arguments: Sequence[Node]) -> CelValue:
    held, key = (run.evaluate(argument) for argument in arguments)
    return run._element(held, key)


def _optional_index(run: CelRun, arguments: Sequence[Node]) -> CelValue:
    held, key = (run.evaluate(argument) for argument in arguments)
    return run._maybe(held, key)


def _equals(run: CelRun, arguments: Sequence[Node]) -> bool:
    one, other = (run.evaluate(argument) for argument in arguments)
    return equal(one, other, run.spend)


_SPECIAL: Mapping[str, Callable[[CelRun, Sequence[Node]], CelValue]] = {
    "_&&_": lambda run, arguments: _decided(run, arguments, by=False),
    "_||_": lambda run, arguments: _decided(run, arguments, by=True),
    "_?_:_": _ternary,
    "@not_strictly_false": _not_false,
    "_[_]": _index,
    "_[?_]": _optional_index,
    "_?._": _optional_index,
    "_==_": _equals,
    "_!=_": lambda run, arguments: not _equals(run, arguments),
}
OPERATORS = frozenset(_SPECIAL)
