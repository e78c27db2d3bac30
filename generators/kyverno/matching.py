"""Does a rule's `match` and `exclude` select a request? The answer is a reason, empty for yes.

Inside one filter everything that is given must hold; of a list one item is enough. `exclude` is
evaluated only after `match` succeeded. For kind Namespace the `namespaces` list is compared with
the namespace's own name, and its `namespaceSelector` never matches.
"""

from __future__ import annotations

from collections.abc import Mapping

from generators.documents.json import ObjectKind, as_text, items, labels_of, strings, text
from generators.kyverno.failures import BadPatch
from generators.kyverno.language import wildcards
from generators.kyverno.model import (
    Combine,
    Document,
    Filter,
    KindPattern,
    Match,
    Operation,
    PolicyRule,
    SelectorPattern,
    Subject,
)
from generators.kyverno.requests import Asker, Lookups, PolicyRequest
from generators.manifests.kinds import CLUSTER_SCOPED, plural_of
from generators.objects import Operator, Requirement, Selector
from generators.selectors import first_unmet, labels_selector, matches, requirement_text

_DEFAULT_OPERATIONS = frozenset({Operation.CREATE, Operation.UPDATE})
_NEVER = "0"
"""What upstream puts in place of a wildcard that no label fits."""


def mismatch(rule: PolicyRule, namespace: str, request: PolicyRequest, lookups: Lookups) -> str:
    """Why the rule does not apply to the request; `namespace` is that of a namespaced Policy."""
    if namespace and request.key.namespace != namespace:
        return f"the Policy acts in namespace {namespace} only"
    if request.own and rule.skip_background:
        return "the request is Ringfence's own"
    why = _unmatched(rule.match, request, lookups, excluding=False)
    if why or rule.exclude is None or not rule.exclude.filters:
        return why
    if not _unmatched(rule.exclude, request, lookups, excluding=True):
        return f"excluded by {rule.exclude.filters[0].place.path}"
    return ""


def _unmatched(block: Match, request: PolicyRequest, lookups: Lookups, *, excluding: bool) -> str:
    reasons = []
    for one in block.filters:
        why = filter_mismatch(one, request, lookups, excluding=excluding)
        if block.combine is Combine.ANY and not why:
            return ""
        if block.combine is Combine.ALL and why:
            return why
        reasons.append(why)
    return "; ".join(reasons) if block.combine is Combine.ANY else ""


def filter_mismatch(
    one: Filter, request: PolicyRequest, lookups: Lookups, *, excluding: bool = False
) -> str:
    """The first thing of a filter that does not hold."""
    operations = one.operations
    if operations is None and not excluding:
        operations = _DEFAULT_OPERATIONS
    if operations is not None and request.operation not in operations:
        return f"operation {request.operation} is not among {', '.join(sorted(operations))}"
    return (
        _resource_mismatch(one, request)
        or _labels_mismatch(one, request, lookups)
        or _requester_mismatch(one, request.requester, excluding=excluding)
    )


def _resource_mismatch(one: Filter, request: PolicyRequest) -> str:
    key = request.key
    if one.kinds and not any(kind_matches(k, key.kind, request.subresource) for k in one.kinds):
        return f"kind {key.kind.kind} is not among {', '.join(map(_kind_text, one.kinds))}"
    if one.name and not wildcards.matches(one.name, key.name):
        return f"name {key.name} does not fit {one.name}"
    if one.names and not any(wildcards.matches(n, key.name) for n in one.names):
        return f"name {key.name} fits none of {', '.join(one.names)}"
    home = key.name if key.kind.kind == "Namespace" else key.namespace
    if one.namespaces and not any(wildcards.matches(n, home) for n in one.namespaces):
        return f"namespace {home or '(none)'} fits none of {', '.join(one.namespaces)}"
    for name, value in one.annotations.items():
        if not _any_pair(name, value, request.annotations):
            return f"no annotation fits {name}: {value}"
    return ""


def _labels_mismatch(one: Filter, request: PolicyRequest, lookups: Lookups) -> str:
    key = request.key
    if one.selector is not None and (why := selector_mismatch(one.selector, request.labels)):
        before = labels_of(request.old)
        if not (one.as_admission and request.old and not selector_mismatch(one.selector, before)):
            return f"its labels do not fit {why}"
    if one.namespace_selector is None:
        return ""
    if one.as_admission and key.kind.kind == "Namespace":
        why = selector_mismatch(one.namespace_selector, request.labels)
        return f"its labels do not fit {why}" if why else ""
    if one.as_admission and not key.namespace:
        return ""
    if key.kind.kind == "Namespace":
        return "a namespaceSelector never selects a Namespace; use selector"
    if key.kind.kind in CLUSTER_SCOPED or not key.namespace:
        return f"{key.kind.kind} is in no namespace, which namespaceSelector asks for"
    labels = lookups.namespace_labels(key.namespace)
    if why := selector_mismatch(one.namespace_selector, labels):
        return f"the labels of namespace {key.namespace} do not fit {why}"
    return ""


