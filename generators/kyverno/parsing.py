"""`ClusterPolicy` and `Policy` documents -> `Policy` values, with every defect and its line.

Two kinds of trouble: a document that no API server would take is refused whole (a `Problem`); a
rule that is right but of a type or with a part that is not carried out here becomes `Unsupported`,
with the reason, and the policy's other rules still run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from generators.documents.yaml import Field
from generators.kyverno import matchparsing
from generators.kyverno.model import (
    Action,
    ApiCallEntry,
    ApplyRules,
    Clone,
    CloneList,
    Condition,
    ConditionOperator,
    Conditions,
    ConfigMapEntry,
    ContextEntry,
    Data,
    Downstream,
    FailurePolicy,
    ForEachPatch,
    Generation,
    Mutation,
    Order,
    Patch,
    Place,
    Policy,
    PolicyRule,
    Setting,
    Source,
    Target,
    Template,
    Unsupported,
    UnsupportedPart,
    VariableEntry,
)
from generators.manifests.fields import Cursor
from generators.objects import Origin

API_VERSIONS = ("kyverno.io/v1", "kyverno.io/v2beta1")
KINDS = ("ClusterPolicy", "Policy")
MAX_RULES = 1_000
MAX_ENTRIES = 100
_MAX_NESTING = 5

_OTHER_ACTIONS = {
    "validate": "validate rules are not carried out",
    "verifyImages": "image verification is not carried out",
}
SPEC = (
    "admission",
    "applyRules",
    "background",
    "emitWarning",
    "failurePolicy",
    "generateExisting",
    "generateExistingOnPolicyUpdate",
    "mutateExistingOnPolicyUpdate",
    "rules",
    "schemaValidation",
    "useServerSideApply",
    "validationFailureAction",
    "validationFailureActionOverrides",
    "webhookConfiguration",
    "webhookTimeoutSeconds",
)
RULE = (
    "name",
    "match",
    "exclude",
    "context",
    "preconditions",
    "celPreconditions",
    "mutate",
    "generate",
    "validate",
    "verifyImages",
    "imageExtractors",
    "skipBackgroundRequests",
    "reportProperties",
)
_DOWNSTREAM = ("apiVersion", "kind", "name", "namespace", "uid")
_SOURCES = ("data", "clone", "cloneList")
MUTATE = (
    "patchStrategicMerge",
    "patchesJson6902",
    "foreach",
    "targets",
    "mutateExistingOnPolicyUpdate",
)
GENERATE = (
    "synchronize",
    "generateExisting",
    "orphanDownstreamOnPolicyDelete",
    "foreach",
    *_DOWNSTREAM,
    *_SOURCES,
)
_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(slots=True)
class _Rule:
    """What has been found unsupported in the rule that is being read."""

    file: str
    reasons: list[UnsupportedPart] = field(default_factory=list)

    def place(self, cursor: Cursor) -> Place:
        return Place(self.file, cursor.line, cursor.path)

    def template(self, cursor: Cursor) -> Template:
        return Template(self.place(cursor), cursor.field)

    def unsupported(self, cursor: Cursor, what: str, fix: str) -> None:
        self.reasons.append(UnsupportedPart(self.place(cursor), what, fix))


def parse_policy(root: Cursor, origin: Origin) -> Policy:
    """One document; defects go to the cursor's report."""
    root.only("apiVersion", "kind", "metadata", "spec", "status")
    meta = root.child("metadata")
    spec = root.child("spec")
    name = name_of(meta) if meta is not None else ""
    namespaced = root.string("kind") == "Policy"
    namespace = meta.string("namespace", "default") if namespaced and meta is not None else ""
    if not name:
        root.fail("Required value: metadata.name", "name the policy")
    if spec is None:
        root.fail("Required value: spec", "write rules")
        return Policy(name, namespace, (), origin=origin)
    spec.only(*SPEC)
    return Policy(
        name=name,
        namespace=namespace,
        rules=_rules(spec, origin.file),
        apply=word(spec, "applyRules", ApplyRules, ApplyRules.ALL),
        failure=_failure(spec),
        admission=switch(spec, "admission", default=True),
        background=switch(spec, "background", default=True),
        server_side=switch(spec, "useServerSideApply"),
        origin=origin,
    )


def name_of(meta: Cursor) -> str:
    """The name as it is written: `1e3` can only mean a name."""
    child = meta.child("name")
    return child.source_text() if child is not None else ""


