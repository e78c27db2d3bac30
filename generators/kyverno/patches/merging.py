"""Strategic merge: a prepared patch laid over an object.

Maps merge and `null` deletes; lists replace, except lists of maps that Kubernetes merges by a key.
There, elements with the same key merge, and what the patch lists comes first, as kustomize has it.
The table is small on purpose: what tenants' namespaces hold, and pods.
"""

from __future__ import annotations

from generators.documents.json import Value, copy
from generators.kyverno.failures import BadPatch
from generators.kyverno.model import Document

MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "secrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Name of the list -> keys, the first that all elements have. `ports` of a NetworkPolicy have
neither a container's nor, in every element, a Service's way of merging: see `_merge_key`."""

_ATOMIC_PARENTS = frozenset({"ingress", "egress"})
_DIRECTIVE = "$patch"


def merge(document: Document, patch: Document) -> Document:
    """The object with the patch laid over it."""
    return _merge_maps(document, patch, ())


def _merge_maps(base: Document, patch: Document, path: tuple[str, ...]) -> Document:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return _cleaned({k: v for k, v in patch.items() if k != _DIRECTIVE})
    if directive == "delete":
        return {}
    result = dict(base)
    for key, value in patch.items():
        if key == _DIRECTIVE:
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_values(result.get(key), value, (*path, key))
    return result


def _merge_values(base: Value, patch: Value, path: tuple[str, ...]) -> Value:
    if isinstance(patch, dict):
        return _merge_maps(base if isinstance(base, dict) else {}, patch, path)
    if isinstance(patch, list) and isinstance(base, list):
        key = _merge_key(base, patch, path)
        if key:
            return _merge_lists(base, patch, key, path)
    return _cleaned_value(patch)


def _merge_key(base: list[Value], patch: list[Value], path: tuple[str, ...]) -> str:
    """The key by which two lists merge; empty when the patch replaces the list."""
    if _ATOMIC_PARENTS & set(path) or not patch:
        return ""
    for key in MERGE_KEYS.get(path[-1], ()):
        if all(isinstance(item, dict) and key in item for item in (*base, *patch)):
            return key
    return ""


def _merge_lists(
    base: list[Value], patch: list[Value], key: str, path: tuple[str, ...]
) -> list[Value]:
    present = {_key(item, key): item for item in base}
    result: list[Value] = []
    seen: set[str] = set()
    for item in patch:
        name = _key(item, key)
        if name in seen:
            result = [_merge_values(r, item, path) if _key(r, key) == name else r for r in result]
            continue
        seen.add(name)
        if isinstance(item, dict) and item.get(_DIRECTIVE) == "delete":
            continue
        result.append(_merge_values(present.get(name), item, path))
    return result + [item for item in base if _key(item, key) not in seen]


def _key(item: Value, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if isinstance(value, dict | list):
        raise BadPatch(f"merge key {key} must be a plain value")
    return repr(value)


def _cleaned(value: Document) -> Document:
    """A patch that meets nothing: its nulls delete nothing."""
    return {key: _cleaned_value(item) for key, item in value.items() if item is not None}


def _cleaned_value(value: Value) -> Value:
    if isinstance(value, dict):
        return _cleaned(value)
    return copy(value)
