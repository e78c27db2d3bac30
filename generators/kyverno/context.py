"""What variables can see: the request's roots, then each context entry, loaded when first asked.

A scope is a chain: each entry sees the roots and the entries before it, a `foreach` adds `element`
and `elementIndex` on top. Everything that an entry reads passes the policy's guard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from generators.documents.json import ObjectKey, ObjectKind, Value, as_text, mapping
from generators.kyverno.failures import LookupFailed, RuleFailure
from generators.kyverno.images import images_of
from generators.kyverno.language import expressions
from generators.kyverno.language.expressions import Missing
from generators.kyverno.language.functions import Surroundings
from generators.kyverno.limits import GuardedLookups
from generators.kyverno.model import (
    ApiCallEntry,
    ConfigMapEntry,
    ContextEntry,
    Document,
    Expression,
    Operation,
    Template,
    VariableEntry,
)
from generators.kyverno.requests import PolicyRequest
from generators.kyverno.variables import fill, fill_text

Clock = Callable[[], datetime]

_CONFIG_MAP = ObjectKind("", "v1", "ConfigMap")


def wall_clock() -> datetime:
    """The present."""
    return datetime.now(UTC)


def chooser(seed: str) -> Callable[[int], int]:
    """Choices for `random()`, the same for the same seed: a rule run again changes nothing."""
    count = 0

    def pick(below: int) -> int:
        nonlocal count
        count += 1
        return int.from_bytes(sha256(f"{seed}\n{count}".encode()).digest()[:16]) % below

    return pick


@dataclass(frozen=True, slots=True)
class World:
    """What all scopes of one rule share."""

    lookups: GuardedLookups
    surroundings: Surroundings
    given: Mapping[str, Value] = field(default_factory=dict)
    """Values that stand in for lookups and override roots; from the values of a test file."""


@dataclass(slots=True)
class ContextScope:
    """One link of the chain."""

    world: World
    values: Mapping[str, Value] = field(default_factory=dict)
    parent: ContextScope | None = None
    entry: ContextEntry | None = None
    loaded: list[Value] = field(default_factory=list)
    failed: RuleFailure | None = None
    expressions: tuple[Expression, ...] = ()
    """Variables in CEL, which the scopes below see too."""
    computed: dict[str, object] = field(default_factory=dict)
    """Of these, what was asked for already: a value, or why there is none."""

    def with_values(self, values: Mapping[str, Value]) -> ContextScope:
        """A scope that sees some more names, which hide older ones."""
        return ContextScope(self.world, values, self)

    def with_entries(self, entries: tuple[ContextEntry, ...]) -> ContextScope:
        """A scope that sees context entries, each of them those before it."""
        scope = self
        for entry in entries:
            scope = ContextScope(self.world, {}, scope, entry)
        return scope

    def with_expressions(self, expressions: tuple[Expression, ...]) -> ContextScope:
        """A scope with variables in CEL, none of them computed yet."""
        if not expressions:
            return self
        return ContextScope(self.world, {}, self, expressions=expressions)

    def root(self, name: str) -> Value:
        """The value called `name`."""
        scope: ContextScope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            if scope.entry is not None and scope.entry.name == name:
                return scope.load(scope.entry)
            scope = scope.parent
        if name in self.world.given:
            return self.world.given[name]
        if name == "images" and (found := self._images()):
            return found
        raise Missing(f"there is no {name!r} here")

    def _images(self) -> Document:
        """Of the request's object, and of what it was where it goes."""
        request = self.root("request")
        held = mapping(request, "object") or mapping(request, "oldObject")
        return images_of(held)

    def load(self, entry: ContextEntry) -> Value:
        """The entry's value, read once; a failure is kept as well."""
        if self.failed is not None:
            raise self.failed
        if not self.loaded:
            try:
                self.loaded.append(self._read(entry))
            except RuleFailure as error:
                self.failed = error
                raise
        return self.loaded[0]

    def _read(self, entry: ContextEntry) -> Value:
        if entry.name in self.world.given:
            return self.world.given[entry.name]
        before = self.parent or ContextScope(self.world)
        match entry:
            case VariableEntry():
                return before.variable(entry)
            case ConfigMapEntry():
                return before.config_map(entry)
            case ApiCallEntry():
                return before.api_call(entry)

    def variable(self, entry: VariableEntry) -> Value:
        """A value, a query, or the default."""
        try:
            value = fill(entry.value, self) if entry.value is not None else None
            if entry.query is not None:
                start = value if entry.value is not None else self
                value = self._ask(entry.query, start)
        except Missing:
            if entry.default is None:
                raise
            value = None
        if value is None and entry.default is not None:
            return fill(entry.default, self)
        return value

    def _ask(self, query: Template, start: Value | ContextScope) -> Value:
        expression = fill_text(query, self)
        return expressions.evaluate(expression, start, self.world.surroundings)

    def config_map(self, entry: ConfigMapEntry) -> Value:
        """The ConfigMap, as the API server shows it."""
        name = fill_text(entry.config_map, self)
        namespace = self.world.lookups.namespace or "default"
        if entry.namespace is not None:
            namespace = fill_text(entry.namespace, self) or namespace
        found = self.world.lookups.find(ObjectKey(_CONFIG_MAP, namespace, name))
        if found is None:
            raise LookupFailed(f"ConfigMap {namespace}/{name} of context {entry.name} is not there")
        return found

    def api_call(self, entry: ApiCallEntry) -> Value:
        """The answer to a GET, or what a query takes from it."""
        path = fill_text(entry.path, self)
        try:
            value = self.world.lookups.get(path)
            if entry.query is not None:
                value = self._ask(entry.query, value)
        except (LookupFailed, Missing):
            if entry.default is None:
                raise
            value = None
        if value is None and entry.default is not None:
            return fill(entry.default, self)
        return value

    def query(self, expression: str) -> Value:
        """The value of an expression; see `variables.Scope`."""
        return expressions.evaluate(expression, self, self.world.surroundings)

    def trusted(self, expression: str) -> bool:
        """Whether only the policy's author can have written the value."""
        roots = expressions.roots_of(expression)
        return bool(roots) and any(self._authored(name) for name in roots)

    def _authored(self, name: str) -> bool:
        scope: ContextScope | None = self
        while scope is not None:
            entry = scope.entry
            if name in scope.values:
                return False
            if entry is not None and entry.name == name:
                if isinstance(entry, ConfigMapEntry):
                    return True
                literal = isinstance(entry, VariableEntry) and entry.query is None
                return literal and not _mentions(entry)
            scope = scope.parent
        return False

    def current(self) -> str:
        """What `@` stands for."""
        try:
            self.root("target")
        except RuleFailure:
            return "request.object"
        return "target"

    def deleting(self) -> bool:
        """Whether the request is a DELETE."""
        try:
            request = self.root("request")
        except RuleFailure:
            return False
        return isinstance(request, dict) and request.get("operation") == Operation.DELETE.value


