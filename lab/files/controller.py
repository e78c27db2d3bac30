"""The controller's part in a lab: record, labels and isolation policies, from the tenant file.

Pure on the store, and level-triggered: it looks at what is there, not at what happened. A
namespace's tenant follows the rule of the real controller (generators/isolation/tenancy.py); what
the webhook let through is in the record at once, so a label that disagrees with the record proves
nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from generators.isolation.plan import Action, Change, plan, wanted_for
from generators.isolation.record import Basis, RecordEntry, agreed
from generators.isolation.tenancy import Ownership, ownership
from generators.manifests import namespace_document, policy_document
from generators.objects import Namespace, Node
from generators.tenants.assignment import assign_by_name
from generators.tenants.consents import said_in
from generators.tenants.model import TenantConfig
from lab.store import Store, Stored, StoreKey

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
    if label is None or label not in config.tenants:
        store.record.pop(after.uid, None)
        return
    named = assign_by_name(config, after.name).tenant == label
    basis = Basis.NAME if named else Basis.ADMISSION
    store.record[after.uid] = RecordEntry(after.name, label, basis)


def synchronize(config: TenantConfig, store: Store, nodes: Sequence[Node] = ()) -> tuple[str, ...]:
    """Bring the store to what the tenant file wants; a line for each change, in kubectl's words."""
    namespaces = {namespace.name: namespace for namespace in store.namespaces}
    owned: list[tuple[Namespace, Ownership]] = []
    record: dict[str, RecordEntry] = {}
    for namespace in namespaces.values():
        decided = ownership(config, namespace, store.record.get(namespace.uid), lambda: False)
        entry = decided.entry(namespace.name)
        if entry is not None:
            # The webhook let the annotation pass: only members can have written it.
            said = said_in(namespace.annotations, entry.tenant)
            record[namespace.uid] = replace(entry, consents=said)
        owned.append((namespace, decided))
    store.record = record
    config = agreed(config, namespaces.values(), record)
    wanted = [
        want
        for namespace, decided in owned
        for want in wanted_for(config, namespace, decided.assignment, nodes, decided.left_behind)
    ]
    changes = plan(wanted, namespaces, store.policies)
    return tuple(_carry_out(store, change) for change in changes if change.action is not KEEP)


def _carry_out(store: Store, change: Change) -> str:
    key = StoreKey(change.kind, change.namespace, change.name)
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
