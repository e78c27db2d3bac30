"""Strategic merge: a prepared patch laid over an object.

Maps merge and `null` deletes; lists replace, except those that the kind's schema merges by keys or
as sets (`mergekeys.py`). There what the patch lists comes first, and the rest keeps its order.
"""

from __future__ import annotations

from generators.documents.json import Value, copy, text
from generators.kyverno.failures import BadPatch
from generators.kyverno.language.printing import as_json, sprint
from generators.kyverno.model import Document
from generators.kyverno.patches.mergekeys import Fields, Listing, fields_of, fields_of_kind

_DIRECTIVE = "$patch"
_NOTHING = Listing()
_Identity = tuple[str, ...]
MAX_COMPARED = 1_000_000
"""Pairs of elements that two keys tell apart; far beyond the ports of anything."""


def merge(document: Document, patch: Document) -> Document:
    """The object with the patch laid over it; BadPatch where the two have different shapes."""
    fields = fields_of_kind(text(document, "apiVersion"), text(document, "kind"))
    return _maps(document, patch, fields)


def _maps(base: Document, patch: Document, fields: Fields) -> Document:
    directive = patch.get(_DIRECTIVE)
    if directive is not None and directive not in ("replace", "delete", "merge"):
        raise BadPatch(f"$patch: {directive!r:.40} is none of replace, delete, merge")
    if directive == "delete":
        return {}
    result = {} if directive == "replace" else dict(base)
    for key, value in patch.items():
        if key == _DIRECTIVE:
            continue
        if value is None or _is_deletion(value):
            result.pop(key, None)
        else:
            result[key] = _values(result.get(key), value, fields.get(key, _NOTHING), key)
    return result


def _is_deletion(value: Value) -> bool:
    return isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"


def _values(base: Value, patch: Value, listing: Listing, name: str) -> Value:
    if base is not None and _shape(base) != _shape(patch):
        raise BadPatch(f"{name}: the patch has a {_shape(patch)} where a {_shape(base)} is")
    if isinstance(patch, dict):
        return _maps(base if isinstance(base, dict) else {}, patch, fields_of(listing.of))
    if isinstance(patch, list) and listing.keys is not None:
        return _lists(base if isinstance(base, list) else [], patch, listing, name)
    return copy(patch)


def _shape(value: Value) -> str:
    if isinstance(value, dict):
        return "map"
    return "list" if isinstance(value, list) else "plain value"


def _lists(base: list[Value], patch: list[Value], listing: Listing, name: str) -> list[Value]:
    directive = _list_directive(patch)
    if directive == "delete":
        return []
    items = [item for item in patch if not _is_directive(item)]
    if directive == "replace":
        base = []
    keys = listing.keys or ()
    if any(isinstance(item, dict) is not bool(keys) for item in items):
        raise BadPatch(f"{name}: elements of this list must be {'maps' if keys else 'texts'}")
    if not keys:
        return _united(items, base)
    return _merged(items, base, _used(keys, (*items, *base)), listing, name)


def _is_directive(item: Value) -> bool:
    return isinstance(item, dict) and item.keys() == {_DIRECTIVE}


def _list_directive(patch: list[Value]) -> str:
    found = [item for item in patch if _is_directive(item)]
    return text(found[0], _DIRECTIVE) if found else "merge"


def _united(first: list[Value], more: list[Value]) -> list[Value]:
    """Each text once, in the order in which they come first."""
    return [*{as_json(item): item for item in (*first, *more)}.values()]


def _used(keys: tuple[str, ...], items: tuple[Value, ...]) -> tuple[str, ...]:
    """Of several keys those that any element has: a port without protocol is told by its number."""
    used = tuple(key for key in keys if any(isinstance(i, dict) and key in i for i in items))
    return used or keys


def _merged(
    patch: list[Value], base: list[Value], keys: tuple[str, ...], listing: Listing, name: str
) -> list[Value]:
    if len(keys) > 1 and len(patch) * len(base) > MAX_COMPARED:
        raise BadPatch(f"{name}: lists of {len(base)} and {len(patch)} elements are too long")
    held: dict[_Identity, Value] = {_identity(item, keys): item for item in base}
    unnamed = [item for item in base if not any(_identity(item, keys))]
    first: dict[_Identity, Value] = {}
    for item in patch:
        identity = _identity(item, keys)
        if not any(identity):
            raise BadPatch(f"{name}: an element of this list needs {' or '.join(keys)}")
        there = _there(identity, held, first)
        before = first.pop(there, held.pop(there, None)) if there is not None else None
        if not _is_deletion(item):
            identity = identity if there is None else _joined(there, identity)
            first[identity] = _values(before, item, listing, name)
    return [*first.values(), *(v for k, v in held.items() if any(k)), *unnamed]


def _there(identity: _Identity, *held: dict[_Identity, Value]) -> _Identity | None:
    """Under which identity an element is held already."""
    if any(identity in one for one in held):
        return identity
    if len(identity) == 1:
        return None
    return next((key for one in held for key in one if _same(key, identity)), None)


def _identity(item: Value, keys: tuple[str, ...]) -> _Identity:
    held = item if isinstance(item, dict) else {}
    if any(isinstance(held.get(key), dict | list) for key in keys):
        raise BadPatch(f"merge key {' and '.join(keys)} must be a plain value")
    return tuple("" if held.get(key) is None else sprint(held[key]) for key in keys)


def _same(one: _Identity, other: _Identity) -> bool:
    """Equal where both say something, and at least one key is equal."""
    pairs = list(zip(one, other, strict=True))
    return any(a == b for a, b in pairs) and all(a == b or not a or not b for a, b in pairs)


def _joined(one: _Identity, other: _Identity) -> _Identity:
    return tuple(a or b for a, b in zip(one, other, strict=True))
