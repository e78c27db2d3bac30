"""Carries out the patches of a mutate rule on one object.

The object that comes out is checked as far as is known here: a patch may not turn it into another
object, nor write labels that no API server takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from generators.documents.json import Value, mapping, object_key_of
from generators.documents.yaml import documents, plain
from generators.errors import InputError
from generators.kyverno import expressed
from generators.kyverno.conditions import first_unmet
from generators.kyverno.context import ContextScope
from generators.kyverno.failures import BadExpression, BadPatch, UnresolvedVariable
from generators.kyverno.language import expressions
from generators.kyverno.language.functions import ELEMENT_STEPS
from generators.kyverno.language.printing import as_text
from generators.kyverno.model import Document, ForEachPatch, Order, Patch, Template
from generators.kyverno.patches import anchors, jsonpatches, merging
from generators.kyverno.variables import bare, fill, fill_text, is_variable, substitute
from generators.manifests import names

MAX_ELEMENTS = 10_000
_PLAIN = re.compile(r"[\w./@+-]*")


class Nothing(Exception):
    """The rule has nothing to do here; the message says why."""


def patched(patch: Patch, document: Document, scope: ContextScope, root: str) -> Document:
    """The object after the patch; `root` is the name under which the scope holds it."""
    after = _patched(patch, document, scope, root, depth=0)
    if after == document:
        raise Nothing("the object is already as the rule wants it")
    _check(document, after)
    return after


def _patched(
    patch: Patch, document: Document, scope: ContextScope, root: str, depth: int
) -> Document:
    if patch.strategic is not None:
        return _strategic(patch.strategic, document, scope)
    if patch.expressed:
        return _expressed(patch, document, scope, root)
    if patch.json6902 is not None:
        return jsonpatches.apply(document, jsonpatches.parse(operations(patch.json6902, scope)))
    return _foreach(patch, document, scope, root, depth)


def _expressed(patch: Patch, document: Document, scope: ContextScope, root: str) -> Document:
    """Each patch sees the object as the one before has left it; variables are what they were."""
    for each in patch.expressed:
        document = expressed.patched(each, document, _seeing(scope, document, root))
    return document


def _foreach(
    patch: Patch, document: Document, scope: ContextScope, root: str, depth: int
) -> Document:
    """Every element sees the object as it was before its list, and patches what is there now."""
    skipped: list[str] = []
    worked = False
    for each in patch.foreach:
        for inner in _elements(each, _seeing(scope, document, root), depth):
            scope.world.surroundings.meter.spend(ELEMENT_STEPS)
            try:
                why = first_unmet(each.setting.preconditions, inner)
                if why:
                    raise Nothing(why)
                document = _patched(each.patch, document, inner, root, depth + 1)
                worked = True
            except Nothing as nothing:
                skipped.append(str(nothing))
    if not worked:
        raise Nothing(skipped[0] if skipped else "the list of foreach is empty")
    return document


def _strategic(template: Template, document: Document, scope: ContextScope) -> Document:
    patch = textual(template.written, fill(template, scope))
    if not isinstance(patch, dict):
        raise BadPatch("patchStrategicMerge is not an object")
    try:
        return merging.merge(document, anchors.prepare(patch, document))
    except anchors.Dropped as dropped:
        raise Nothing(str(dropped)) from None


def textual(written: Value, filled: Value) -> Value:
    """Labels and annotations that a variable made numbers, true or false of, as texts.

    `written` is the template: what its author wrote as a number stays one, for somebody to see.
    """
    if isinstance(written, list) and isinstance(filled, list):
        return [textual(one, other) for one, other in zip(written, filled, strict=True)]
    if not isinstance(written, dict) or not isinstance(filled, dict) or len(written) != len(filled):
        return filled
    result: dict[str, Value] = {}
    for (key, before), (name, after) in zip(written.items(), filled.items(), strict=True):
        if bare(key) in ("labels", "annotations") and isinstance(before, dict):
            result[name] = _notes(before, after)
        else:
            result[name] = textual(before, after)
    return result


def _notes(written: Document, filled: Value) -> Value:
    if not isinstance(filled, dict) or len(written) != len(filled):
        return filled
    return {
        name: as_text(after)
        if isinstance(before, str) and isinstance(after, bool | int | float)
        else after
        for before, (name, after) in zip(written.values(), filled.items(), strict=True)
    }


def _seeing(scope: ContextScope, document: Document, root: str) -> ContextScope:
    """The scope in which the object is as the patches before have left it."""
    if root == "target":
        return scope.with_values({"target": document})
    request = scope.root("request")
    body = dict(request) if isinstance(request, dict) else {}
    return scope.with_values({"request": {**body, "object": document}})


def _elements(each: ForEachPatch, scope: ContextScope, depth: int) -> Sequence[ContextScope]:
    """Scopes of the elements; a merge goes from last to first, as it puts new ones first."""
    numbered = elements_of(each.list, scope)
    merges = each.patch.strategic is not None
    if each.order is Order.DESCENDING or (each.order is None and merges):
        numbered.reverse()
    return [
        element_scope(scope, item, index, depth).with_entries(each.setting.context)
        for index, item in numbered
    ]


def element_scope(scope: ContextScope, item: Value, index: int, depth: int) -> ContextScope:
    """`element` and `elementIndex`, and the same with the depth behind them."""
    return scope.with_values(
        {
            "element": item,
            "elementIndex": index,
            f"element{depth}": item,
            f"elementIndex{depth}": index,
        }
    )


def elements_of(template: Template, scope: ContextScope) -> list[tuple[int, Value]]:
    """The elements of a `foreach` with their numbers: of an expression without braces, or of a
    variable that is a list. What is no list is one element, null is none."""
    given = template.written
    braced = isinstance(given, str) and "{{" in given
    found = fill(template, scope)
    if isinstance(found, str) and not braced:
        found = expressions.evaluate(found, scope, scope.world.surroundings)
    elif isinstance(found, str) and found.startswith(("[", "{")):
        found = _decoded(found)
    listed = found if isinstance(found, list) else [found]
    if len(listed) > MAX_ELEMENTS:
        raise BadExpression(f"the list of foreach has more than {MAX_ELEMENTS} elements")
    return [(index, item) for index, item in enumerate(listed) if item is not None]


def _decoded(listed: str) -> Value:
    """A list that came out of a variable as JSON text."""
    try:
        read = list(documents(listed.encode(errors="replace"), "list"))
    except InputError as error:
        raise BadExpression(str(error)) from None
    return plain(read[0]) if read else None


def operations(template: Template, scope: ContextScope) -> Value:
    """The operations of patchesJson6902, which is a list, or a text that holds one.

    A text that is one variable is what comes out of it. One that is YAML before its variables are
    replaced is read first, so that no value can add operations of its own. In one that is not
    (`value: {{ x }}`), values are written as JSON.
    """
    given = template.written
    if not isinstance(given, str):
        return fill(template, scope)
    if is_variable(given):
        return _decoded(fill_text(template, scope))
    try:
        read = list(documents(given.encode(errors="replace"), "patchesJson6902"))
        listed = plain(read[0]) if read else []
    except InputError:
        listed = None
    if isinstance(listed, list):
        try:
            return _as_text(listed, scope)
        except UnresolvedVariable as error:
            raise error.at(str(template.place)) from None
    inlined = fill_text(template, _Inlined(scope))
    try:
        read = list(documents(inlined.encode(errors="replace"), "patchesJson6902"))
    except InputError as error:
        raise BadPatch(f"patchesJson6902 is not YAML: {error}") from None
    return plain(read[0]) if read else []


def _as_text(listed: Value, scope: ContextScope) -> Value:
    """Variables inside a text stay text, as they would if the text were read afterwards."""
    if isinstance(listed, dict):
        return {as_text(substitute(k, scope)): _as_text(item, scope) for k, item in listed.items()}
    if isinstance(listed, list):
        return [_as_text(item, scope) for item in listed]
    return as_text(substitute(listed, scope)) if isinstance(listed, str) else listed


@dataclass(frozen=True, slots=True)
class _Inlined:
    """A scope whose texts can be put into YAML without changing what is around them."""

    scope: ContextScope

    def query(self, expression: str) -> Value:
        value = self.scope.query(expression)
        if isinstance(value, str) and not _PLAIN.fullmatch(value):
            return json.dumps(value)
        return value

    def trusted(self, expression: str) -> bool:
        return False

    def current(self) -> str:
        return self.scope.current()

    def deleting(self) -> bool:
        return self.scope.deleting()


def _check(before: Document, after: Document) -> None:
    """BadPatch for what an API server would refuse, or for another object than before."""
    if any(
        before.get(key) is not after.get(key) for key in ("apiVersion", "kind", "metadata")
    ) and (object_key_of(before) != object_key_of(after)):
        raise BadPatch(f"the patch makes {object_key_of(after)} of {object_key_of(before)}")
    check_metadata(after, before)


def check_metadata(document: Document, known: Document | None = None) -> None:
    """BadPatch for labels and annotations that no API server takes; `known` ones are not looked at.

    An object that a tenant made keeps its faults: the API server judges them, not the policy.
    """
    metadata = document.get("metadata", {})
    if not isinstance(metadata, dict):
        raise BadPatch("metadata must be an object")
    for field in ("labels", "annotations"):
        given = metadata.get(field)
        if given is not None and not isinstance(given, dict):
            raise BadPatch(f"metadata.{field} must be an object")
        before = mapping(known, "metadata", field)
        for key, value in mapping(metadata, field).items():
            if key in before and before[key] == value:
                continue
            why = names.label_key(key)
            if not isinstance(value, str):
                why = f"{value!r:.80} is not a string; quote it"
            elif field == "labels" and why is None:
                why = names.label_value(value)
            if why is not None:
                raise BadPatch(f"metadata.{field}.{key}: {why}")
