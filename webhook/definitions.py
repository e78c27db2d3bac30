"""CustomResourceDefinitions of kinds that others own: made where they are missing, never changed.

Only the leader makes them, and never over existing ones: their creator owns them. They are never
deleted, because that would delete every object.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from generators.documents.json import Document
from generators.kube.client import Client
from generators.kube.errors import AlreadyExists, NotFound
from generators.kube.resources import CUSTOM_RESOURCES, Resource
from generators.labels import MANAGED_BY, MANAGER
from generators.process.logs import event
from webhook.settings import FIELD_MANAGER

LOG = logging.getLogger("ringfence.controller")
LOOK_SECONDS = 10.0
Column = tuple[str, str, str]
"""Title, type and path of what `kubectl get` prints."""


def definition(
    resource: Resource, names: Mapping[str, object], versions: Sequence[Document]
) -> Document:
    """The definition of a kind; `names`: its further names."""
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
                **names,
            },
            "versions": list(versions),
        },
    }


def version(name: str, resource: Resource, columns: Iterable[Column], schema: Document) -> Document:
    """A version of a kind, with its status apart; that of `resource` is stored."""
    return {
        "name": name,
        "served": True,
        "storage": name == resource.version,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": title, "type": kind, "jsonPath": path} for title, kind, path in columns
        ],
        "schema": {"openAPIV3Schema": schema},
    }


class MissingKinds:
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
