"""Checks of a policy before it runs: rules that would act with more rights than they may.

Called when policies come into force, and by the webhook when one is written. A refused rule becomes
`Unsupported` with the reasons, so that it is named and never runs; the policy's other rules run on.
limits.py stops what only shows once variables are filled in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from generators.documents.json import ObjectKey, ObjectKind, Value, items, split_api_version, text
from generators.kyverno.cel import foreseen
from generators.kyverno.failures import NotAllowed
from generators.kyverno.language.wildcards import has_wildcard
from generators.kyverno.limits import Limits, check_write
from generators.kyverno.matching import kind_matches
from generators.kyverno.model import (
    Clone,
    CloneList,
    Downstream,
    Expressed,
    KindPattern,
    Mutation,
    Place,
    Policy,
    PolicyRule,
    Rendered,
    Unsupported,
    UnsupportedPart,
)
from generators.manifests.kinds import CLUSTER_SCOPED

_VARIABLES = ("{{", "$(")


@dataclass(frozen=True, slots=True)
class Vetted:
    """The policy without the rules that may not run, and why they may not."""

    policy: Policy
    refused: tuple[tuple[PolicyRule, tuple[UnsupportedPart, ...]], ...]


def vetted(policy: Policy, limits: Limits) -> Vetted:
    """Refuse what the operator's lists or the policy's own namespace forbid."""
    rules: list[PolicyRule] = []
    refused = []
    for rule in policy.rules:
        reasons = tuple(reasons_against(policy, rule, limits))
        if reasons:
            refused.append((rule, reasons))
            rule = replace(rule, action=Unsupported(reasons))
        rules.append(rule)
    return Vetted(replace(policy, rules=tuple(rules)), tuple(refused))


def reasons_against(policy: Policy, rule: PolicyRule, limits: Limits) -> Iterator[UnsupportedPart]:
    """Why a rule may not run; nothing for a rule that may."""
    action = rule.action
    if isinstance(action, Unsupported):
        return
    yield from _selects(policy, rule)
    if isinstance(action, Mutation):
        for target in action.targets:
            fields = target.fields.value
            yield from _written(policy, target.place, _kind(fields), fields, limits)
    else:
        for downstream in action.downstreams:
            yield from _downstream(policy, rule, downstream, limits)


def _selects(policy: Policy, rule: PolicyRule) -> Iterator[UnsupportedPart]:
    """A filter without kinds would have every request of the cluster sent to the webhook."""
    for one in rule.match.filters:
        if not one.kinds:
            yield UnsupportedPart(
                one.place, "no kinds are given", "name the kinds that the rule is about"
            )
        for pattern in one.kinds:
            if policy.namespace and pattern.kind in CLUSTER_SCOPED:
                what = f"{pattern.kind} is in no namespace, and a Policy acts in its own only"
                yield UnsupportedPart(one.place, what, "make it a ClusterPolicy")


def _downstream(
    policy: Policy, rule: PolicyRule, downstream: Downstream, limits: Limits
) -> Iterator[UnsupportedPart]:
    target, place = downstream.target.value, downstream.place
    match downstream.source:
        case CloneList(fields):
            kinds = [_listed_kind(str(item)) for item in items(fields.value, "kinds")]
            yield from _read(policy, place, fields.value)
        case Clone(source):
            kinds = [_kind(target)]
            yield from _read(policy, place, source.value)
        case Expressed() | Rendered():
            kinds = sorted(foreseen.written(downstream.source, rule.setting.variables))
        case _:
            kinds = [_kind(target)]
    for kind in kinds:
        yield from _written(policy, place, kind, target, limits)
        if any(_triggers(pattern, kind) for one in rule.match.filters for pattern in one.kinds):
            what = f"a rule that {kind.kind} triggers may not generate {kind.kind}: it would loop"
            yield UnsupportedPart(place, what, "match another kind")


def _triggers(pattern: KindPattern, kind: ObjectKind) -> bool:
    """Whether the rule names this kind; one that matches all kinds may still make some of them."""
    return not has_wildcard(pattern.kind) and kind_matches(pattern, kind)


def _written(
    policy: Policy, place: Place, kind: ObjectKind, target: Value, limits: Limits
) -> Iterator[UnsupportedPart]:
    """Checks limits on what is known already; parts with variables count as allowed."""
    if _open(kind.kind) or _open(kind.api_version):
        return
    namespace = text(target, "namespace")
    if _open(namespace) or (not namespace and kind.kind not in CLUSTER_SCOPED):
        namespace = policy.namespace
    if kind.kind in CLUSTER_SCOPED:
        namespace = ""
    name = text(target, "name")
    key = ObjectKey(kind, namespace, "" if _open(name) else name)
    try:
        check_write(limits, policy.namespace, key)
    except NotAllowed as refusal:
        what, _, fix = str(refusal).partition("; ")
        yield UnsupportedPart(place, what, fix or "choose another namespace")


def _read(policy: Policy, place: Place, source: Value) -> Iterator[UnsupportedPart]:
    namespace = text(source, "namespace")
    if policy.namespace and namespace and not _open(namespace) and namespace != policy.namespace:
        what = f"a Policy of namespace {policy.namespace} may not read namespace {namespace}"
        yield UnsupportedPart(place, what, "make it a ClusterPolicy")


def _kind(target: Value) -> ObjectKind:
    group, version = split_api_version(text(target, "apiVersion"))
    return ObjectKind(group, version, text(target, "kind"))


def _listed_kind(text: str) -> ObjectKind:
    """An item of `cloneList.kinds`: `v1/Secret`."""
    api_version, _, kind = text.rpartition("/")
    return ObjectKind(*split_api_version(api_version or "v1"), kind)


def _open(text: str) -> bool:
    """Whether a text is not known before variables and wildcards are."""
    return any(mark in text for mark in _VARIABLES) or has_wildcard(text)
