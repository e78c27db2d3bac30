"""One namespace brought to what it should be: record, label, policies, in the order that is safe.

Called by the controller's workers, one key at a time, level-triggered: it looks at what is there
and takes the next step; the change that it makes brings the key back. The order:

    the namespace carries no tenant label     | it is as open as before: record, label, policies.
                                              | Its own pods never lose each other on the way.
    it carries one (the webhook's, or a lie)  | without a record it is in quarantine, which ends
                                              | when its policies are live: label, policies, record.
    it belongs to no tenant any more          | label, record, policies

Nothing is deleted before its replacement is there, and a terminating namespace is left alone: its
policies must outlive its pods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from generators.documents.json import Document, Key, mapping, mappings, meta_of, strings, text
from generators.errors import InputError
from generators.isolation.plan import Action, Change, Wanted, plan, wanted_for
from generators.isolation.policies import POLICY_NAME, is_ours
from generators.isolation.record import RecordEntry
from generators.isolation.tenancy import Finding, Ownership, ownership
from generators.kube.client import Client, OnConflict, PatchKind, Preconditions
from generators.kube.errors import Conflict, NotFound
from generators.kube.events import Recorder, Severity
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES
from generators.kube.store import Store
from generators.kyverno.ownership import KYVERNO
from generators.labels import GRANTS_ANNOTATION, MODE_ANNOTATION, OWN_KEYS, POLICY_LABEL, pointer
from generators.manifests import parse_object, policy_document
from generators.objects import Namespace, NetworkPolicy, Node, Origin
from generators.tenants.consents import said_in
from generators.tenants.model import TenantConfig
from webhook.controller.record import RecordWriter
from webhook.registration.guard import AnotherFile
from webhook.settings import FIELD_MANAGER

API = Origin("api-server")
ANOTHER_FILE_SECONDS = 0.5
ECHO_SECONDS = 2.0
"""The longest that a watch takes to bring back what was written, on a good day."""
WARNINGS = frozenset(
    {
        Finding.LABEL_SET_BACK,
        Finding.UNKNOWN_TENANT,
        Finding.AMBIGUOUS,
        Finding.TENANT_GONE,
    }
)


@dataclass(frozen=True, slots=True)
class ReconcilerDeps:
    """What a worker needs; `wrote` is called for each write, `found` for each finding with an
    Event.
    """

    client: Client
    namespaces: Store[Namespace]
    policies: Store[NetworkPolicy]
    ledger: RecordWriter
    recorder: Recorder
    proven: Callable[[Namespace, str], bool]
    """Whether a label passed admission by the tenant file of that digest."""
    vouched: Callable[[Namespace, str], bool]
    """The same of the annotation with grants."""
    corrected: Callable[[str], None]
    withdrawn: Callable[[str], None]
    """No grants are said in the namespace with that UID any longer."""
    wrote: Callable[[str, str], None]
    found: Callable[[Finding], None]
    later: Callable[[str, float], None]
    """Look at a namespace again after that many seconds."""
    nodes: Store[Node]


class Reconciler:
    """Takes steps for namespaces; safe for several threads on different keys."""

    def __init__(self, desk: ReconcilerDeps) -> None:
        self._desk = desk
        self._seen: set[tuple[str, str]] = set()
        """Namespace UID and policy that the watch has shown and that we have not deleted since:
        somebody deleted one that is missing."""
        self._echoes: dict[tuple[str, str, str], tuple[float, object]] = {}
        """What was just written and has not come back by the watch: not to be written again."""
        self._undecided: dict[str, tuple[Finding, str]] = {}
        """Namespaces in quarantine, and why."""

    def undecided(self) -> Mapping[str, tuple[Finding, str]]:
        """Namespaces in quarantine until an admin decides their tenant, by name."""
        return dict(sorted(self._undecided.copy().items()))

    def forget_seen(self) -> None:
        """Leading begins: who led meanwhile may have deleted what was seen before."""
        self._seen.clear()
        self._echoes.clear()

    def reconcile(self, config: TenantConfig, name: str) -> None:
        """Take every step that can be taken now. KubeErrors leave it for another attempt."""
        namespace = self._desk.namespaces.get(Key("", name))
        self._forget_others(name, namespace)
        if namespace is None or namespace.terminating:
            self._undecided.pop(name, None)
        if namespace is not None and not namespace.terminating:
            self.bring(config, namespace)

    def bring(self, config: TenantConfig, namespace: Namespace) -> None:
        """Take the steps for a namespace as it was seen."""
        name = namespace.name
        recorded = self._desk.ledger.entry(namespace.uid)
        try:
            decided = ownership(
                config, namespace, recorded, lambda: self._desk.proven(namespace, config.digest)
            )
        except AnotherFile:
            # The next file came in force under our hands: it decides.
            self._desk.later(name, ANOTHER_FILE_SECONDS)
            return
        if (decided.held or decided.quarantined) and decided.finding is not None:
            self._undecided[name] = decided.finding, decided.assignment.reason
            self._tell(namespace, decided)
        else:
            self._undecided.pop(name, None)
        if decided.held:
            return
        try:
            entry = self._with_consents(config, namespace, decided.entry(name))
        except AnotherFile:
            self._desk.later(name, ANOTHER_FILE_SECONDS)
            return
        labelled = config.label_key in namespace.labels
        if entry is not None and entry != recorded and not labelled:
            # Comes again once the record is written, which then has forgotten the former tenant.
            self._strip(config, namespace, decided)
            if decided.finding is Finding.CLAIMED:
                self._tell(namespace, decided)
            self._desk.ledger.submit(namespace.uid, entry)
            return
        changes = self._without_echoes(namespace, self._changes(config, namespace, decided))
        for change in changes:
            if change.kind == "Namespace" and change.action is Action.UPDATE:
                self._label(config, namespace, change)
                self._desk.corrected(namespace.uid)
                self._tell(namespace, decided)
        if entry is None and recorded is not None:
            self._desk.ledger.submit(namespace.uid, None)
            if decided.finding is Finding.RELEASED:
                self._tell(namespace, decided)
        for change in changes:
            if change.kind == "NetworkPolicy":
                self._policy(namespace, change)
        if entry is not None and entry != recorded:
            self._desk.ledger.submit(namespace.uid, entry)
            if decided.finding is Finding.MOVED and not self._relabelled(changes):
                self._tell(namespace, decided)

    def _with_consents(
        self, config: TenantConfig, namespace: Namespace, entry: RecordEntry | None
    ) -> RecordEntry | None:
        """What the tenant consents to by the annotation; new words only if admission let them pass,
        words that are gone at once."""
        if entry is None:
            return None
        said = said_in(namespace.annotations, entry.tenant)
        new = [consent for consent in said if consent not in entry.consents]
        if new and not self._desk.vouched(namespace, config.digest):
            note = (
                f"{', '.join(map(str, new))}: nothing proves who wrote it; remove it, write it anew"
            )
            self._warn(namespace, "GrantNotProven", note)
            said = tuple(consent for consent in said if consent in entry.consents)
        if not namespace.annotations.get(GRANTS_ANNOTATION):
            self._desk.withdrawn(namespace.uid)
        return replace(entry, consents=said)

    @staticmethod
    def _relabelled(changes: tuple[Change, ...]) -> bool:
        return any(c.kind == "Namespace" and c.action is Action.UPDATE for c in changes)

    def _changes(
        self, config: TenantConfig, namespace: Namespace, decided: Ownership
    ) -> tuple[Change, ...]:
        nodes = self._nodes(config, decided.assignment.tenant)
        wanted = wanted_for(config, namespace, decided.assignment, nodes, decided.left_behind)
        live = self._desk.policies.in_namespace(namespace.name).values()
        return plan(wanted, {namespace.name: namespace}, live)

    def _nodes(self, config: TenantConfig, tenant: str | None) -> tuple[Node, ...]:
        """The nodes, where the policies of a tenant name their addresses at all."""
        masked = tenant is not None and config.tenant(tenant).allow_masked
        if not masked and not any(component.host_network for component in config.shared):
            return ()
        return tuple(node for _, node in sorted(self._desk.nodes.snapshot().items()))

    def _without_echoes(
        self, namespace: Namespace, changes: tuple[Change, ...]
    ) -> tuple[Change, ...]:
        """The changes that are not on their way already."""
        kept = []
        for change in changes:
            key = (namespace.uid, change.kind, change.name)
            if change.action is Action.KEEP:
                self._echoes.pop(key, None)
            written, item = self._echoes.get(key, (0.0, None))
            if item is not None and item == change.item:
                if time.monotonic() - written < ECHO_SECONDS:
                    self._desk.later(namespace.name, ECHO_SECONDS)
                    continue
                del self._echoes[key]
            kept.append(change)
        return tuple(kept)

    def _written(self, namespace: Namespace, change: Change) -> None:
        self._desk.wrote(change.kind, change.action.value)
        key = (namespace.uid, change.kind, change.name)
        self._echoes[key] = (time.monotonic(), change.item)

    def _forget_others(self, name: str, namespace: Namespace | None) -> None:
        """Remove the record of deleted namespaces of this name."""
        uid = "" if namespace is None else namespace.uid
        stale = self._desk.ledger.uids(name) - {uid}
        if not stale:
            return
        try:
            live = meta_of(self._desk.client.get(NAMESPACES, name)).uid
        except NotFound:
            live = ""
        for gone in stale - {live}:
            self._desk.ledger.submit(gone, None)
            self._seen.discard((gone, POLICY_NAME))
            self._echoes.pop((gone, "Namespace", name), None)
            self._echoes.pop((gone, "NetworkPolicy", POLICY_NAME), None)

    # --- writes ---------------------------------------------------------------------------------

    def _label(self, config: TenantConfig, namespace: Namespace, change: Change) -> None:
        """Set the labels that differ, on exactly the namespace that was looked at."""
        item = change.item
        if not isinstance(item, Namespace):
            return
        wanted = item.labels
        labels: Document = {k: v for k, v in wanted.items() if namespace.labels.get(k) != v}
        gone = sorted(namespace.labels.keys() - wanted.keys())
        labels |= dict.fromkeys(gone)
        # A test on what was seen: a label that changed meanwhile is looked at again first.
        tests = self._tests(config, namespace, gone)
        patch = [*tests, *_operations(namespace.labels, labels)]
        self._desk.client.patch(
            NAMESPACES, namespace.name, "", patch, kind=PatchKind.JSON, manager=FIELD_MANAGER
        )
        self._written(namespace, change)

    def _strip(self, config: TenantConfig, namespace: Namespace, decided: Ownership) -> None:
        """Remove what the former tenant left behind, and nothing else."""
        if not decided.left_behind:
            return
        kept = {k: v for k, v in namespace.labels.items() if k not in decided.left_behind}
        bare = Wanted(replace(namespace, labels=kept), "labels of its former tenant are removed")
        changes = plan([bare], {namespace.name: namespace}, ())
        for change in self._without_echoes(namespace, changes):
            self._label(config, namespace, change)

    @staticmethod
    def _tests(config: TenantConfig, namespace: Namespace, gone: list[str]) -> list[Document]:
        tests: list[Document] = [{"op": "test", "path": "/metadata/uid", "value": namespace.uid}]
        # What is absent tests equal to null; every namespace has a label, that of its name.
        for key in dict.fromkeys([config.label_key, *gone]):
            tests.append({"op": "test", "path": pointer(key), "value": namespace.labels.get(key)})
        return tests

    def _policy(self, namespace: Namespace, change: Change) -> None:
        met = (namespace.uid, change.name)
        if change.action is Action.DELETE:
            self._delete(change)
            self._seen.discard(met)
            return
        known = met in self._seen
        if change.action is not Action.CREATE:
            self._seen.add(met)
        if not isinstance(change.item, NetworkPolicy):
            return
        if change.action is Action.KEEP:
            return
        document = policy_document(change.item)
        if change.action is Action.CREATE:
            try:
                self._desk.client.apply(
                    NETWORK_POLICIES, document, manager=FIELD_MANAGER, on_conflict=OnConflict.FAIL
                )
            except Conflict:
                # One of that name is there, without our mark.
                self._replace(namespace, document, change)
                return
            self._written(namespace, change)
            if known:
                self._seen.discard(met)
                found = f"{change.name} was deleted; it is restored"
                self._warn(namespace, "PolicyRecreated", found)
            return
        self._replace(namespace, document, change)

    def _replace(self, namespace: Namespace, document: Document, change: Change) -> None:
        """Put the whole object in place of the live one: apply would leave what others added."""
        client, key = self._desk.client, meta_of(document).key
        live = client.get(NETWORK_POLICIES, key.name, key.namespace)
        ours = is_ours(meta_of(live).labels)
        meta = dict(mapping(live, "metadata"))
        meta |= {"labels": {**meta_of(live).labels, **meta_of(document).labels}}
        client.update(NETWORK_POLICIES, document | {"metadata": meta}, manager=FIELD_MANAGER)
        self._written(namespace, change)
        if not ours:
            note = f"{key.name} was written by someone else and is replaced: {change.because}"
            self._warn(namespace, "PolicyTakenOver", note)
        elif editors := foreign_editors(live):
            note = f"{key.name} was changed by {', '.join(editors)}; it is restored"
            self._warn(namespace, "PolicyRepaired", note)

    def _delete(self, change: Change) -> None:
        client = self._desk.client
        try:
            live = client.get(NETWORK_POLICIES, change.name, change.namespace)
            meta = mapping(live, "metadata")
            if not is_ours(meta_of(live).labels):
                return
            only = Preconditions(text(meta, "uid"), text(meta, "resourceVersion"))
            client.delete(NETWORK_POLICIES, change.name, change.namespace, only_if=only)
        except NotFound:
            return
        self._desk.wrote("NetworkPolicy", change.action.value)

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, namespace: Namespace, decided: Ownership) -> None:
        if decided.finding is None:
            return
        warn = decided.finding in WARNINGS
        tenant = decided.assignment.tenant or "nobody"
        where = "is in quarantine" if decided.quarantined else f"belongs to {tenant}"
        note = f"{where}: {decided.assignment.reason}"
        severity = Severity.WARNING if warn else Severity.NORMAL
        if self._desk.recorder.tell(namespace, decided.finding.value, severity, note):
            self._desk.found(decided.finding)

    def _warn(self, namespace: Namespace, reason: str, note: str) -> None:
        self._desk.recorder.tell(namespace, reason, Severity.WARNING, note)


def foreign_editors(policy: Document) -> list[str]:
    """Field managers other than ours that have set fields of what we generate."""
    found = set()
    for entry in mappings(mapping(policy, "metadata"), "managedFields"):
        fields = mapping(entry, "fieldsV1")
        labels = mapping(mapping(fields, "f:metadata"), "f:labels")
        generated = "f:spec" in fields or any(f"f:{key}" in labels for key in OWN_KEYS)
        if generated and text(entry, "manager") != FIELD_MANAGER:
            found.add(text(entry, "manager"))
    return sorted(found)


def read_namespace(document: Document) -> Namespace:
    """The namespace as decisions need it; everything else is forgotten."""
    meta = meta_of(document)
    phase = text(mapping(document, "status"), "phase")
    terminating = meta.terminating or phase == "Terminating"
    read = (MODE_ANNOTATION, GRANTS_ANNOTATION)
    annotations = {key: meta.annotations[key] for key in read if key in meta.annotations}
    return Namespace(meta.key.name, meta.labels, annotations, meta.uid, terminating, API)


def read_node(document: Document) -> Node:
    """A node's addresses; its heartbeats change nothing here."""
    node = parse_object(document, API)
    if not isinstance(node, Node):
        raise TypeError(f"{meta_of(document).key} is not a Node")
    return node