def _mentions(entry: ContextEntry) -> bool:
    """Whether a literal value holds variables, and so may repeat a request's text."""
    return isinstance(entry, VariableEntry) and any(
        template is not None and "{{" in as_text(template.value)
        for template in (entry.value, entry.default)
    )


def roots_of(request: PolicyRequest) -> dict[str, Value]:
    """`request`, `serviceAccountName` and `serviceAccountNamespace`."""
    key = request.key
    body: Document = {
        "operation": request.operation.value,
        "name": key.name,
        # The API server says a Namespace is in itself.
        "namespace": key.name if key.kind.kind == "Namespace" else key.namespace,
        "kind": {"group": key.kind.group, "version": key.kind.version, "kind": key.kind.kind},
        "dryRun": request.dry_run,
    }
    if request.resource:
        body["object"] = request.resource
    if request.old:
        body["oldObject"] = request.old
    if request.subresource:
        body["subResource"] = request.subresource
    roots: dict[str, Value] = {"request": body}
    if request.requester is not None:
        body["userInfo"] = request.requester.user_info()
        body["roles"] = [*request.requester.roles]
        body["clusterRoles"] = [*request.requester.cluster_roles]
        namespace, name = request.requester.account
        roots |= {"serviceAccountName": name, "serviceAccountNamespace": namespace}
    return roots


def merged(base: Value, over: Value) -> Value:
    """The base with values laid over it, maps merged."""
    if isinstance(base, dict) and isinstance(over, dict):
        joined = dict(base)
        for key, value in over.items():
            joined[key] = merged(base[key], value) if key in base else value
        return joined
    return over


def dotted(values: Mapping[str, Value]) -> dict[str, Value]:
    """`a.b.c: v` of a values file as nested maps."""
    result: dict[str, Value] = {}
    for key, value in values.items():
        nested: Value = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        joined = merged(result, nested)
        result = joined if isinstance(joined, dict) else result
    return result


def scope_for(request: PolicyRequest, world: World) -> ContextScope:
    """The scope that a rule starts from."""
    roots = roots_of(request)
    for name, value in world.given.items():
        if name in roots:
            roots[name] = merged(roots[name], value)
    return ContextScope(world, roots)
