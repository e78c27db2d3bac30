"""A cluster made of documents: the lookups of the offline commands, and of tests.

A namespace that objects use but no document declares exists without labels of its own. GETs answer
as an API server would for the objects that are known, in the paths that policies use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    copied,
    labels_of,
    mapping,
    object_key_of,
)
from generators.kyverno.failures import LookupFailed
from generators.kyverno.language import wildcards
from generators.kyverno.model import Document
from generators.manifests.kinds import CLUSTER_SCOPED
from generators.objects import NAME_LABEL

_NAMESPACE = ObjectKind("", "v1", "Namespace")


def as_stored(document: Document) -> Document:
    """An object as the API server keeps it: namespaces know their name, others their namespace."""
    result = copied(document)
    key = object_key_of(result)
    metadata = dict(mapping(result, "metadata"))
    if key.kind == _NAMESPACE:
        metadata["labels"] = {**mapping(metadata, "labels"), NAME_LABEL: key.name}
    elif not key.namespace and key.kind.kind not in CLUSTER_SCOPED:
        metadata["namespace"] = "default"
    result["metadata"] = metadata
    return result


class DocumentCluster:
    """Lookups over documents that do not change."""

    def __init__(
        self,
        documents: Iterable[Document],
        namespace_labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._objects = {object_key_of(document): document for document in documents}
        self._labels = dict(namespace_labels or {})

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace."""
        found = self._objects.get(ObjectKey(_NAMESPACE, "", namespace))
        declared = labels_of(found) if found is not None else {NAME_LABEL: namespace}
        return {**declared, **self._labels.get(namespace, {})}

    def find(self, key: ObjectKey) -> Document | None:
        """One object."""
        return self._objects.get(key)

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        """All objects of a kind."""
        return [
            document
            for key, document in sorted(self._objects.items())
            if wildcards.matches(kind.group, key.kind.group)
            and wildcards.matches(kind.version, key.kind.version)
            and wildcards.matches(kind.kind, key.kind.kind)
            and wildcards.matches(namespace or "*", key.namespace)
        ]

    def get(self, path: str) -> Value:
        """The answer of an API server that has these objects."""
        url = urlsplit(path)
        first, *parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if len(parts) < (2 if first == "api" else 3) or first not in ("api", "apis"):
            raise LookupFailed(f"GET {path}: not known offline; give its value")
        group, version, *rest = parts if first == "apis" else ["", *parts]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            _, namespace, *rest = rest
        plural, name = (*rest, "", "")[:2]
        found = [
            document
            for key, document in sorted(self._objects.items())
            if (key.kind.group, key.kind.version) == (group, version)
            and plural in plurals(key.kind.kind)
            and namespace in ("", key.namespace)
            and name in ("", key.name)
        ]
        if name:
            if not found:
                raise LookupFailed(f"GET {path}: not found; declare the object, or give its value")
            return copied(found[0])
        selector = parse_qs(url.query).get("labelSelector", [""])[0]
        items: list[Value] = [copied(d) for d in found if _selected(selector, labels_of(d))]
        return {"apiVersion": f"{group}/{version}".lstrip("/"), "kind": "List", "items": items}


def plurals(kind: str) -> tuple[str, ...]:
    """Forms of a kind that paths may use."""
    name = kind.lower()
    return (f"{name}s", f"{name}es", f"{name[:-1]}ies")


def _selected(selector: str, labels: Mapping[str, str]) -> bool:
    """`a=b,c!=d,e,!f`; sets are not known here."""
    for part in filter(None, selector.split(",")):
        key, sign, value = part.partition("!=" if "!=" in part else "=")
        if not sign:
            fine = (key.lstrip("!") in labels) is not key.startswith("!")
        else:
            fine = (labels.get(key) == value.lstrip("=")) is (sign == "=")
        if not fine:
            return False
    return True
