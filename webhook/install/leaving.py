"""Takes Ringfence out of an API server: admission first, and later what the controller kept.

Called by `ringfence controller unregister` and `forget`, which the chart runs before and after it
removes the workloads. A running controller would restore its admission objects, so `unregister`
first takes the controllers' Lease; they stand by until it has expired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from generators.documents.json import Document, integer, key_of, mapping, mappings, text
from generators.errors import Refused
from generators.kube.client import Client, WatchScope
from generators.kube.errors import Conflict, NotFound, Unavailable
from generators.kube.resources import (
    CLUSTER_NETWORK_POLICIES,
    JOBS,
    LEASES,
    NETWORK_POLICIES,
    Resource,
)
from generators.labels import OURS, WALL_LABELS
from webhook.kept import KEPT, REMEMBERED
from webhook.rbac import REGISTERED
from webhook.settings import FIELD_MANAGER, LEASE_NAME

HOLDER = "ringfence-uninstall"
STAND_BY_SECONDS = 300
"""How long controllers stand by; long enough for their pods to end."""
LONGEST_WAIT = 60.0
RETRY_SECONDS = 1.0
NO_UNINSTALL = ("kubectl", "kustomize-controller", "Terraform", "HashiCorp", "Pulumi", "kapp")
"""Beginnings of the field managers that apply what they are given, a chart's hooks too."""

Say = Callable[[str], None]
_Answer = TypeVar("_Answer")


def of_an_uninstall(client: Client, namespace: str, job: str) -> None:
    """Refused where a Job of the chart's uninstall was applied like any other object."""
    try:
        live = client.get(JOBS, job, namespace)
    except NotFound:
        return
    fields = mappings(mapping(live, "metadata"), "managedFields")
    managers = {text(each, "manager") for each in fields}
    if by := next((m for m in sorted(managers) if m.startswith(NO_UNINSTALL)), ""):
        what = f"Job {namespace}/{job} was made by {by}, not by an uninstall, and does nothing"
        why = "it would remove what a running controller maintains"
        fix = f"render the chart with `helm template --no-hooks`, and delete {job}"
        raise Refused(f"{what}: {why}; {fix}")


def unregister(client: Client, namespace: str, say: Say) -> None:
    """Remove our admission objects, and see to it that no controller makes them again."""
    led_for = _take_lease(client, namespace)
    _remove_admission(client, say)
    if led_for:
        # By then the last leader knows, by its own clock, that it leads no more.
        time.sleep(min(led_for, LONGEST_WAIT))
        _remove_admission(client, say)


def forget(client: Client, namespace: str, say: Say, *, isolation: bool, lease: bool) -> None:
    """Remove what the controller kept; `isolation`: its NetworkPolicies and the record too.

    `lease`: also the controllers' Lease, only when none of them runs; a running one would lead
    again at once and register what was removed.
    """
    for kept in (*KEPT, *(REMEMBERED if isolation else ())):
        for name in kept.names:
            _remove(client, kept.resource, name, namespace, say)
    if isolation:
        for document in client.list_all(NETWORK_POLICIES, WatchScope(labels=OURS)):
            key = key_of(document)
            _remove(client, NETWORK_POLICIES, key.name, key.namespace, say)
        _remove_walls(client, say)
    if lease:
        _remove(client, LEASES, LEASE_NAME, namespace, say)
    else:
        say(
            f"Lease {namespace}/{LEASE_NAME} stays: a controller that still runs leads again when "
            f"it ends, {STAND_BY_SECONDS} s after `unregister`; a new install waits for that too"
        )


def patiently(seconds: float, attempt: Callable[[], _Answer]) -> _Answer:
    """What `attempt` returns; it is run again while the API server is away, for so long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _take_lease(client: Client, namespace: str) -> int:
    """Seconds that its last holder may still believe to lead; 0 when there is none."""
    while True:
        try:
            try:
                lease = client.get(LEASES, LEASE_NAME, namespace)
            except NotFound:
                client.create(LEASES, _lease({}, namespace), manager=FIELD_MANAGER)
                return 0
            client.update(LEASES, _lease(lease, namespace), manager=FIELD_MANAGER)
        except Conflict:
            continue
        spec = mapping(lease, "spec")
        if text(spec, "holderIdentity") in ("", HOLDER):
            return 0
        return integer(spec, "leaseDurationSeconds") or 0


def _lease(live: Document, namespace: str) -> Document:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {
        **mapping(live, "spec"),
        "holderIdentity": HOLDER,
        "leaseDurationSeconds": STAND_BY_SECONDS,
        "acquireTime": now,
        "renewTime": now,
    }
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {**mapping(live, "metadata"), "name": LEASE_NAME, "namespace": namespace},
        "spec": spec,
    }


def _remove_admission(client: Client, say: Say) -> None:
    for resource, names in REGISTERED:
        for name in names:
            _remove(client, resource, name, "", say)


def _remove_walls(client: Client, say: Say) -> None:
    """Last: while they stand no pod of another tenant enters, whatever else is gone."""
    try:
        found = client.list_all(CLUSTER_NETWORK_POLICIES, WatchScope(labels=WALL_LABELS))
    except NotFound:  # the API server does not serve the kind
        return
    for document in found:
        _remove(client, CLUSTER_NETWORK_POLICIES, key_of(document).name, "", say)


def _remove(client: Client, resource: Resource, name: str, namespace: str, say: Say) -> None:
    try:
        client.delete(resource, name, namespace)
    except NotFound:
        return
    say(f"{resource}/{name} deleted")