def _requester_mismatch(one: Filter, requester: Asker | None, *, excluding: bool) -> str:
    asked = bool(one.subjects or one.roles or one.cluster_roles)
    if not asked:
        return ""
    if requester is None and not excluding and not _only_users(one):
        return ""
    if requester is None:
        return "the requester is not known here"
    if one.roles and not _any_fits(one.roles, requester.roles):
        return f"the requester has none of the roles {', '.join(one.roles)}"
    if one.cluster_roles and not _any_fits(one.cluster_roles, requester.cluster_roles):
        return f"the requester has none of the clusterRoles {', '.join(one.cluster_roles)}"
    if one.subjects and not any(_is_subject(s, requester) for s in one.subjects):
        return f"{requester.username or 'the requester'} is none of the subjects"
    return ""


def _only_users(one: Filter) -> bool:
    """Whether nothing would be left of the filter in background work, which has no requester."""
    return not (
        one.kinds
        or one.name
        or one.names
        or one.namespaces
        or one.annotations
        or one.selector
        or one.namespace_selector
        or one.operations
    )


def _any_fits(wanted: tuple[str, ...], given: tuple[str, ...]) -> bool:
    return any(wildcards.matches(pattern, name) for pattern in wanted for name in given)


def _is_subject(subject: Subject, requester: Asker) -> bool:
    match subject.kind:
        case "ServiceAccount":
            namespace, name = requester.account
            return bool(name) and (
                wildcards.matches(subject.namespace or "*", namespace)
                and wildcards.matches(subject.name, name)
            )
        case "Group":
            return any(wildcards.matches(subject.name, group) for group in requester.groups)
        case _:
            return wildcards.matches(subject.name, requester.username)


def kind_matches(pattern: KindPattern, kind: ObjectKind, subresource: str = "") -> bool:
    """Whether `kinds` names this kind; `Pod` also stands for its ephemeral containers."""
    if not (
        wildcards.matches(pattern.group, kind.group)
        and wildcards.matches(pattern.version, kind.version)
        and names_kind(pattern, kind.kind)
    ):
        return False
    if subresource == "ephemeralcontainers" and kind.kind == "Pod" and not pattern.subresource:
        return True
    return wildcards.matches(pattern.subresource, subresource)


def names_kind(pattern: KindPattern, kind: str) -> bool:
    """Whether a pattern names a kind, of whatever group and version."""
    if pattern.plural:
        return wildcards.matches(pattern.plural, plural_of(kind))
    return wildcards.matches(pattern.kind, kind)


def _kind_text(pattern: KindPattern) -> str:
    parts = [p for p in (pattern.group, pattern.version) if p not in ("*", "")]
    sub = [pattern.subresource] if pattern.subresource else []
    return "/".join((*parts, pattern.shown, *sub))


def _any_pair(key: str, value: str, given: Mapping[str, str]) -> bool:
    return any(
        wildcards.matches(key, name) and wildcards.matches(value, held)
        for name, held in given.items()
    )


def expanded(pattern: SelectorPattern, labels: Mapping[str, str]) -> Selector:
    """The selector with its wildcards replaced by labels that the object has."""
    exact: dict[str, str] = {}
    for key, value in pattern.labels.items():
        fitting = [k for k in sorted(labels) if wildcards.matches(key, k)]
        both = [k for k in fitting if wildcards.matches(value, labels[k])]
        found = next(iter(both or fitting), None)
        if not wildcards.has_wildcard(key):
            found = key
        name = found if found is not None else key.replace("*", _NEVER).replace("?", _NEVER)
        exact[name] = _expanded_value(value, labels.get(name))
    return Selector((*labels_selector(exact).requirements, *pattern.requirements))


def _expanded_value(pattern: str, given: str | None) -> str:
    if not wildcards.has_wildcard(pattern):
        return pattern
    if given is not None and wildcards.matches(pattern, given):
        return given
    return pattern.replace("*", _NEVER).replace("?", _NEVER)


def selector_mismatch(pattern: SelectorPattern, labels: Mapping[str, str]) -> str:
    """The requirement that the labels do not meet, as people write it; empty when all are met."""
    selector = expanded(pattern, labels)
    if matches(selector, labels):
        return ""
    for key, value in pattern.labels.items():
        if not _any_pair(key, value, labels):
            return requirement_text(Requirement(key, Operator.IN, (value,)))
    unmet = first_unmet(selector, labels)
    return requirement_text(unmet) if unmet is not None else ""


def selector_pattern(given: Document) -> SelectorPattern:
    """A selector whose variables are filled in."""
    requirements = []
    for item in items(given, "matchExpressions"):
        word = text(item, "operator")
        operator = next((o for o in Operator if o.value == word), None)
        if operator is None:
            raise BadPatch(f"selector operator {word!r:.40} is unknown")
        texts = tuple(as_text(value) for value in items(item, "values"))
        requirements.append(Requirement(text(item, "key"), operator, texts))
    return SelectorPattern(strings(given.get("matchLabels")), tuple(requirements))
