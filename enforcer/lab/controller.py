"""The controller's part in a lab: record, labels and isolation policies, from the tenant file.

Pure on the store, and level-triggered: it looks at what is there, not at what happened. The record
(namespace UID -> tenant) wins over labels; a namespace without an entry belongs to whom its name
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from enforcer.lab.store import Key, Store, Stored
from generators.manifests import namespace_document, policy_document
from generators.objects import Namespace, Node
from generators.plan import Action, Change, Wanted, plan, wanted_for
from generators.tenants.assignment import Assignment, Outcome, assign_by_name
from generators.tenants.model import TenantConfig

KEEP = Action.KEEP


def note_admission(
    config: TenantConfig, store: Store, before: Namespace | None, after: Namespace
) -> None:
    """Record what the webhook let through: a new namespace's label, or one that an admin
    changed.
    """
    was = None if before is None else before.labels.get(config.label_key)
    label = after.labels.get(config.label_key)
    if before is not None and was == label:
        return
    if label is not None and label in config.tenants:
        store.tenants[after.uid] = label
    else:
        store.tenants.pop(after.uid, None)


def synchronize(config: TenantConfig, store: Store, nodes: Sequence[Node] = ()) -> tuple[str, ...]:
    """Bring the store to what the tenant file wants; a line for each change, as kubectl says it."""
    namespaces = {namespace.name: namespace for namespace in store.namespaces}
    wanted: list[Wanted] = []
    record: dict[str, str] = {}
    for namespace in namespaces.values():
        assignment = _assignment(config, store, namespace)
        if assignment.tenant is not None:
            record[namespace.uid] = assignment.tenant
        wanted += wanted_for(config, namespace, assignment, nodes)
    store.tenants = record
    changes = plan(wanted, namespaces, store.policies)
    return tuple(_carry_out(store, change) for change in changes if change.action is not KEEP)


def _assignment(config: TenantConfig, store: Store, namespace: Namespace) -> Assignment:
    """As recorded; where nothing is recorded, or a tenant that is no more, as the name says."""
    tenant = config.tenants.get(store.tenants.get(namespace.uid, ""))
    if tenant is None:
        return assign_by_name(config, namespace.name)
    labels = {config.label_key: tenant.name, **tenant.labels}
    reason = "the record says so"
    return Assignment(namespace.name, tenant.name, Outcome.ASSIGNED, reason, labels)


def _carry_out(store: Store, change: Change) -> str:
    key = Key(change.kind, change.namespace, change.name)
    if isinstance(change.item, Namespace):
        document = namespace_document(change.item)
        store.objects[key] = replace(store.objects[key], document=document)
        return f"{key} labeled by ringfence"
    existed = key in store.objects
    if change.item is None:
        del store.objects[key]
        word = "deleted"
    else:
        store.objects[key] = Stored(policy_document(change.item))
        word = "configured" if existed else "created"
    return f"networkpolicy/{change.name} {word} in namespace {change.namespace} by ringfence"
