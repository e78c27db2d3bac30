"""Whether an installation does what it should: the checks of `ringfence controller verify`.

Reads what the controller writes down, its status, the epoch of admission, and the objects that it
registered, and has the API server call the webhook in a dry run.
"""

from __future__ import annotations

from collections.abc import Iterator

from generators.checks import Check, bridged, failed, good
from generators.documents.json import Document, key_of, mapping, meta_of, strings
from generators.isolation.tenancy import Finding
from generators.kube.client import Client, WatchScope
from generators.kube.errors import Forbidden, NotFound
from generators.kube.resources import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    VALIDATING_WEBHOOKS,
    Resource,
)
from generators.labels import MANAGED_BY, MANAGER
from generators.tenants.packed import GUARD_NAME
from webhook.kept import ALLOWED_KINDS, STATUS_NAME
from webhook.rbac import REGISTERED
from webhook.registration import configuration
from webhook.registration.epoch import Epoch
from webhook.registration.probing import LABEL_PASSED, refusal


def findings(
    client: Client, namespace: str, digest: str, kinds: frozenset[str] = frozenset()
) -> list[Check]:
    """All checks; `digest` is the SHA-256 of the tenant file that should be in force, `kinds` what
    policies should be allowed to write beside the usual kinds."""
    return [
        *_status(client, namespace, digest),
        *_kinds(client, namespace, kinds),
        *_registered(client),
        *_epoch(client, namespace),
    ]


def _status(client: Client, namespace: str, digest: str) -> Iterator[Check]:
    found = _get(client, CONFIG_MAPS, STATUS_NAME, namespace)
    if found is None:
        missing = f"no controller has written ConfigMap {namespace}/{STATUS_NAME} yet"
        yield failed("status", missing)
        return
    status = strings(found, "data")
    if problem := status.get("problem"):
        yield failed("tenant file", f"a newer one is not in force: {problem}")
    elif status.get("configDigest") != digest:
        yield failed("tenant file", "another one is in force")
    else:
        yield good("tenant file", "this one is in force")
    if status.get("synchronized") == "true":
        yield good("namespaces", f"all {status.get('namespaces', '')} follow it")
    else:
        yield failed("namespaces", "not all of them follow it yet")
    for line in status.get("undecided", "").splitlines():
        yield bridged("in quarantine", line)


def _kinds(client: Client, namespace: str, wanted: frozenset[str]) -> Iterator[Check]:
    """What the controller and, by its word, the webhook allow policies to write."""
    found = _get(client, CONFIG_MAPS, STATUS_NAME, namespace) or {}
    said = frozenset(strings(found, "data").get(ALLOWED_KINDS, "").split())
    name, told = "policies may also write", ", ".join(sorted(said)) or "nothing"
    if wanted and wanted != said:
        asked = ", ".join(sorted(wanted))
        yield failed(name, f"{told}, and not {asked}: give that to the controller as --allow-kind")
    elif said:
        yield good(name, told)


def _assigned(client: Client, label_key: str) -> Iterator[Check]:
    """Namespaces that had no tenant and got one, as far back as Events reach: an hour.

    Anyone who may write Events in a namespace can forge those about it; the tenant comes from the
    label, which admission guards. Empty for users who may not list both.
    """
    try:
        events = client.list_all(EVENTS, WatchScope(fields=f"reason={Finding.CLAIMED}"))
        owned = client.list_all(NAMESPACES, WatchScope(labels=label_key)) if events else []
    except Forbidden:
        return
    told = {key_of(event).namespace for event in events}
    metas = map(meta_of, owned)
    owners = {m.key.name: m.labels[label_key] for m in metas if m.key.name in told}
    for name, tenant in sorted(owners.items()):
        yield good(f"{name} belonged to no tenant and now belongs to {tenant} by its name")


def _registered(client: Client) -> Iterator[Check]:
    for resource, names in REGISTERED:
        for name in names:
            live = _get(client, resource, name)
            if live is None:
                yield failed(f"{resource.kind} {name}", "is missing")
            elif strings(mapping(live, "metadata"), "labels").get(MANAGED_BY) != MANAGER:
                yield failed(f"{resource.kind} {name}", "is not Ringfence's")
            else:
                yield good(f"{resource.kind} {name}")
            if live is not None and resource is VALIDATING_WEBHOOKS:
                user = configuration.exempt_user(live)
                if user and not user.startswith(configuration.SERVICE_ACCOUNT):
                    yield bridged(configuration.exempt_person(user))


def _epoch(client: Client, namespace: str) -> Iterator[Check]:
    """Whether labels that pass admission are trusted, and the webhook answers."""
    found = _get(client, CONFIG_MAPS, GUARD_NAME, namespace)
    epoch = None if found is None else Epoch.parse(strings(found, "data"))
    live = _get(client, VALIDATING_WEBHOOKS, configuration.NAME)
    if epoch is None or epoch.covers(live) is None:
        yield failed("admission", "in force, but with a gap")
        return
    yield good("admission", "in force")
    yield from _assigned(client, epoch.label_key)
    yield _webhook(client, namespace, epoch.label_key)


def _webhook(client: Client, namespace: str, label_key: str) -> Check:
    """By a dry run of our own; who may not patch namespaces goes by what the controller found."""
    said = refusal(client, label_key)
    if said is None:
        return failed("webhook", LABEL_PASSED)
    problem = said.problem
    if not said.asked:
        status = _get(client, CONFIG_MAPS, STATUS_NAME, namespace)
        problem = strings(status or {}, "data").get("webhook", "")
    return failed("webhook", problem) if problem else good("webhook", "answers the API server")


def _get(client: Client, resource: Resource, name: str, namespace: str = "") -> Document | None:
    try:
        return client.get(resource, name, namespace)
    except NotFound:
        return None
