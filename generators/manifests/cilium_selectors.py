"""Selectors of Cilium's policies -> selectors of pods and of namespaces.

Cilium asks for a pod's labels, its namespace, its namespace's labels and its service account by one
list of keys; here each goes to the selector that looks at it. What may surprise: labels of another
source than Kubernetes (`container:app`) are on no pod, so a requirement that they be there selects
nobody and one that they be absent says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from generators.manifests.fields import Cursor
from generators.manifests.metadata import check_label
from generators.objects import (
    NAME_LABEL,
    NOBODY,
    SERVICE_ACCOUNT,
    Operator,
    Peer,
    Requirement,
    Selector,
)
from generators.selectors import holds

_NAMESPACE = "io.kubernetes.pod.namespace"
_NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
_CLUSTER = "io.cilium.k8s.policy.cluster"
_OWN_CLUSTER = {_CLUSTER: "default"}
_OF_CILIUM = "io.cilium."
_KUBERNETES = ("", "any", "k8s")
RESERVED = "reserved"
_ABSENT = (Operator.NOT_IN, Operator.DOES_NOT_EXIST)
_VALUED = (Operator.IN, Operator.NOT_IN)
_NO_NAMESPACE = Selector((Requirement(NAME_LABEL, Operator.DOES_NOT_EXIST),))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a selector asks for."""

    pods: Selector = Selector()
    namespaces: Selector = Selector()
    nobody: bool = False
    """It asks for what no pod can have."""
    reserved: tuple[Requirement, ...] = ()
    """Of labels with the source `reserved`."""


def parse_subject(item: Cursor, namespace: str) -> tuple[Selector, Selector | None]:
    """Pods and their namespaces that an endpointSelector means.

    In a namespaced policy only `namespace` counts: another one in matchLabels is overruled where it
    is written with its source, `k8s:`; else nobody is in both. No pod has a reserved label.
    """
    asked = _asked(item, overruled=bool(namespace))
    if asked.nobody or any(wanted.operator not in _ABSENT for wanted in asked.reserved):
        return Selector(), _NO_NAMESPACE
    if namespace and not asked.namespaces.requirements:
        return asked.pods, None
    return asked.pods, asked.namespaces


def parse_endpoints(item: Cursor, namespace: str) -> Peer | str:
    """One item of fromEndpoints or toEndpoints; the name of an entity where it asks for one."""
    asked = _asked(item)
    if asked.reserved:
        return _entity(item, asked)
    if asked.nobody:
        return NOBODY
    if namespace and not asked.namespaces.requirements:
        return Peer(pod_selector=asked.pods)
    return Peer(pod_selector=asked.pods, namespace_selector=asked.namespaces)


def _entity(item: Cursor, asked: Asked) -> str:
    first = asked.reserved[0]
    alone = len(asked.reserved) == 1 and not asked.pods.requirements
    named = first.operator is Operator.EXISTS or first.values == ("",)
    if not alone or not named or first.operator in _ABSENT or asked.namespaces.requirements:
        item.fail(
            'labels with the source "reserved" are understood alone only, as {reserved:NAME: ""}',
            "name what you mean in fromEntities or toEntities, in a rule of its own",
        )
        return "none"
    return first.key


def parse_plain(item: Cursor) -> Selector:
    """A selector of labels that are not of pods: of Services."""
    found = _requirements(item)
    return _selector([Requirement(key, r.operator, r.values) for _, key, r in found])


def _asked(item: Cursor, *, overruled: bool = False) -> Asked:
    """`overruled`: a namespace of the source k8s in matchLabels says nothing."""
    pods: list[Requirement] = []
    spaces: list[Requirement] = []
    reserved: list[Requirement] = []
    nobody = False
    for source, key, wanted in _requirements(item):
        ask = Requirement(key, wanted.operator, wanted.values)
        if source == RESERVED:
            reserved.append(ask)
        elif source not in _KUBERNETES:
            nobody = nobody or ask.operator not in _ABSENT
        elif key == _NAMESPACE:
            if not (overruled and source == "k8s" and not wanted.key):
                spaces.append(Requirement(NAME_LABEL, ask.operator, ask.values))
        elif key.startswith(_NAMESPACE_LABELS):
            name = key.removeprefix(_NAMESPACE_LABELS)
            spaces.append(Requirement(name, ask.operator, ask.values))
        elif key == _ACCOUNT:
            pods.append(Requirement(SERVICE_ACCOUNT, ask.operator, ask.values))
        elif key == _CLUSTER:
            nobody = nobody or not holds(ask, _OWN_CLUSTER)
        elif key.startswith(_OF_CILIUM):
            nobody = nobody or ask.operator not in _ABSENT
        else:
            pods.append(ask)
    return Asked(_selector(pods), _selector(spaces), nobody, tuple(reserved))


def _selector(requirements: list[Requirement]) -> Selector:
    found = set(requirements)
    return Selector(tuple(sorted(found, key=lambda r: (r.key, r.operator, r.values))))


def _requirements(item: Cursor) -> list[tuple[str, str, Requirement]]:
    """Source, key and requirement of each; the requirement's own key is empty for matchLabels."""
    item.only("matchLabels", "matchExpressions")
    found: list[tuple[str, str, Requirement]] = []
    taken: set[tuple[str, str]] = set()
    labels = item.child("matchLabels")
    for key, at in labels.entries() if labels is not None else ():
        if at.field.value is None:
            continue  # the API server drops nulls
        value = at.text()
        source, name = _key(at, key, value)
        if ("any" if source == "" else source, name) in taken:
            at.fail(f'label "{name}" is asked for twice', f"write {name} or any:{name}, not both")
        taken.add(("any" if source == "" else source, name))
        found.append((source, name, Requirement("", Operator.IN, (value,))))
    for expression in item.children("matchExpressions"):
        requirement = _expression(expression)
        if requirement is not None:
            source, name = _key(expression, requirement.key, "")
            found.append((source, name, requirement))
    return found


def _key(at: Cursor, key: str, value: str) -> tuple[str, str]:
    source, colon, name = key.partition(":")
    source, name = (source, name) if colon else ("", key)
    check_label(at, name, value)
    return source, name


def _expression(item: Cursor) -> Requirement | None:
    item.only("key", "operator", "values")
    if item.field.value is None:
        item.fail("Invalid value: null: must be an object", "remove it")
        return None
    key, text = item.string("key"), item.string("operator")
    values = tuple(sorted({value.text() for value in item.children("values")}))
    if text not in tuple(Operator):
        item.fail(
            f'Unsupported value: "{text}": not a valid selector operator',
            "use In, NotIn, Exists or DoesNotExist",
        )
        return None
    operator = Operator(text)
    if (operator in _VALUED) != bool(values):
        what = "Required value" if operator in _VALUED else "Forbidden"
        fix = "list the values" if operator in _VALUED else "remove the values"
        item.fail(f"values: {what} with operator {text}", fix)
    for value in values:
        check_label(item, key.rpartition(":")[2], value)
    return Requirement(key, operator, values)
