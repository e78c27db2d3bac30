"""What upstream's admission refuses of a policy that is right by itself, and what it warns of.

Asked when a policy is written, and by lint. The book of policies takes such a policy in any case:
one that is stored already runs as it always has. The rules are those of Kyverno 1.19.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from generators.documents.json import leaves, text
from generators.kyverno.cel.foreseen import written
from generators.kyverno.model import (
    Clone,
    CloneList,
    Downstream,
    Expressed,
    Filter,
    Generation,
    Mutation,
    Policy,
    PolicyRule,
    Rendered,
    Template,
    Unsupported,
    UnsupportedPart,
)
from generators.kyverno.usage import parts
from generators.kyverno.variables import expressions_in, has_variable
from generators.manifests.kinds import CLUSTER_SCOPED

_USER = re.compile(
    r"(?<![.\w])(serviceAccountName|serviceAccountNamespace"
    r"|request\.userInfo|request\.roles|request\.clusterRoles)\b"
)


def objections(policy: Policy) -> Iterator[UnsupportedPart]:
    """Why the policy may not be written; nothing for one that may."""
    if policy.background:
        yield from _asks_who(policy)
    for rule in policy.rules:
        acts = not isinstance(rule.action, Unsupported)
        if acts and not policy.admission and not policy.background:
            what = "disabling both admission and background processing is not allowed"
            yield UnsupportedPart(rule.place, what, "enable one of them")
        if isinstance(rule.action, Generation):
            for downstream in rule.action.downstreams:
                yield from _scope(policy, downstream)


def advice(policy: Policy) -> Iterator[UnsupportedPart]:
    """What the policy's author should know."""
    for rule in policy.rules:
        if not isinstance(rule.action, Generation):
            continue
        for downstream in rule.action.downstreams:
            source = downstream.source
            if isinstance(source, Clone | CloneList):
                template = source.source if isinstance(source, Clone) else source.fields
                if any(has_variable(v) for _, v in leaves(template.value) if isinstance(v, str)):
                    what = "a copy whose source is in variables cannot be told when that changes"
                    yield UnsupportedPart(template.place, what, "write the source out")
            if isinstance(source, Expressed) and not written(source, rule.setting.variables):
                what = "what is generated is not written out, so its kind is known by what is read"
                yield UnsupportedPart(downstream.place, what, "write apiVersion and kind out")


def _asks_who(policy: Policy) -> Iterator[UnsupportedPart]:
    """Policies that also run behind requests have no requester to ask for."""
    fix = "set spec.background to false"
    for rule in policy.rules:
        blocks = (rule.match, *((rule.exclude,) if rule.exclude is not None else ()))
        for one in (each for block in blocks for each in block.filters):
            if what := _user_filter(one):
                yield UnsupportedPart(one.place, f"{what} of a policy in background mode", fix)
    if any(isinstance(r.action, Mutation) and r.action.targets for r in policy.rules):
        return
    for rule in policy.rules:
        yield from _user_variables(rule, fix)


def _user_filter(one: Filter) -> str:
    if one.roles:
        return "roles"
    if one.cluster_roles:
        return "clusterRoles"
    return "subjects" if one.subjects else ""


def _user_variables(rule: PolicyRule, fix: str) -> Iterator[UnsupportedPart]:
    for template in parts(rule, Template):
        for path, item in leaves(template.value):
            if not isinstance(item, str):
                continue
            for expression in expressions_in(item):
                if found := _USER.search(expression):
                    what = f"variable {found[1]} of a policy in background mode"
                    yield UnsupportedPart(template.place_of(path), what, fix)


def _scope(policy: Policy, downstream: Downstream) -> Iterator[UnsupportedPart]:
    target = downstream.target.value
    kind, namespace = text(target, "kind"), text(target, "namespace")
    if not kind or has_variable(kind) or isinstance(downstream.source, Expressed | Rendered):
        return
    if kind in CLUSTER_SCOPED and namespace:
        what = f"target namespace must not be set for a cluster-wide resource, {kind}"
        yield UnsupportedPart(downstream.place, what, "remove namespace")
    if kind not in CLUSTER_SCOPED and not namespace and not policy.namespace:
        what = f"target namespace must be set for a namespaced resource, {kind}"
        yield UnsupportedPart(downstream.place, what, "write namespace")
