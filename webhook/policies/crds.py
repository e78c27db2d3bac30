"""The kinds ClusterPolicy and Policy for a cluster that has no Kyverno: made when they are missing.

Only with `--install-policy-crds`, only by the leader, and never over existing ones: their creator
owns them. They are never deleted, because that would delete every policy. The schema is ours and
says little: policies are judged by the parser, which names file, line and fix.
"""

from __future__ import annotations

from generators.documents.json import Document
from generators.kube.resources import CLUSTER_POLICIES, POLICIES, Resource
from generators.kyverno.parsing import API_VERSIONS
from webhook.definitions import definition, version

_SHORT = {CLUSTER_POLICIES: "cpol", POLICIES: "pol"}
_SINGULAR = {CLUSTER_POLICIES: "clusterpolicy", POLICIES: "policy"}
_READY = '.status.conditions[?(@.type=="Ready")]'
_ANYTHING: Document = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_SCHEMA: Document = {
    "type": "object",
    "required": ["spec"],
    "properties": {"spec": _ANYTHING, "status": _ANYTHING},
}
_COLUMNS = (
    ("ADMISSION", "boolean", ".spec.admission"),
    ("BACKGROUND", "boolean", ".spec.background"),
    ("READY", "string", f"{_READY}.status"),
    ("AGE", "date", ".metadata.creationTimestamp"),
    ("MESSAGE", "string", f"{_READY}.message"),
)


def documents() -> tuple[Document, ...]:
    """Both CustomResourceDefinitions."""
    return tuple(_definition(resource) for resource in (CLUSTER_POLICIES, POLICIES))


def _definition(resource: Resource) -> Document:
    names = {
        "singular": _SINGULAR[resource],
        "shortNames": [_SHORT[resource]],
        "categories": ["kyverno"],
    }
    versions = [
        version(each.partition("/")[2], resource, _COLUMNS, _SCHEMA) for each in API_VERSIONS
    ]
    return definition(resource, names, versions)
