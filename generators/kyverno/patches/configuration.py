"""ApplyConfiguration: an expression's object is merged into another, as by the API server.

Maps merge; lists with keys merge by them, where new elements come last; sets are united. Lists and
maps that are one value to the API server (`args`, a selector) are refused, as upstream refuses
them, unless the policy wants server-side apply: then they are replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from generators.documents.json import Value, copy, text
from generators.kyverno.cel.values import CelValue, Message
from generators.kyverno.failures import BadPatch
from generators.kyverno.model import Document
from generators.kyverno.patches.mergekeys import Fields, Listing, fields_of, fields_of_kind

_ONE_VALUE = frozenset(
    (
        *("nodeSelector", "selector", "labelSelector", "namespaceSelector", "objectSelector"),
        *("podSelector", "configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"),
        *("roleRef", "targetRef", "claimRef", "involvedObject", "scopeSelector", "dataSource"),
    )
)
"""Maps that the API server's schema calls atomic."""
_NOTHING = Listing()


@dataclass(frozen=True, slots=True)
class _Merge:
    whole: bool

    def maps(self, base: Value, patch: Document, fields: Fields, path: str) -> Document:
        result = dict(base) if isinstance(base, dict) else {}
        for key, value in patch.items():
            below = f"{path}.{key}"
            result[key] = self.value(result.get(key), value, fields.get(key, _NOTHING), below)
        return result

    def value(self, base: Value, patch: Value, listing: Listing, path: str) -> Value:
        name = path.rpartition(".")[2]
        if isinstance(patch, dict) and name not in _ONE_VALUE:
            return self.maps(base, patch, fields_of(listing.of), path)
        if isinstance(patch, list) and listing.keys is not None:
            return self.lists(base if isinstance(base, list) else [], patch, listing, path)
        if isinstance(patch, dict | list) and not self.whole:
            raise BadPatch(
                f"may not mutate atomic arrays, maps or structs: {path}; use a JSONPatch, "
                "or set evaluation.useServerSideApply"
            )
        return copy(patch)

    def lists(
        self, base: list[Value], patch: list[Value], listing: Listing, path: str
    ) -> list[Value]:
        keys = listing.keys or ()
        if not keys:
            return [*base, *(item for item in patch if item not in base)]
        result = list(base)
        for item in patch:
            if not isinstance(item, dict):
                raise BadPatch(f"{path}: elements of this list must be maps")
            there = next((n for n, held in enumerate(result) if _same(held, item, keys)), None)
            fields = fields_of(listing.of)
            if there is None:
                result.append(self.maps({}, item, fields, path))
            else:
                result[there] = self.maps(result[there], item, fields, path)
        return result


_DEFAULTS = {"protocol": "TCP"}


def _same(held: Value, item: Document, keys: tuple[str, ...]) -> bool:
    if not isinstance(held, dict):
        return False
    return all(held.get(k, _DEFAULTS.get(k)) == item.get(k, _DEFAULTS.get(k)) for k in keys)


def apply_configuration(document: Document, patch: Document, whole: bool) -> Document:
    """The object with the patch merged into it; BadPatch for what may not be merged."""
    fields = fields_of_kind(text(document, "apiVersion"), text(document, "kind"))
    patch = {k: v for k, v in patch.items() if k not in ("apiVersion", "kind")}
    merge = _Merge(whole)
    result = dict(document)
    for key, value in patch.items():
        result[key] = merge.value(result.get(key), value, fields.get(key, _NOTHING), key)
    return result


def check_names(value: CelValue, name: str) -> None:
    """BadPatch where `Object.spec{}` stands in another field than spec."""
    if isinstance(value, Message) and value.name != name:
        raise BadPatch(f"type mismatch: {value.name}{{}} stands where {name}{{}} belongs")
    if isinstance(value, dict):
        for key, item in value.items():
            check_names(item, f"{name}.{key}")
    elif isinstance(value, list):
        for item in value:
            check_names(item, name)