def _failure(spec: Cursor) -> FailurePolicy:
    inner = spec.child("webhookConfiguration")
    where = inner if inner is not None and inner.child("failurePolicy") is not None else spec
    return word(where, "failurePolicy", FailurePolicy, FailurePolicy.FAIL)


def switch(cursor: Cursor, key: str, default: bool = False) -> bool:
    """The field called `key`: true or false."""
    child = cursor.child(key)
    return default if child is None else child.boolean()


def word(cursor: Cursor, key: str, words: type[_Word], default: _Word) -> _Word:
    """The field called `key`: one of some words."""
    child = cursor.child(key)
    if child is None:
        return default
    text = child.text()
    for word in words:
        if word.value == text:
            return word
    known = ", ".join(word.value for word in words)
    child.fail(f'Unsupported value: "{text}"', f"write one of {known}")
    return default


def _rules(spec: Cursor, file: str) -> tuple[PolicyRule, ...]:
    found = spec.children("rules")
    if not found:
        spec.fail("Required value: rules", "write at least one rule")
    if len(found) > MAX_RULES:
        spec.fail(f"more than {MAX_RULES} rules", "split the policy")
        return ()
    rules = [_rule(cursor, spec, file) for cursor in found]
    seen: set[str] = set()
    for rule, cursor in zip(rules, found, strict=True):
        if rule.name in seen:
            cursor.fail(f'rule name "{rule.name}" is given twice', "rename one")
        seen.add(rule.name)
    return tuple(rules)


def _rule(cursor: Cursor, spec: Cursor, file: str) -> PolicyRule:
    cursor.only(*RULE)
    notes = _Rule(file)
    name = name_of(cursor)
    if not name or len(name) > 63:
        cursor.fail(f'rule name "{name}"', "give it a name of 1 to 63 characters")
    match = cursor.child("match")
    if match is None:
        cursor.fail("Required value: match", "say which objects trigger the rule")
    setting = _setting(cursor, notes)
    for key in ("celPreconditions", "imageExtractors"):
        if (child := cursor.child(key)) is not None:
            notes.unsupported(child, f"{key} is not supported", "use preconditions and context")
    action = _action(cursor, spec, notes)
    if notes.reasons:
        reasons = action.reasons if isinstance(action, Unsupported) else ()
        action = Unsupported(tuple(dict.fromkeys((*notes.reasons, *reasons))))
    exclude = cursor.child("exclude")
    return PolicyRule(
        name=name,
        place=notes.place(cursor),
        match=matchparsing.parse_match(match or cursor, file, required=match is not None),
        exclude=matchparsing.parse_match(exclude, file) if exclude is not None else None,
        setting=setting,
        action=action,
        skip_background=switch(cursor, "skipBackgroundRequests", default=True),
    )


def _action(rule: Cursor, spec: Cursor, notes: _Rule) -> Action:
    given = [k for k in ("mutate", "generate", *_OTHER_ACTIONS) if rule.child(k) is not None]
    if len(given) != 1:
        what = f"a rule has exactly one action, not {len(given)}"
        rule.fail(what, "write one of mutate, generate, validate, verifyImages")
        return Unsupported(())
    child = rule.child(given[0])
    if child is None:
        return Unsupported(())
    if given[0] == "mutate":
        return _mutation(child, spec, notes)
    if given[0] == "generate":
        return _generation(child, spec, notes)
    fix = "leave this rule to Kyverno, or to a ValidatingAdmissionPolicy"
    return Unsupported((UnsupportedPart(notes.place(child), _OTHER_ACTIONS[given[0]], fix),))


def _setting(cursor: Cursor, notes: _Rule) -> Setting:
    entries = cursor.children("context")
    if len(entries) > MAX_ENTRIES:
        cursor.fail(f"more than {MAX_ENTRIES} context entries", "split the rule")
        entries = []
    context = tuple(e for e in (_entry(item, notes) for item in entries) if e is not None)
    child = cursor.child("preconditions")
    return Setting(context, _conditions(child, notes) if child is not None else Conditions())


def _entry(cursor: Cursor, notes: _Rule) -> ContextEntry | None:
    name = cursor.string("name")
    if not name:
        cursor.fail("Required value: name", "name the context entry")
    known = ("variable", "configMap", "apiCall", "globalReference", "imageRegistry")
    cursor.only("name", *known)
    given = [key for key in known if cursor.child(key) is not None]
    body = cursor.child(given[0]) if len(given) == 1 else None
    if body is None:
        cursor.fail("a context entry has exactly one source", f"write one of {', '.join(known)}")
        return None
    match given[0]:
        case "variable":
            return _variable(name, body, notes)
        case "configMap":
            return _config_map(name, body, notes)
        case "apiCall":
            return _api_call(name, body, notes)
        case source:
            notes.unsupported(body, f"context from {source} is not supported", "use apiCall")
            return None


