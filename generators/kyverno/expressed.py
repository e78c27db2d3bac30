"""Runs the expressions of a rule: its conditions, its patches, and what it generates.

What expressions see comes from the rule's scope, the same that `{{ variables }}` see, and so do the
steps that they may take. Variables are computed when first asked for, once for each object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import jsonpatch

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    labels_of,
    mapping,
    object_key_of,
    split_api_version,
    text,
)
from generators.kyverno.cel import syntax
from generators.kyverno.cel.evaluating import CelRun
from generators.kyverno.cel.templates import has_placeholder, pieces
from generators.kyverno.cel.texts import shown, text_of
from generators.kyverno.cel.values import CelValue, Lazy, Message, to_json
from generators.kyverno.context import ContextScope
from generators.kyverno.failures import BadExpression, BadPatch, LookupFailed, RuleFailure
from generators.kyverno.language.expressions import Missing
from generators.kyverno.model import (
    Document,
    Expressed,
    ExpressedPatch,
    Expression,
    Operation,
    PatchForm,
    Rendered,
    Template,
)
from generators.kyverno.patches.configuration import apply_configuration, check_names
from generators.manifests.kinds import kind_of_plural, plural_of
from generators.selectors import labels_selector, matches

Written = tuple[str, Document]
"""The namespace that something is generated into, and the object."""


def first_unmet(conditions: Sequence[Expression], scope: ContextScope) -> str:
    """Which condition does not hold; empty when all do.

    One that fails is an error, unless another is false: so upstream, and the API server.
    """
    failed: RuleFailure | None = None
    for condition in conditions:
        try:
            value = evaluated(condition, scope)
            if not isinstance(value, bool):
                raise BadExpression(f"{condition.place}: a condition must be true or false")
            if not value:
                return f"{condition.name} does not hold (line {condition.place.line})"
        except RuleFailure as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return ""


def evaluated(
    expression: Expression, scope: ContextScope, written: list[Written] | None = None
) -> CelValue:
    """The value of an expression; a failure names its file and line."""
    return _run(expression, scope, _evaluator(scope, written))


def _run(expression: Expression, scope: ContextScope, evaluator: CelRun) -> CelValue:
    try:
        return evaluator.evaluate(syntax.parse(expression.text))
    except BadExpression as error:
        raise BadExpression(f"{expression.place}: {error}") from None


def _evaluator(scope: ContextScope, written: list[Written] | None = None) -> CelRun:
    host = _host(scope)
    if written is not None:
        applies = _applies(scope, written)
        host |= {"generator.apply": applies, "generator.Apply": applies}
    names: dict[str, Callable[[], CelValue]] = {
        "object": lambda: _object(scope),
        "oldObject": lambda: _requested(scope).get("oldObject"),
        "request": lambda: _request(scope),
        "namespaceObject": lambda: _namespace_of(scope),
        "variables": lambda: _variables(scope),
    }
    return CelRun(names, host, scope.world.surroundings)


# --- what expressions see ------------------------------------------------------------------------


def _requested(scope: ContextScope) -> Document:
    request = scope.root("request")
    return request if isinstance(request, dict) else {}


def _object(scope: ContextScope) -> Value:
    """The target where there is one, else the object of the request."""
    try:
        return scope.root("target")
    except Missing:
        return _requested(scope).get("object")


def _request(scope: ContextScope) -> Document:
    request = dict(_requested(scope))
    kind = mapping(request, "kind")
    resource = {"group": text(kind, "group"), "version": text(kind, "version")}
    made: Document = {
        "oldObject": None,
        "object": None,
        "subResource": "",
        "userInfo": {"username": "", "groups": []},
        "resource": {**resource, "resource": plural_of(text(kind, "kind"))},
    }
    made |= {key: value for key, value in request.items() if key not in ("roles", "clusterRoles")}
    return made | {"requestKind": kind, "requestResource": made["resource"]}


def _namespace_of(scope: ContextScope) -> Value:
    """Of what is in no namespace, null; so of a Namespace that is not there yet."""
    request = _requested(scope)
    name = text(request, "namespace")
    creates = text(request, "operation") == Operation.CREATE.value
    if not name or (text(request, "kind", "kind") == "Namespace" and creates):
        return None
    labels: Document = {**scope.world.lookups.namespace_labels(name)}
    return {"metadata": {"name": name, "labels": labels, "annotations": {}}}


def _variables(scope: ContextScope) -> Lazy:
    holder: ContextScope | None = scope
    while holder is not None and not holder.expressions:
        holder = holder.parent
    if holder is None:
        return Lazy(frozenset(), lambda name: None)
    found = holder
    names = {each.name: each for each in found.expressions}

    def compute(name: str) -> CelValue:
        if name not in found.computed:
            value: CelValue | RuleFailure
            try:
                value = evaluated(names[name], found)
            except RuleFailure as error:
                value = error
            found.computed[name] = value
        held = found.computed[name]
        if isinstance(held, RuleFailure):
            raise held
        return held

    return Lazy(frozenset(names), compute)


# --- what they may call --------------------------------------------------------------------------

_Host = dict[str, Callable[[Sequence[CelValue]], CelValue]]


def _host(scope: ContextScope) -> _Host:
    lookups = scope.world.lookups

    def placed(arguments: Sequence[CelValue], before: int) -> tuple[list[str], str, list[CelValue]]:
        """The first arguments, the namespace, which a namespaced policy does not say, the rest."""
        first = [text_of(each) for each in arguments[:before]]
        rest = list(arguments[before:])
        home = lookups.namespace or text_of(rest.pop(0))
        return first, home, rest

    def get(arguments: Sequence[CelValue]) -> CelValue:
        (api_version, plural), home, rest = placed(arguments, 2)
        kind = _kind(api_version, plural, lookups.limits.kinds)
        lookups.check_read(kind)
        scope.world.surroundings.meter.spend(_READ_STEPS)
        name = text_of(rest[0])
        if kind.kind != "*":
            return lookups.find(ObjectKey(kind, home, name))
        return next((d for d in _spelled(lookups.list(kind, home), plural, name)), None)

    def listed(arguments: Sequence[CelValue]) -> CelValue:
        (api_version, plural), home, rest = placed(arguments, 2)
        kind = _kind(api_version, plural, lookups.limits.kinds)
        lookups.check_read(kind)
        wanted = rest[0] if rest else {}
        if not isinstance(wanted, dict):
            raise BadExpression("resource.list(): labels must be a map")
        selector = labels_selector({text_of(k): text_of(v) for k, v in wanted.items()})
        found = [
            item
            for item in _spelled(lookups.list(kind, home), plural)
            if matches(selector, labels_of(item))
        ]
        scope.world.surroundings.meter.spend(_READ_STEPS + len(found))
        return {"apiVersion": api_version, "kind": f"{kind.kind}List", "items": [*found]}

    return {
        "resource.get": get,
        "resource.Get": get,
        "resource.list": listed,
        "resource.List": listed,
    }


_READ_STEPS = 100


def _kind(api_version: str, plural: str, allowed: frozenset[tuple[str, str]] | None) -> ObjectKind:
    """The kind that a plural names: a well-known one, or one that the operator allows. Offline,
    where everything is allowed, `*` stands for any other."""
    group, version = split_api_version(api_version)
    kind = kind_of_plural(group, plural)
    others = (k for g, k in sorted(allowed or ()) if g == group and plural_of(k) == plural)
    kind = kind or next(others, "")
    if not kind and allowed is not None:
        raise LookupFailed(
            f"resource {plural} of {api_version} is not known here; start with --allow-kind "
            f"{api_version}/KIND"
        )
    return ObjectKind(group, version, kind or "*")


def _spelled(found: Iterable[Document], plural: str, name: str = "") -> Iterator[Document]:
    """Of objects of any kind those whose kind has this plural, and this name."""
    for document in found:
        key = object_key_of(document)
        if plural_of(key.kind.kind) == plural and name in ("", key.name):
            yield document


def _applies(
    scope: ContextScope, written: list[Written]
) -> Callable[[Sequence[CelValue]], CelValue]:
    spend = scope.world.surroundings.meter.spend
    home = scope.world.lookups.namespace

    def apply(arguments: Sequence[CelValue]) -> CelValue:
        namespace = home or text_of(arguments[0])
        given = arguments[-1]
        if not isinstance(given, list):
            raise BadExpression("generator.apply(): a list of objects is needed")
        for item in given:
            value = to_json(item, spend)
            if not isinstance(value, dict):
                raise BadExpression("generator.apply(): a list of objects is needed")
            written.extend((namespace, document) for document in _single(value))
        return True

    return apply


def _single(document: Document) -> Iterator[Document]:
    """The object, or those of a list of them."""
    found = document.get("items")
    if isinstance(found, list) and text(document, "kind").endswith("List"):
        yield from (item for item in found if isinstance(item, dict))
    else:
        yield document


# --- patches -------------------------------------------------------------------------------------


def patched(patch: ExpressedPatch, document: Document, scope: ContextScope) -> Document:
    """The object after one patch; `scope` sees it as it was before."""
    made = evaluated(patch.expression, scope)
    if patch.form is PatchForm.APPLY:
        if not isinstance(made, Message) or made.name != "Object":
            raise BadPatch(f"{patch.expression.place}: it must give an Object{{}}")
        check_names(made, "Object")
        return apply_configuration(document, _object_of(made, scope), patch.whole)
    if not isinstance(made, list):
        raise BadPatch(f"{patch.expression.place}: it must give a list of JSONPatch{{}}")
    return _changed(document, [_operation(item, patch, scope) for item in made])


def _object_of(message: Message, scope: ContextScope) -> Document:
    spend = scope.world.surroundings.meter.spend
    return {str(key): to_json(value, spend) for key, value in message.items()}


def _operation(item: CelValue, patch: ExpressedPatch, scope: ContextScope) -> dict[str, Value]:
    if not isinstance(item, Message) or item.name != "JSONPatch":
        raise BadPatch(f"{patch.expression.place}: it must give a list of JSONPatch{{}}")
    value = _object_of(item, scope)
    known = {"op", "path", "from", "value"}
    if more := sorted(value.keys() - known):
        raise BadPatch(f"{patch.expression.place}: a JSONPatch has no field {more[0]}")
    return value


def _changed(document: Document, operations: list[dict[str, Value]]) -> Document:
    """RFC 6902 to the letter; a test that fails leaves the object as it is."""
    after: Value = document
    for operation in operations:
        try:
            after = jsonpatch.JsonPatch([operation]).apply(after)
        except jsonpatch.JsonPatchTestFailed as error:
            path = jsonpatch.JsonPointer(text(operation, "path"))
            if path.resolve(after, _MISSING) is not _MISSING:
                return document
            raise BadPatch(f"JSON Patch: {error}") from None
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
            raise BadPatch(f"JSON Patch: {error}") from None
    if not isinstance(after, dict):
        raise BadPatch("JSON Patch: the object is replaced by something else")
    return after


_MISSING = object()


# --- targets -------------------------------------------------------------------------------------


def targets(expression: Expression, scope: ContextScope) -> tuple[Document, ...]:
    """The objects that an expression gives: one, a list, or none for null."""
    value = to_json(evaluated(expression, scope), scope.world.surroundings.meter.spend)
    if value is None:
        return ()
    given = value if isinstance(value, list) else [value]
    found = [each for item in given if isinstance(item, dict) for each in _single(item)]
    if any(not isinstance(item, dict) for item in given) or not all(
        object_key_of(each).name for each in found
    ):
        raise BadExpression(f"{expression.place}: it must give objects")
    return tuple(found)


# --- what is generated ---------------------------------------------------------------------------


def generated(source: Expressed | Rendered, scope: ContextScope) -> tuple[Written, ...]:
    """Namespaces and objects in the order in which they are made."""
    written: list[Written] = []
    if isinstance(source, Expressed):
        evaluated(source.expression, scope, written)
        return tuple(written)
    for template in source.documents:
        value = template.value
        if source.interpolated:
            value = _filled(value, template, scope)
        if not isinstance(value, dict):
            raise BadExpression(f"{template.place}: a document must be an object")
        home = text(value, "metadata", "namespace")
        written.append((home or scope.world.lookups.namespace, value))
    return tuple(written)


def _filled(value: Value, template: Template, scope: ContextScope) -> Value:
    if isinstance(value, dict):
        return {key: _filled(item, template, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, template, scope) for item in value]
    if not isinstance(value, str) or not has_placeholder(value):
        return value
    parts = pieces(value)
    given = [
        evaluated(Expression(template.place, part.text), scope) if part.expression else part.text
        for part in parts
    ]
    if len(parts) == 1 and parts[0].expression:
        return to_json(given[0], scope.world.surroundings.meter.spend)
    for each in given:
        if not isinstance(each, str | int | float):
            raise BadExpression(
                f"{template.place}: a placeholder inside of a text must be a scalar; "
                "give the value a placeholder of its own"
            )
    return "".join(map(shown, given))
