"""What expressions will read and make, as far as their text says: for caches, rights and lint.

An object that is written out (`{"apiVersion": "v1", "kind": "ConfigMap", ...}`) says its kind, and
so does a read whose arguments are literals. What comes from elsewhere is not foreseen; the guards
of reads and writes hold in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from generators.documents.json import ObjectKind, split_api_version, text
from generators.kyverno.cel import syntax
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
from generators.kyverno.cel.templates import has_placeholder
from generators.kyverno.failures import BadExpression
from generators.kyverno.model import Expressed, Expression, PolicyRule, Rendered, Target
from generators.manifests.kinds import kind_of_plural

_READS = ("get", "Get", "list", "List")


@dataclass(frozen=True, slots=True, order=True)
class Read:
    """Objects of a kind that an expression reads; an empty namespace may be any."""

    kind: ObjectKind
    namespace: str = ""


def reads(expressions: Iterable[Expression]) -> frozenset[Read]:
    """What expressions read."""
    return frozenset(
        found
        for node in _nodes(expressions)
        if isinstance(node, CallOf) and (found := _read(node)) is not None
    )


def written(source: Expressed | Rendered, variables: Iterable[Expression]) -> frozenset[ObjectKind]:
    """The kinds of the objects that a source writes out."""
    if isinstance(source, Rendered):
        values = [template.value for template in source.documents]
        found = (_kind_of(text(each, "apiVersion"), text(each, "kind")) for each in values)
        return frozenset(kind for kind in found if kind is not None)
    nodes = _nodes((source.expression, *variables))
    return frozenset(k for node in nodes if isinstance(node, MapOf) for k in _written(node))


def made(source: Expressed | Rendered, variables: Iterable[Expression]) -> frozenset[ObjectKind]:
    """The kinds that a source makes: what it writes out, else what it reads, and so copies."""
    variables = tuple(variables)
    found = written(source, variables)
    if found or isinstance(source, Rendered):
        return found
    return frozenset(read.kind for read in reads((source.expression, *variables)))


def expressions_of(rule: PolicyRule, target: Target | None = None) -> tuple[Expression, ...]:
    """Those that are computed before a rule acts."""
    found = (*rule.setting.variables, *rule.setting.conditions)
    return found if target is None or target.expression is None else (*found, target.expression)


def _kind_of(api_version: str, kind: str) -> ObjectKind | None:
    if not kind or has_placeholder(kind) or has_placeholder(api_version):
        return None
    return ObjectKind(*split_api_version(api_version), kind)


def _written(node: MapOf) -> Iterator[ObjectKind]:
    given = {
        entry.key.value: _literal(entry.value)
        for entry in node.entries
        if isinstance(entry.key, Constant)
    }
    kind = _kind_of(given.get("apiVersion", ""), given.get("kind", ""))
    if kind is not None and given.get("apiVersion"):
        yield kind


def _read(node: CallOf) -> Read | None:
    if node.target != Identifier("resource") or node.function not in _READS:
        return None
    api_version, plural, *rest = (*map(_literal, node.arguments), "", "")
    group, version = split_api_version(api_version)
    kind = kind_of_plural(group, plural)
    # A namespaced policy says no namespace: the name in its place leads nowhere, so any is meant.
    fewest = 4 if node.function.lower() == "get" else 3
    namespace = rest[0] if len(node.arguments) >= fewest else ""
    return Read(ObjectKind(group, version, kind), namespace) if kind else None


def _literal(node: Node) -> str:
    """A text that is written out, in dyn() or not; empty for anything else."""
    if isinstance(node, CallOf) and node.function == "dyn" and len(node.arguments) == 1:
        node = node.arguments[0]
    return node.value if isinstance(node, Constant) and isinstance(node.value, str) else ""


def _nodes(expressions: Iterable[Expression]) -> Iterator[Node]:
    for expression in expressions:
        try:
            yield from _below(syntax.parse(expression.text))
        except BadExpression:
            # The rule says so when it runs, and its parser said so before.
            continue


def _below(node: Node) -> Iterator[Node]:
    yield node
    for child in _children(node):
        yield from _below(child)


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Select():
            return (node.operand,)
        case CallOf():
            return (*((node.target,) if node.target is not None else ()), *node.arguments)
        case ListOf():
            return node.items
        case MapOf():
            return tuple(part for entry in node.entries for part in (entry.key, entry.value))
        case Comprehension():
            return (node.range, node.initial, node.condition, node.step, node.result)
    return ()