def _variable(name: str, body: Cursor, notes: _Rule) -> VariableEntry:
    body.only("value", "jmesPath", "default")
    value, query, default = (_optional(body, k, notes) for k in ("value", "jmesPath", "default"))
    if value is None and query is None and default is None:
        body.fail("Required value: value or jmesPath", "say what the variable is")
    return VariableEntry(name, notes.place(body), value, query, default)


def _config_map(name: str, body: Cursor, notes: _Rule) -> ConfigMapEntry:
    body.only("name", "namespace")
    place = notes.place(body)
    namespace = _optional(body, "namespace", notes)
    return ConfigMapEntry(name, place, _needed(body, "name", notes), namespace)


def _api_call(name: str, body: Cursor, notes: _Rule) -> ApiCallEntry:
    body.only("urlPath", "method", "data", "service", "jmesPath", "default")
    if (service := body.child("service")) is not None:
        notes.unsupported(service, "service calls are not supported", "policies read the API only")
    if body.string("method", "GET") != "GET" or body.child("data") is not None:
        notes.unsupported(body, "only GET is supported", "remove method and data")
    path = _optional(body, "urlPath", notes) or notes.template(body)
    if body.child("urlPath") is None and body.child("service") is None:
        body.fail("Required value: urlPath", "say what to read")
    query, default = _optional(body, "jmesPath", notes), _optional(body, "default", notes)
    return ApiCallEntry(name, notes.place(body), path, query, default)


def _optional(cursor: Cursor, key: str, notes: _Rule) -> Template | None:
    child = cursor.child(key)
    return notes.template(child) if child is not None else None


def _needed(cursor: Cursor, key: str, notes: _Rule) -> Template:
    child = cursor.child(key)
    if child is None:
        cursor.fail(f"Required value: {key}", "write it")
    return notes.template(child if child is not None else cursor)


def _conditions(cursor: Cursor, notes: _Rule) -> Conditions:
    """`any`/`all`, or the older plain list, which means all."""
    if isinstance(cursor.field.value, tuple):
        return Conditions(all=tuple(_condition(item, notes) for item in cursor.items()))
    cursor.only("any", "all")
    any_of = cursor.child("any")
    return Conditions(
        any=tuple(_condition(c, notes) for c in any_of.items()) if any_of is not None else None,
        all=tuple(_condition(c, notes) for c in cursor.children("all")),
    )


def _condition(cursor: Cursor, notes: _Rule) -> Condition:
    cursor.only("key", "operator", "value", "message")
    operator = word(cursor, "operator", ConditionOperator, ConditionOperator.EQUALS)
    if cursor.child("operator") is None:
        cursor.fail("Required value: operator", "say how key and value compare")
    null = Field(None, cursor.line)
    places = [
        notes.template(child if child is not None else Cursor(null, cursor.path, cursor.report))
        for child in (cursor.child("key"), cursor.child("value"))
    ]
    return Condition(places[0], operator, places[1], cursor.string("message"))


def _mutation(cursor: Cursor, spec: Cursor, notes: _Rule) -> Mutation:
    cursor.only(*MUTATE)
    targets = tuple(_target(item, notes) for item in cursor.children("targets"))
    existing = _either(cursor, spec, "mutateExistingOnPolicyUpdate", ())
    if existing and not targets:
        if cursor.child("mutateExistingOnPolicyUpdate") is not None:
            cursor.fail("mutateExistingOnPolicyUpdate needs targets", "write mutate.targets")
        existing = False
    return Mutation(_patch(cursor, notes, 0), targets, existing)


def _either(rule: Cursor, spec: Cursor, key: str, older: tuple[str, ...]) -> bool:
    """A switch of the rule, which wins over the same one of the policy."""
    for cursor, keys in ((rule, (key,)), (spec, (key, *older))):
        for name in keys:
            if cursor.child(name) is not None:
                return switch(cursor, name)
    return False


def _patch(cursor: Cursor, notes: _Rule, nesting: int) -> Patch:
    strategic = _optional(cursor, "patchStrategicMerge", notes)
    json6902 = _optional(cursor, "patchesJson6902", notes)
    if strategic is not None and not isinstance(strategic.source.value, Mapping):
        cursor.fail("patchStrategicMerge must be an object", "write the fields to merge")
    if nesting > _MAX_NESTING:
        cursor.fail(f"foreach is nested deeper than {_MAX_NESTING} levels", "flatten it")
        return Patch()
    foreach = tuple(_foreach_patch(i, notes, nesting + 1) for i in cursor.children("foreach"))
    if [strategic is not None, json6902 is not None, bool(foreach)].count(True) != 1:
        cursor.fail(
            "exactly one form of patch is needed",
            "write one of patchStrategicMerge, patchesJson6902, foreach",
        )
    return Patch(strategic, json6902, foreach)


