"""`metadata` of any object, with the checks that the API server makes before it looks at a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from generators.manifests import names
from generators.manifests.fields import Cursor

DEFAULT_NAMESPACE = "default"
_FIX_NAME = "rename it"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What every kind has in common."""

    name: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    created: str = ""
    terminating: bool = False


def parse_metadata(root: Cursor, check_name: Callable[[str], str | None]) -> Metadata:
    """The metadata of an object; objects without a namespace are in `default`, as with kubectl."""
    meta = root.child("metadata")
    if meta is None:
        root.report.add(root.line, "metadata", "Required value", "give the object a name")
        return Metadata()
    return Metadata(
        name=_name(meta, "name", check_name),
        namespace=_name(meta, "namespace", names.dns_label) or DEFAULT_NAMESPACE,
        labels=parse_labels(meta.child("labels")),
        annotations=_strings(meta.child("annotations")),
        uid=meta.string("uid"),
        created=meta.string("creationTimestamp"),
        terminating=meta.child("deletionTimestamp") is not None,
    )


def _name(meta: Cursor, key: str, check: Callable[[str], str | None]) -> str:
    field = meta.child(key)
    if field is None or field.field.text == "":
        if key == "name":
            meta.report.add(meta.line, "metadata.name", "Required value", "give the object a name")
        return ""
    text = field.source_text()
    if (wrong := check(text)) is not None:
        field.fail(f'Invalid value: "{text}": {wrong}', _FIX_NAME)
    return text


def _strings(mapping: Cursor | None) -> dict[str, str]:
    if mapping is None:
        return {}
    return {
        key: "" if value.field.value is None else value.text() for key, value in mapping.entries()
    }


def parse_labels(mapping: Cursor | None) -> dict[str, str]:
    """Labels; a value that YAML does not read as a string is refused, as the API server does."""
    labels = _strings(mapping)
    if mapping is not None:
        for key, value in mapping.entries():
            check_label(value, key, labels[key])
    return labels


def check_label(at: Cursor, key: str, value: str) -> None:
    """Report a key or value that no label may have."""
    if (wrong := names.label_key(key)) is not None:
        at.fail(f'Invalid value: "{key}": {wrong}', "use a valid label key")
    if (wrong := names.label_value(value)) is not None:
        at.fail(f'Invalid value: "{value}": {wrong}', "use a valid label value")
