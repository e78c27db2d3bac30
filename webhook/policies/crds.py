"""The kinds ClusterPolicy and Policy for a cluster that has no Kyverno: made when they are missing.

Only with `--install-policy-crds`, only by the leader, and never over existing ones: their creator
owns them. They are never deleted, because that would delete every policy. The schema is ours and
says little: policies are judged by the parser, which names file, line and fix.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from generators.documents.json import Document
from generators.kube.client import Client
from generators.kube.errors import AlreadyExists, NotFound
from generators.kube.resources import CLUSTER_POLICIES, CUSTOM_RESOURCES, POLICIES, Resource
from generators.kyverno.parsing import API_VERSIONS
from generators.labels import MANAGED_BY, MANAGER
from generators.process.logs import event
from webhook.settings import FIELD_MANAGER

LOG = logging.getLogger("ringfence.controller")
LOOK_SECONDS = 10.0
_SHORT = {CLUSTER_POLICIES: "cpol", POLICIES: "pol"}
_SINGULAR = {CLUSTER_POLICIES: "clusterpolicy", POLICIES: "policy"}
_READY = '.status.conditions[?(@.type=="Ready")]'
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
    return {
        "apiVersion": CUSTOM_RESOURCES.api_version,
        "kind": CUSTOM_RESOURCES.kind,
        "metadata": {"name": str(resource), "labels": {MANAGED_BY: MANAGER}},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": _SINGULAR[resource],
                "shortNames": [_SHORT[resource]],
                "categories": ["kyverno"],
            },
            "versions": [_version(each.partition("/")[2], resource) for each in API_VERSIONS],
        },
    }


def _version(name: str, resource: Resource) -> Document:
    anything: Document = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "name": name,
        "served": True,
        "storage": name == resource.version,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": title, "type": kind, "jsonPath": path} for title, kind, path in _COLUMNS
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "required": ["spec"],
                "properties": {"spec": anything, "status": anything},
            }
        },
    }


class PolicyKinds:
    """Sees to it that kinds exist; one thread calls it, while it leads."""

    def __init__(self, client: Client, definitions: Iterable[Document]) -> None:
        self._client = client
        self._definitions = tuple(definitions)
        self._due = 0.0

    def step(self) -> None:
        """Make what is missing; looks every few seconds."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + LOOK_SECONDS
        for document in self._definitions:
            self._install(document)

    def _install(self, document: Document) -> None:
        meta = document["metadata"]
        name = str(meta["name"]) if isinstance(meta, dict) else ""
        try:
            self._client.get(CUSTOM_RESOURCES, name)
        except NotFound:
            pass
        else:
            return
        try:
            self._client.create(CUSTOM_RESOURCES, document, manager=FIELD_MANAGER)
        except AlreadyExists:
            return
        event(LOG, "policy_kind_installed", kind=name)
