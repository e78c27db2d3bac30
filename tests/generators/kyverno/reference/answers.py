"""Asks our engine what the reference was asked; the same questions, answers of the same form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from generators.documents.yaml import documents, plain
from generators.errors import InputError, Problem
from generators.kyverno import engine, expressed
from generators.kyverno.cel import syntax
from generators.kyverno.cel.checking import findings
from generators.kyverno.cel.values import to_json
from generators.kyverno.context import ContextScope, World, chooser, scope_for
from generators.kyverno.engine import Environment
from generators.kyverno.failures import RuleFailure
from generators.kyverno.language.functions import Surroundings
from generators.kyverno.language.operators import holds
from generators.kyverno.limits import OFFLINE, GuardedLookups
from generators.kyverno.model import ConditionOperator, Expression, Operation, Place, Policy
from generators.kyverno.offline.cluster import DocumentCluster
from generators.kyverno.offline.loading import policies_in
from generators.kyverno.patches import anchors, jsonpatches, mergekeys, merging
from generators.kyverno.requests import Asker, PolicyRequest
from generators.kyverno.results import RuleOutcome
from generators.kyverno.variables import substitute
from tests.generators.kyverno.policies import NOON
from tests.generators.kyverno.reference.shapes import Answer, Json, Question

_FAILURES = (RuleFailure, InputError, RecursionError)


def answer(question: Question) -> Answer:
    """`value`, or `error` with our words."""
    try:
        return {"value": _ASK[question["op"]](question)}
    except _FAILURES as failure:
        return {"error": str(failure) or type(failure).__name__}


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers say the same; of errors only that they are errors."""
    if "error" in one or "error" in other:
        return "error" in one and "error" in other
    return _equal(one["value"], other["value"])


def _equal(one: Json, other: Json) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)
    return bool(one == other)


def _scope(question: Question) -> ContextScope:
    surroundings = Surroundings(lambda: NOON, chooser("reference"))
    lookups = GuardedLookups(DocumentCluster(()), OFFLINE)
    return ContextScope(World(lookups, surroundings), question.get("data", {}))


def _query(question: Question) -> Json:
    return _scope(question).query(question["expression"])


def _substitute(question: Question) -> Json:
    return substitute(question["template"], _scope(question))


def _condition(question: Question) -> Json:
    key, value = question["key"], question["value"]
    if "data" in question:
        scope = _scope(question)
        key, value = substitute(key, scope), substitute(value, scope)
    return holds(key, ConditionOperator(question["operator"]), value)


def _merge(question: Question) -> Json:
    document = question["object"]
    try:
        return merging.merge(document, anchors.prepare(question["patch"], document))
    except anchors.Dropped:
        return document


def _json_patch(question: Question) -> Json:
    read = list(documents(question["patches"].encode(), "patches"))
    steps = jsonpatches.parse(plain(read[0]) if read else None)
    return jsonpatches.apply(question["object"], steps)


def _policy(question: Question) -> Json:
    loaded = policies_in(json.dumps(question["policy"]).encode(), "policy.yaml")
    if loaded.problems:
        raise InputError(loaded.problems)
    return _carried_out(loaded.policies, question)


def _expression(question: Question) -> Json:
    """As a placeholder of a template, checked first as when a policy is read."""
    text, data = question["expression"], question["data"]
    wrong = [found.what for found in findings(syntax.parse(text), frozenset(), {})]
    if wrong:
        raise InputError([Problem("cel", 1, "", "; ".join(wrong), "correct it")])
    request = PolicyRequest(Operation.CREATE, data, {})
    surroundings = Surroundings(lambda: NOON, chooser("reference"))
    world = World(GuardedLookups(DocumentCluster(()), OFFLINE), surroundings)
    scope = scope_for(request, world)
    value = expressed.evaluated(Expression(Place("cel", 1, ""), text), scope)
    return to_json(value, surroundings.meter.spend)