def _foreach_patch(cursor: Cursor, notes: _Rule, nesting: int) -> ForEachPatch:
    cursor.only(
        "list",
        "order",
        "context",
        "preconditions",
        "patchStrategicMerge",
        "patchesJson6902",
        "foreach",
    )
    ordered = cursor.child("order") is not None
    return ForEachPatch(
        place=notes.place(cursor),
        list=_needed(cursor, "list", notes),
        setting=_setting(cursor, notes),
        patch=_patch(cursor, notes, nesting),
        order=word(cursor, "order", Order, Order.ASCENDING) if ordered else None,
    )


def _target(cursor: Cursor, notes: _Rule) -> Target:
    known = ("apiVersion", "kind", "name", "namespace", "uid", "selector")
    cursor.only(*known, "context", "preconditions")
    if not cursor.string("kind"):
        cursor.fail("Required value: kind", "say what kind to change")
    fields = Cursor(_picked(cursor, known), cursor.path, cursor.report)
    return Target(notes.place(cursor), notes.template(fields), _setting(cursor, notes))


def _picked(cursor: Cursor, keys: tuple[str, ...]) -> Field:
    """The mapping with these keys only, at its own line."""
    children = {key: child.field for key in keys if (child := cursor.child(key)) is not None}
    return Field(children, cursor.line)


def _generation(cursor: Cursor, spec: Cursor, notes: _Rule) -> Generation:
    cursor.only(*GENERATE)
    each = cursor.children("foreach")
    if each:
        downstreams = tuple(_downstream(item, notes, looped=True) for item in each)
        if (kind := cursor.child("kind")) is not None:
            kind.fail(
                "foreach and a pattern are both given", "write the pattern inside foreach only"
            )
    else:
        downstreams = (_downstream(cursor, notes, looped=False),)
    return Generation(
        downstreams=tuple(d for d in downstreams if d is not None),
        synchronize=switch(cursor, "synchronize"),
        existing=_either(cursor, spec, "generateExisting", ("generateExistingOnPolicyUpdate",)),
        orphan=switch(cursor, "orphanDownstreamOnPolicyDelete"),
    )


def _downstream(cursor: Cursor, notes: _Rule, looped: bool) -> Downstream | None:
    if looped:
        cursor.only("list", "context", "preconditions", "order", *_DOWNSTREAM, *_SOURCES)
    source = _source(cursor, notes)
    if source is None:
        return None
    needed = ("namespace",) if isinstance(source, CloneList) else ("apiVersion", "kind", "name")
    for key in needed:
        if key not in _strings(cursor) and key != "namespace":
            cursor.fail(f"Required value: {key}", "say what to generate")
    target = Cursor(_picked(cursor, _DOWNSTREAM), cursor.path, cursor.report)
    return Downstream(
        place=notes.place(cursor),
        target=notes.template(target),
        source=source,
        list=_needed(cursor, "list", notes) if looped else None,
        setting=_setting(cursor, notes) if looped else Setting(),
    )


def _strings(cursor: Cursor) -> Mapping[str, Field]:
    value = cursor.field.value
    return value if isinstance(value, Mapping) else {}


_Make = Callable[[Template], Source]


def _source(cursor: Cursor, notes: _Rule) -> Source | None:
    makers: dict[str, _Make] = {"data": Data, "clone": Clone, "cloneList": CloneList}
    given = [key for key in _SOURCES if cursor.child(key) is not None]
    if not given:
        return Data(notes.template(Cursor(Field({}, cursor.line), cursor.path, cursor.report)))
    child = cursor.child(given[0])
    if child is None or len(given) > 1:
        what = f"at most one source is possible, not {len(given)}"
        cursor.fail(what, "write one of data, clone, cloneList")
        return None
    if given[0] == "clone":
        child.only("name", "namespace")
    if given[0] == "cloneList":
        child.only("kinds", "namespace", "selector")
        for kind in child.children("kinds"):
            if kind.text().rsplit("/", 1)[-1] in ("", "*"):
                kind.fail("cloneList takes no wildcards", "write kinds such as v1/Secret")
    return makers[given[0]](notes.template(child))
