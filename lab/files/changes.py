"""`apply` and `delete`: users' documents against the store, past the webhook, as a cluster takes
them.

Each object is admitted or refused by itself; a refusal changes nothing of that object and the
others go on, as with kubectl. files/converge.py does what the machine needs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from generators.errors import InputError, Problem
from generators.manifests import (
    Documents,
    Object,
    namespace_document,
    pod_document,
    policy_document,
)
from generators.objects import NAME_LABEL, CiliumPolicy, Namespace, NetworkPolicy, Node, Pod
from generators.tenants.model import TenantConfig
from lab.admission import (
    REVIEWED_KINDS,
    Change,
    Denied,
    Operation,
    Requester,
    Webhook,
    WebhookFailed,
)
from lab.backing import Report
from lab.files.controller import note_admission
from lab.pods import node_document
from lab.store import CLUSTER_SCOPED, Document, Store, Stored, StoreKey, key_of, merge, parse

KINDS = {
    **dict.fromkeys(("namespace", "namespaces", "ns"), "Namespace"),
    **dict.fromkeys(("pod", "pods", "po"), "Pod"),
    **dict.fromkeys(("networkpolicy", "networkpolicies", "netpol"), "NetworkPolicy"),
    **dict.fromkeys(("ciliumnetworkpolicy", "ciliumnetworkpolicies", "cnp"), "CiliumNetworkPolicy"),
    **dict.fromkeys(
        ("ciliumclusterwidenetworkpolicy", "ciliumclusterwidenetworkpolicies", "ccnp"),
        "CiliumClusterwideNetworkPolicy",
    ),
    **dict.fromkeys(("node", "nodes", "no"), "Node"),
}
"""What users call the kinds."""
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Gate:
    """Who asks, and what stands between them and the store. Without a tenant file: nothing."""

    requester: Requester
    config: TenantConfig | None = None
    webhook: Webhook | None = None


def apply(store: Store, documents: Documents, gate: Gate) -> Report:
    """Create or update every object of the documents, namespaces first."""
    report = Report(warnings=list(documents.warnings))
    items: list[Object] = [
        *_implied(store, documents),
        *documents.namespaces,
        *documents.nodes,
        *documents.pods,
        *documents.policies,
        *documents.cilium_policies,
    ]
    for item in items:
        _apply_one(store, item, gate, report)
    ignored: list[Object] = [*documents.config_maps, *documents.services, *documents.slices]
    report.warnings += [
        f"{item.origin}: {type(item).__name__} {item.name} means nothing in a lab, skipped"
        for item in ignored
    ]
    report.warnings += [
        f"{item.origin}: {item.workload.kind} {item.workload.name} makes no pods without an API "
        "server, skipped; write Pods, or bring the lab up with --api-server"
        for item in documents.templates
    ]
    return report


def delete(
    store: Store, keys: Iterable[StoreKey], gate: Gate, sources: Mapping[StoreKey, str]
) -> Report:
    """Delete these objects; what is in a namespace goes with it."""
    report = Report()
    for key in keys:
        stored = store.objects.get(key)
        if stored is None:
            report.errors.append(
                f'Error from server (NotFound): {_plural(key)} "{key.name}" not found'
            )
            continue
        change = Change(
            Operation.DELETE,
            key.kind,
            key.namespace,
            key.name,
            None,
            stored.document,
            sources.get(key, ""),
        )
        if _admitted(change, gate, report) is None:
            continue
        _forget(store, key)
        report.lines.append(f'{_singular(key)} "{key.name}" deleted')
    return report


def keys_of(documents: Documents) -> dict[StoreKey, str]:
    """The keys of all objects in the documents, with the file that each was read from."""
    items: tuple[Object, ...] = (
        *documents.cilium_policies,
        *documents.policies,
        *documents.pods,
        *documents.nodes,
        *documents.namespaces,
    )
    return {key_of(item): item.origin.file for item in items}


def named(kind: str, name: str) -> StoreKey:
    """The key for `KIND [NS/]NAME`."""
    found = kind_of(kind)
    namespace, slash, rest = name.rpartition("/")
    if found in CLUSTER_SCOPED:
        if slash:
            raise _usage(f"{kind} {name}", "it is in no namespace", f"write {kind} {rest}")
        return StoreKey(found, "", name)
    return StoreKey(found, namespace or DEFAULT_NAMESPACE, rest)


def kind_of(word: str) -> str:
    """The kind that a user means."""
    found = KINDS.get(word.lower())
    if found is None:
        known = "namespaces, pods, networkpolicies, cnp, ccnp, nodes"
        raise _usage(word, "the lab has no objects of this kind", f"use one of {known}")
    return found


def _implied(store: Store, documents: Documents) -> list[Namespace]:
    """Namespaces that objects use without a declaration."""
    declared = {namespace.name for namespace in (*documents.namespaces, *store.namespaces)}
    users: Sequence[Pod | NetworkPolicy | CiliumPolicy] = (
        *documents.pods,
        *documents.policies,
        *(policy for policy in documents.cilium_policies if policy.namespace),
    )
    missing = {item.namespace: item.origin for item in reversed(users)}
    return [
        Namespace(name, {NAME_LABEL: name}, origin=missing[name])
        for name in sorted(set(missing) - declared)
    ]


def _apply_one(store: Store, item: Object, gate: Gate, report: Report) -> None:
    key = key_of(item)
    stored = store.objects.get(key)
    applied = _document(item)
    creates = stored is None
    if key.namespace and StoreKey("Namespace", "", key.namespace) not in store.objects:
        report.errors.append(
            f'Error from server (NotFound): error when creating "{item.origin.file}": '
            f'namespaces "{key.namespace}" not found'
        )
        return
    if stored is None:
        wanted = _with_uid(applied)
    else:
        wanted = merge(stored.applied, applied, stored.document)
        if wanted == stored.document:
            store.objects[key] = Stored(stored.document, applied)
            report.lines.append(f"{key} unchanged")
            return
    live = None if stored is None else stored.document
    operation = Operation.CREATE if creates else Operation.UPDATE
    change = Change(operation, key.kind, key.namespace, key.name, wanted, live, item.origin.file)
    admitted = _admitted(change, gate, report)
    if admitted is None:
        return
    store.objects[key] = Stored(admitted, applied)
    if gate.config is not None and gate.webhook is not None and isinstance(item, Namespace):
        before = None if live is None else _namespace(live)
        note_admission(gate.config, store, before, _namespace(admitted))
    report.lines.append(f"{key} {'created' if creates else 'configured'}")


def _admitted(change: Change, gate: Gate, report: Report) -> Document | None:
    """The object as admitted (for DELETE the one that goes); None, and an error, when refused."""
    unchanged = change.wanted if change.wanted is not None else change.live
    if gate.webhook is None or change.kind not in REVIEWED_KINDS:
        return unchanged
    try:
        admitted, warnings = gate.webhook.admit(change, gate.requester)
    except (Denied, WebhookFailed) as error:
        report.errors.append(str(error))
        return None
    report.warnings += [f"Warning: {warning}" for warning in warnings]
    return unchanged if admitted is None else admitted


def _forget(store: Store, key: StoreKey) -> None:
    stored = store.objects.pop(key)
    if key.kind != "Namespace":
        return
    store.record.pop(_namespace(stored.document).uid, None)
    for other in [other for other in store.objects if other.namespace == key.name]:
        del store.objects[other]


def _document(item: Object) -> Document:
    if isinstance(item, Namespace):
        return namespace_document(item)
    if isinstance(item, Pod):
        return pod_document(item)
    if isinstance(item, NetworkPolicy):
        return policy_document(item)
    if isinstance(item, CiliumPolicy):
        return _cilium_document(item)
    if isinstance(item, Node):
        return node_document(item)
    raise TypeError(f"the lab does not store {type(item).__name__}")


def _cilium_document(item: CiliumPolicy) -> Document:
    """As it was written, with the namespace that it is in."""
    meta = item.document.get("metadata")
    given = meta if isinstance(meta, dict) else {}
    home = {"namespace": item.namespace} if item.namespace else {}
    return {**item.document, "metadata": {**given, **home}}


def _with_uid(document: Document) -> Document:
    """A new object has a new UID: that is how a namespace made again differs from the old one."""
    metadata = document["metadata"]
    if not isinstance(metadata, dict):
        raise TypeError("metadata has to be an object")
    return {**document, "metadata": {**metadata, "uid": str(uuid.uuid4())}}


def _namespace(document: Document) -> Namespace:
    item = parse(document)
    if not isinstance(item, Namespace):
        raise TypeError("not a Namespace")
    return item


def _plural(key: StoreKey) -> str:
    return {
        "Namespace": "namespaces",
        "NetworkPolicy": "networkpolicies.networking.k8s.io",
        "CiliumNetworkPolicy": "ciliumnetworkpolicies.cilium.io",
        "CiliumClusterwideNetworkPolicy": "ciliumclusterwidenetworkpolicies.cilium.io",
    }.get(key.kind, f"{key.kind.lower()}s")


def _singular(key: StoreKey) -> str:
    return str(key).partition("/")[0]


def _usage(what: str, wrong: str, fix: str) -> InputError:
    return InputError([Problem("command line", 1, what, wrong, fix)])
