"""Objects that the controller keeps in its own namespace: one way to read and write them, one
table of their names.

Each holds strings under `data`. A write replaces what was read: Conflict if it changed since, and
nothing is sent if it is the same already. `ours` decides which objects may be overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from generators.documents.json import Document, meta_of, resource_version_of, strings, text
from generators.isolation.record import RECORD_PREFIX, SHARDS
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.resources import CONFIG_MAPS, SECRETS, Resource
from generators.labels import MANAGED_BY, MANAGER
from generators.tenants.packed import GUARD_NAME
from webhook.settings import FIELD_MANAGER

STATUS_NAME = "ringfence-status"
ALLOWED_KINDS = "allowedKinds"
"""Its field with the values of `--allow-kind`, which the webhook reads."""
MEMORY_NAME = "ringfence-policies"
SECRET_NAME = "ringfence-webhook-certificates"  # noqa: S105 - a name, not a secret


@dataclass(frozen=True, slots=True)
class KeptNames:
    """Objects of one purpose, by resource and names."""

    resource: Resource
    names: tuple[str, ...]
    why: str


KEPT = (
    KeptNames(CONFIG_MAPS, (STATUS_NAME, GUARD_NAME), "status, guard"),
    KeptNames(SECRETS, (SECRET_NAME,), "certificates of the webhook"),
)
"""What serves this installation and goes with it."""
REMEMBERED = (
    KeptNames(
        CONFIG_MAPS,
        (*(RECORD_PREFIX + name for name in SHARDS), MEMORY_NAME),
        "record of tenants, memory of policies",
    ),
)
"""What a later install would continue from: owners of namespaces, what policies made once."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the API server has of a kept object; without a version it does not exist."""

    version: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    ours: bool = True
    """It is marked as this controller's, or it does not exist."""
    kind: str = ""
    """The `type` of a Secret, which is immutable."""


class KeptObject:
    """`read` it, `write` over what was read."""

    def __init__(
        self, client: Client, resource: Resource, namespace: str, name: str, kind: str = ""
    ) -> None:
        """`kind`: the `type` of a Secret that is made."""
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._name = name
        self._kind = kind

    def __str__(self) -> str:
        return f"{self._resource.kind} {self._namespace}/{self._name}"

    def read(self) -> Content:
        """As it is now."""
        try:
            document = self._client.get(self._resource, self._name, self._namespace)
        except NotFound:
            return Content()
        meta = meta_of(document)
        ours = meta.labels.get(MANAGED_BY) == MANAGER
        data = strings(document, "data")
        return Content(meta.resource_version, data, ours, text(document, "type"))

    def write(self, data: Mapping[str, str], over: Content) -> Content:
        """Set `data`; returns `over` itself if nothing differs. AlreadyExists or Conflict if it was
        written after `over` was read."""
        if over.version and over.ours and data == over.data:
            return over
        kind = over.kind or self._kind
        document: Document = {
            "apiVersion": self._resource.api_version,
            "kind": self._resource.kind,
            **({"type": kind} if kind else {}),
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {MANAGED_BY: MANAGER},
                **({"resourceVersion": over.version} if over.version else {}),
            },
            "data": dict(data),
        }
        send = self._client.update if over.version else self._client.create
        answer = send(self._resource, document, manager=FIELD_MANAGER)
        return Content(resource_version_of(answer), data, kind=kind)
