"""What rules will read from outside, known before they run, so that caches are filled in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import TypeVar

from generators.documents.json import ObjectKind, leaves
from generators.kyverno.cel import foreseen
from generators.kyverno.model import (
    ConfigMapEntry,
    Expression,
    Filter,
    Policy,
    PolicyRule,
    Template,
)
from generators.kyverno.variables import has_variable

_ROLES = ("roles", "clusterRoles")
_CONFIG_MAP = ObjectKind("", "v1", "ConfigMap")
_WHO = ("userInfo", "serviceAccountName", "serviceAccountNamespace", *_ROLES)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Usage:
    """What some rules may read. An empty namespace stands for all of them."""

    config_maps: frozenset[str] = frozenset()
    """Namespaces whose ConfigMaps are read."""
    namespaces: bool = False
    """Labels of the namespaces that objects are in."""
    roles: bool = False
    """Which roles the requester has."""


def usage(policies: Iterable[Policy]) -> Usage:
    """What the rules of these policies may read."""
    config_maps: set[str] = set()
    namespaces = roles = False
    for policy in policies:
        for rule in policy.rules:
            config_maps |= {_home(policy, entry) for entry in parts(rule, ConfigMapEntry)}
            config_maps |= {
                policy.namespace or read.namespace
                for read in foreseen.reads(parts(rule, Expression))
                if read.kind == _CONFIG_MAP
            }
            namespaces = namespaces or _mentions_in_cel(rule, ("namespaceObject",))
            filters = tuple(parts(rule, Filter))
            namespaces = namespaces or any(f.namespace_selector is not None for f in filters)
            roles = roles or any(f.roles or f.cluster_roles for f in filters)
            roles = roles or _mentions(rule, _ROLES)
    return Usage(frozenset({""} if "" in config_maps else config_maps), namespaces, roles)


def parts(whole: object, kind: type[_T]) -> Iterator[_T]:
    """Everything of a kind within a rule, such as all its templates."""
    if isinstance(whole, kind):
        yield whole
    elif isinstance(whole, tuple):
        for item in whole:
            yield from parts(item, kind)
    elif is_dataclass(whole) and not isinstance(whole, Template):
        for each in fields(whole):
            yield from parts(getattr(whole, each.name), kind)


def _home(policy: Policy, entry: ConfigMapEntry) -> str:
    if policy.namespace:
        return policy.namespace
    if entry.namespace is None:
        return "default"
    value = entry.namespace.value
    return "" if not isinstance(value, str) or has_variable(value) else value or "default"


def asks_who(rule: PolicyRule) -> bool:
    """Whether a rule wants to know who made the request."""
    asked = any(f.subjects or f.roles or f.cluster_roles for f in parts(rule, Filter))
    return asked or _mentions(rule, _WHO) or _mentions_in_cel(rule, _WHO)


def _mentions_in_cel(rule: PolicyRule, words: tuple[str, ...]) -> bool:
    return any(word in each.text for each in parts(rule, Expression) for word in words)


def _mentions(rule: PolicyRule, words: tuple[str, ...]) -> bool:
    texts = (
        item
        for template in parts(rule, Template)
        for _, item in leaves(template.value)
        if isinstance(item, str) and has_variable(item)
    )
    return any(word in item for item in texts for word in words)
