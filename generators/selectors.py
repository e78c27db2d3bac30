"""Label selectors: whether labels match, and the selector as people write it.

Used by every engine that decides on labels. Note what an absent key means:

    operator       key present, value listed   present, not listed   absent
    In             yes                         no                    no
    NotIn          no                          yes                   yes
    Exists         yes                         yes                   no
    DoesNotExist   no                          no                    yes
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from generators.objects import (
    SERVICE_ACCOUNT,
    Labels,
    NetworkPolicy,
    Operator,
    Pod,
    Requirement,
    Selector,
)

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!\s*)?(?P<only>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|(?P<member>{_KEY})\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\))\s*"
)
_COMMA = re.compile(r",(?![^(]*\))")


class BadSelector(ValueError):
    """A text that is no label selector; the message says which part, and what would be."""


def parse(text: str) -> Selector:
    """What `kubectl -l` takes: `app=web,tier!=db,env in (a,b),!old`; BadSelector otherwise."""
    found = []
    for part in _COMMA.split(text):
        term = _TERM.fullmatch(part)
        if term is None:
            raise BadSelector(
                f'"{part.strip()}" is no label selector; write KEY=VALUE, KEY!=VALUE, '
                "KEY in (A,B), KEY or !KEY, with commas between"
            )
        found.append(_requirement(term))
    return Selector(tuple(found))


def _requirement(term: re.Match[str]) -> Requirement:
    if term["only"]:
        operator = Operator.DOES_NOT_EXIST if term["absent"] else Operator.EXISTS
        return Requirement(term["only"], operator)
    if term["key"]:
        operator = Operator.NOT_IN if term["sign"] == "!=" else Operator.IN
        return Requirement(term["key"], operator, (term["value"],))
    values = tuple(value.strip() for value in term["values"].split(","))
    operator = Operator.IN if term["word"] == "in" else Operator.NOT_IN
    return Requirement(term["member"], operator, values)


def labels_selector(labels: Mapping[str, str]) -> Selector:
    """The selector that `matchLabels: labels` is."""
    return Selector(tuple(Requirement(k, Operator.IN, (v,)) for k, v in sorted(labels.items())))


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy one requirement."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value is None or value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy every requirement; an empty selector matches everything."""
    return all(holds(requirement, labels) for requirement in selector.requirements)


def matches_pod(selector: Selector, labels: Labels, account: str) -> bool:
    """The same for a pod, which may be asked for its service account as well."""
    return all(
        holds(r, labels if r.key != SERVICE_ACCOUNT else {SERVICE_ACCOUNT: account})
        for r in selector.requirements
    )


def selects(policy: NetworkPolicy, pod: Pod, namespace_labels: Labels) -> bool:
    """Whether a pod is subject to a policy; `namespace_labels` are those of the pod's namespace."""
    if policy.namespace not in ("", pod.namespace):
        return False
    if policy.namespace_selector is not None and not matches(
        policy.namespace_selector, namespace_labels
    ):
        return False
    return matches_pod(policy.pod_selector, pod.labels, pod.service_account)


def first_unmet(selector: Selector, labels: Mapping[str, str]) -> Requirement | None:
    """The first requirement that the labels do not satisfy, for explanations."""
    return next((r for r in selector.requirements if not holds(r, labels)), None)


def requirement_text(requirement: Requirement) -> str:
    """One requirement as kubectl's `-l` takes it."""
    key, values = requirement.key, ",".join(requirement.values)
    match requirement.operator:
        case Operator.IN if len(requirement.values) == 1:
            return f"{key}={values}"
        case Operator.IN:
            return f"{key} in ({values})"
        case Operator.NOT_IN if len(requirement.values) == 1:
            return f"{key}!={values}"
        case Operator.NOT_IN:
            return f"{key} notin ({values})"
        case Operator.EXISTS:
            return key
        case Operator.DOES_NOT_EXIST:
            return f"!{key}"


def text(selector: Selector) -> str:
    """A selector as kubectl's `-l` takes it; the empty one as `<all>`."""
    return ",".join(requirement_text(r) for r in selector.requirements) or "<all>"
