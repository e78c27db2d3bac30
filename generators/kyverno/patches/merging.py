"""Strategic merge: a prepared patch laid over an object.

Maps merge and `null` deletes; lists replace, except those that the kind's schema merges by keys or
as sets (`mergekeys.py`). There what the patch lists comes first, and the rest keeps its order.
"""

from __future__ import annotations

from generators.documents.json import Value, copy, equal, text
from generators.kyverno.failures import BadPatch
from generators.kyverno.language.printing import sprint
from generators.kyverno.model import Document
from generators.kyverno.patches.mergekeys import Fields, Listing, fields_of, fields_of_kind

_DIRECTIVE = "$patch"
_NOTHING = Listing()
_Identity = tuple[str, ...]


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
    result: list[Value] = []
    for item in (*first, *more):
        if not any(equal(item, there) for there in result):
            result.append(copy(item))
    return result


def _used(keys: tuple[str, ...], items: tuple[Value, ...]) -> tuple[str, ...]:
    """Of several keys those that any element has: a port without protocol is told by its number."""
    used = tuple(key for key in keys if any(isinstance(i, dict) and key in i for i in items))
    return used or keys


def _merged(
    patch: list[Value], base: list[Value], keys: tuple[str, ...], listing: Listing, name: str
) -> list[Value]:
    result: list[tuple[_Identity, Value]] = [(_identity(item, keys), item) for item in base]
    first: list[_Identity] = []
    for item in patch:
        identity = _identity(item, keys)
        if not any(identity):
            raise BadPatch(f"{name}: an element of this list needs {' or '.join(keys)}")
        at = next((n for n, (there, _) in enumerate(result) if _same(there, identity)), None)
        identity = identity if at is None else _joined(result[at][0], identity)
        if _is_deletion(item):
            if at is not None:
                del result[at]
            continue
        merged = _values(result[at][1] if at is not None else None, item, listing, name)
        if at is None:
            result.append((identity, merged))
        else:
            result[at] = (identity, merged)
        if identity not in first:
            first.append(identity)
    ahead = [item for wanted in first for identity, item in result if identity == wanted]
    return ahead + [item for identity, item in result if identity not in first]


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
