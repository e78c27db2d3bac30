"""What is wrong with an expression before it runs: names and functions that there are not.

Upstream's compiler also infers types, which needs schemas; here a wrong type is an error when the
expression runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from generators.kyverno.cel import evaluating, functions
from generators.kyverno.cel.syntax import (
    CallOf,
    Comprehension,
    Constant,
    Identifier,
    ListOf,
    MapOf,
    Node,
    Select,
)
from generators.kyverno.cel.values import TYPE_NAMES

ROOTS = frozenset({"object", "oldObject", "request", "namespaceObject", "variables"})
_READS = {"get": 4, "Get": 4, "list": 3, "List": 3}
_WRITES = ("apply", "Apply")


def host_functions(*, writes: bool, namespaced: bool) -> dict[str, tuple[int, int]]:
    """Functions that reach outside, and how many arguments they take, at least and at most.

    Those of a namespaced policy are in its namespace and are not told it.
    """
    told = 0 if namespaced else 1
    found = {
        f"resource.{name}": (fewest - 1 + told, fewest - 1 + told + (fewest == 3))
        for name, fewest in _READS.items()
    }
    if writes:
        found |= {f"generator.{name}": (1 + told, 1 + told) for name in _WRITES}
    return found


MESSAGES = ("Object", "JSONPatch")
_NOT_THERE = {
    "authorizer": "the API server's authorizer is not asked",
    "exceptions": "policy exceptions are not supported",
    "images": "images are not supported",
}
_FUNCTIONS_NOT_THERE = frozenset(
    (
        *("cidr", "format.named", "ip", "ip.isCanonical", "isCIDR", "isIP", "isSemver", "isURL"),
        *("semver", "url", "resource.post", "resource.Post", "resource.toGVR", "resource.ToGVR"),
        *("listObjToMap", "transform.listObjToMap", "time.toCron", "time.truncate"),
        *(".sortBy", ".transformMapEntry"),
    )
)


@dataclass(frozen=True, slots=True)
class CelFinding:
    """Something an expression asks for. `known`: upstream has it, and Ringfence does not."""

    what: str
    known: bool


def findings(
    node: Node, variables: Set[str], host: Mapping[str, tuple[int, int]]
) -> Iterator[CelFinding]:
    """Everything that cannot be carried out; nothing for an expression that can."""
    yield from _Check(variables, host).of(node, frozenset())


@dataclass(frozen=True, slots=True)
class _Check:
    variables: Set[str]
    host: Mapping[str, tuple[int, int]]

    def of(self, node: Node, local: frozenset[str]) -> Iterator[CelFinding]:
        match node:
            case Constant():
                return
            case Identifier():
                yield from self.name(node.name, local)
            case Select():
                yield from self.select(node, local)
            case CallOf():
                yield from self.call(node, local)
            case ListOf():
                for item in node.items:
                    yield from self.of(item, local)
            case MapOf():
                if node.message and node.message.partition(".")[0] not in MESSAGES:
                    yield CelFinding(f"undeclared reference to type {node.message!r}", known=False)
                for entry in node.entries:
                    yield from self.of(entry.key, local)
                    yield from self.of(entry.value, local)
            case Comprehension():
                inner = local | {node.variable, node.accumulator}
                yield from self.of(node.range, local)
                yield from self.of(node.initial, local)
                for part in (node.condition, node.step, node.result):
                    yield from self.of(part, inner)

    def name(self, name: str, local: frozenset[str]) -> Iterator[CelFinding]:
        if name in _NOT_THERE and name not in local:
            yield CelFinding(_NOT_THERE[name], known=True)
        elif name not in local | ROOTS | TYPE_NAMES:
            yield CelFinding(f"undeclared reference to {name!r}", known=False)

    def select(self, node: Select, local: frozenset[str]) -> Iterator[CelFinding]:
        dotted = evaluating.dotted(node)
        if dotted in TYPE_NAMES:
            return
        first, _, rest = dotted.partition(".")
        if first == "variables" and first not in local:
            name = rest.partition(".")[0]
            if name not in self.variables:
                what = f"undefined field {name!r} of variables: they see those before them"
                yield CelFinding(what, known=False)
            return
        yield from self.of(node.operand, local)

    def call(self, node: CallOf, local: frozenset[str]) -> Iterator[CelFinding]:
        library = evaluating.dotted(node.target) if node.target is not None else ""
        root = library.partition(".")[0]
        if library and root not in local | ROOTS:
            yield from self.of_library(node, library)
        elif node.target is not None:
            yield from self.of(node.target, local)
            yield from self.method(node)
        elif node.function in _FUNCTIONS_NOT_THERE:
            yield CelFinding(f"function {node.function!r} is not supported", known=True)
        elif node.function not in functions.NAMES | evaluating.OPERATORS:
            yield CelFinding(f"undeclared reference to function {node.function!r}", known=False)
        macro = (node.function, len(node.arguments)) in functions.MACROS and node.target is not None
        inner = local
        arguments = node.arguments
        if macro:
            inner |= {a.name for a in arguments[:2] if isinstance(a, Identifier)}
        if f".{node.function}" not in _FUNCTIONS_NOT_THERE:
            for argument in arguments:
                yield from self.of(argument, inner)

    def of_library(self, node: CallOf, library: str) -> Iterator[CelFinding]:
        name = f"{library}.{node.function}"
        if library in functions.LEFT_OUT:
            yield CelFinding(f"{name}: {functions.LEFT_OUT[library]}", known=True)
        elif name in _FUNCTIONS_NOT_THERE:
            yield CelFinding(f"function {name!r} is not supported", known=True)
        elif name in self.host:
            fewest, most = self.host[name]
            if not fewest <= len(node.arguments) <= most:
                what = f"{name} takes {fewest} arguments here, not {len(node.arguments)}"
                yield CelFinding(what, known=False)
        elif name not in functions.NAMES:
            yield CelFinding(f"undeclared reference to {name!r}", known=False)

    def method(self, node: CallOf) -> Iterator[CelFinding]:
        name = f".{node.function}"
        if name in _FUNCTIONS_NOT_THERE:
            yield CelFinding(f"function {node.function!r} is not supported", known=True)
        elif name not in functions.NAMES and (
            (node.function, len(node.arguments)) not in functions.MACROS
        ):
            yield CelFinding(f"undeclared reference to function {node.function!r}", known=False)