class NetworkPolicyReader:
    """Reads NetworkPolicies; those of one tenant have equal rules and share them in memory."""

    def __init__(self) -> None:
        self._shared: dict[object, object] = {}

    def __call__(self, document: Document) -> NetworkPolicy | None:
        """The policy, without annotations; None when it is not one that we can have written."""
        given = strings(mapping(document, "metadata"), "labels")
        if given.get(POLICY_LABEL, "").startswith(KYVERNO):
            return None
        try:
            policy = parse_object(document, API)
        except InputError:
            return None
        if not isinstance(policy, NetworkPolicy):
            return None
        ingress = self._shared.setdefault(policy.ingress, policy.ingress)
        labels = self._shared.setdefault(tuple(sorted(policy.labels.items())), policy.labels)
        return replace(
            policy,
            ingress=ingress if isinstance(ingress, tuple) else policy.ingress,
            labels=labels if isinstance(labels, Mapping) else policy.labels,
            annotations={},
            uid="",
        )


def _operations(present: Mapping[str, str], labels: Document) -> list[Document]:
    found: list[Document] = []
    for key, value in labels.items():
        if value is None:
            found.append({"op": "remove", "path": pointer(key)})
        else:
            found.append({"op": "add", "path": pointer(key), "value": value})
    return found
