"""Requests that carry a label in unusual ways: subresources, every kind of patch."""

from __future__ import annotations

from generators.documents.json import Document, mapping, strings
from generators.kube.client import Client, OnConflict, PatchKind
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES
from generators.kube.transport import ApiRequest

OTHER = "test02"


def with_label(client: Client, namespace: str, value: str | None) -> Document:
    """The live namespace as somebody sends it back, relabelled."""
    live = client.get(NAMESPACES, namespace)
    meta = dict(mapping(live, "metadata"))
    labels = strings(meta, "labels")
    labels.pop("client", None)
    meta["labels"] = labels if value is None else labels | {"client": value}
    return live | {"metadata": meta}


def relabel_put(client: Client, namespace: str) -> None:
    client.update(NAMESPACES, with_label(client, namespace, OTHER), manager="test")


def relabel_status(client: Client, namespace: str) -> None:
    document = with_label(client, namespace, OTHER)
    client.update(NAMESPACES, document, manager="test", subresource="status")


def relabel_finalize(client: Client, namespace: str) -> None:
    document = with_label(client, namespace, OTHER)
    client.update(NAMESPACES, document, manager="test", subresource="finalize")


def unlabel_status(client: Client, namespace: str) -> None:
    document = with_label(client, namespace, None)
    client.update(NAMESPACES, document, manager="test", subresource="status")


def unlabel_finalize(client: Client, namespace: str) -> None:
    document = with_label(client, namespace, None)
    client.update(NAMESPACES, document, manager="test", subresource="finalize")


def status_and_metadata(client: Client, namespace: str) -> None:
    """A patch of the status that carries a label along."""
    patch: Document = {
        "metadata": {"labels": {"client": OTHER}},
        "status": {"conditions": [{"type": "Mine", "status": "True"}]},
    }
    client.patch(
        NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test", subresource="status"
    )


def relabel_json_patch(client: Client, namespace: str) -> None:
    patch: list[Document] = [{"op": "add", "path": "/metadata/labels/client", "value": OTHER}]
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.JSON, manager="test")


def replace_all_labels(client: Client, namespace: str) -> None:
    patch: list[Document] = [{"op": "replace", "path": "/metadata/labels", "value": {}}]
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.JSON, manager="test")


def relabel_merge(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {"client": OTHER}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


def relabel_strategic(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {"client": OTHER}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.STRATEGIC, manager="test")


def relabel_apply(client: Client, namespace: str) -> None:
    document: Document = {"metadata": {"name": namespace, "labels": {"client": OTHER}}}
    client.apply(NAMESPACES, document, manager="test", on_conflict=OnConflict.FORCE)


def relabel_as_ringfence(client: Client, namespace: str) -> None:
    """With the field manager of the controller: a name that anybody may write there."""
    document: Document = {"metadata": {"name": namespace, "labels": {"client": OTHER}}}
    client.apply(NAMESPACES, document, manager="ringfence", on_conflict=OnConflict.FORCE)


def unlabel_merge(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {"client": None}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


def empty_value(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {"client": ""}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


def further_label(client: Client, namespace: str) -> None:
    """A label that the tenant file sets beside the tenant label."""
    patch: Document = {"metadata": {"labels": {"cost-centre": "0"}}}
    client.patch(NAMESPACES, namespace, "", patch, kind=PatchKind.MERGE, manager="test")


RELABEL = (
    relabel_put,
    relabel_status,
    relabel_finalize,
    status_and_metadata,
    relabel_json_patch,
    relabel_merge,
    relabel_strategic,
    relabel_apply,
    relabel_as_ringfence,
)
LEAVE_OUT = (unlabel_merge, replace_all_labels)
UNLABEL = (unlabel_status, unlabel_finalize, empty_value)


def collection_delete(namespace: str) -> ApiRequest:
    """DELETE of all NetworkPolicies of a namespace at once."""
    return ApiRequest("DELETE", NETWORK_POLICIES.path(namespace))