def _carried_out(policies: tuple[Policy, ...], question: Question) -> Json:
    there = [each for listed in question["sources"].values() for each in listed]
    there += question["objects"]
    environment = Environment(DocumentCluster(there), OFFLINE, lambda: NOON)
    operation = Operation(question["operation"])
    user = question["user"]["userInfo"]
    asker = Asker(
        user["username"],
        tuple(user["groups"]),
        (),
        tuple(question["user"]["clusterRoles"]),
    )
    old = question["object"] if operation is not Operation.CREATE else {}
    request = PolicyRequest(operation, question["object"], old, asker)
    mutated = engine.mutate(policies, request, environment)
    existing = engine.mutate_existing(policies, request, environment)
    generated = engine.generate(policies, request, environment)
    results = [
        {"rule": result.rule, "status": result.outcome.value}
        for result in (*mutated.results, *(c.result for c in existing), *generated.results)
        if result.outcome is not RuleOutcome.EXCLUDED
    ]
    made = [wanted.document for wanted in generated.wanted]
    changed = [change.after for change in existing if change.after is not None]
    outcome = {"rules": results, "object": mutated.document}
    return comparable({**outcome, "targets": changed, "generated": made})


def _expressed(question: Question) -> Json:
    """A policy in CEL is one rule, which upstream gives no name, or the policy's."""
    return without_rules(_policy(question))


def without_rules(outcome: Json) -> Json:
    """Of the rules only whether one failed: none and a skip are the same."""
    failed = any(rule["status"] == "error" for rule in outcome["rules"] or [])
    return {**outcome, "rules": [{"rule": "", "status": "error"}] if failed else []}


_MARKS = ("generate.kyverno.io/", "ringfence.io/")
_MANAGED = "app.kubernetes.io/managed-by"


def comparable(outcome: Json) -> Json:
    """What a policy made, without messages and without the marks that each engine leaves."""
    made = [_unmarked(document) for document in outcome["generated"] or []]
    rules = [{"rule": r["rule"], "status": r["status"]} for r in outcome["rules"] or []]
    return {
        "rules": sorted(rules, key=lambda rule: str(rule["rule"])),
        "object": outcome["object"],
        "targets": sorted(
            outcome["targets"] or [], key=lambda each: json.dumps(each, sort_keys=True)
        ),
        "generated": sorted(made, key=lambda each: json.dumps(each, sort_keys=True)),
    }


def _unmarked(document: Json) -> Json:
    metadata = dict(document["metadata"])
    for part in ("labels", "annotations"):
        given = metadata.pop(part, None) or {}
        kept = {k: v for k, v in given.items() if not k.startswith(_MARKS) and k != _MANAGED}
        if kept:
            metadata[part] = kept
    return {**document, "metadata": metadata}


_DEEPEST = 9
"""Steps to the deepest list of a kind that merges, from CronJob to the ports of a container."""


def merged_lists(schema: Json) -> Json:
    """Of the reference's schema: of each kind its lists that merge beside those of metadata."""
    found = {}
    for kind, of in schema["kinds"].items():
        lists = dict(_lists_of(schema["types"], of, ()))
        lists = {path: keys for path, keys in lists.items() if not path.startswith("metadata.")}
        if lists and not kind.endswith("List") and "kustomize" not in kind:
            found[kind] = lists
    return found


def _lists_of(types: Json, name: str, path: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    if len(path) > _DEEPEST:
        return
    for key, field in types.get(name, {}).items():
        below = (*path, key)
        # The schema also marks the key of a selector's requirement, which is no list.
        if field.get("merge") and key != "key":
            yield ".".join(below), field.get("keys") or []
        if field.get("type"):
            yield from _lists_of(types, field["type"], below)


def _schema(question: Question) -> Json:
    known = {
        f"{api_version}/{kind}": fields
        for api_version, kinds in mergekeys.KINDS.items()
        for kind, fields in kinds.items()
    }
    return {kind: dict(_ours(fields, ())) for kind, fields in known.items()}


def _ours(fields: mergekeys.Fields, path: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for key, listing in fields.items():
        below = (*path, key)
        if listing.keys is not None:
            yield ".".join(below), [*listing.keys]
        if listing.of:
            yield from _ours(mergekeys.fields_of(listing.of), below)


_ASK: dict[str, Callable[[Question], Json]] = {
    "query": _query,
    "substitute": _substitute,
    "condition": _condition,
    "merge": _merge,
    "schema": _schema,
    "jsonpatch": _json_patch,
    "policy": _policy,
    "cel": _expression,
    "celpolicy": _expressed,
}
