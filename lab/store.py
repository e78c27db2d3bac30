"""What the lab holds in place of an API server: the objects, and the controller's record, in one
file.

Objects are the documents that generators.manifests writes and reads. `merge` is kubectl's apply:
what was applied before and is missing now goes away, what others set (the webhook's label, an
address) stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from generators.isolation.record import RecordEntry, entry_text, parse_entry
from generators.manifests import Object, parse_object
from generators.objects import (
    CiliumPolicy,
    ConfigMap,
    Namespace,
    NetworkPolicy,
    Node,
    Origin,
    Pod,
    PolicyKind,
)
from generators.process.files import write_atomically

Document = dict[str, object]

STORE_FILE = "objects.json"
KINDS = ("Namespace", "Node", "Pod", *(kind.value for kind in PolicyKind))
CLUSTER_SCOPED = frozenset({"Namespace", "Node", PolicyKind.CILIUM_CLUSTERWIDE.value})
_ORIGIN = Origin("lab", 1)


@dataclass(frozen=True, slots=True, order=True)
class StoreKey:
    """Which object: its kind, namespace (empty for cluster-scoped kinds) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{resource_name(self.kind)}/{self.name}"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is, and as it was last applied by a user (None: it is generated)."""

    document: Document
    applied: Document | None = None


@dataclass(slots=True)
class Store:
    """All objects of a lab by key, and the controller's record by namespace UID."""

    objects: dict[StoreKey, Stored] = field(default_factory=dict)
    record: dict[str, RecordEntry] = field(default_factory=dict)

    def values(self) -> Iterator[Object]:
        """Every object parsed, in key order."""
        for key in sorted(self.objects):
            yield parse(self.objects[key].document)

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All namespaces, by name."""
        return tuple(o for o in self.values() if isinstance(o, Namespace))

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, by namespace and name."""
        return tuple(o for o in self.values() if isinstance(o, Pod))

    @property
    def policies(self) -> tuple[NetworkPolicy, ...]:
        """All NetworkPolicies, by namespace and name."""
        return tuple(o for o in self.values() if isinstance(o, NetworkPolicy))

    @property
    def cilium_policies(self) -> tuple[CiliumPolicy, ...]:
        """All policies of Cilium's kinds."""
        return tuple(o for o in self.values() if isinstance(o, CiliumPolicy))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that were applied, by name."""
        return tuple(o for o in self.values() if isinstance(o, Node))


def key_of(item: Object) -> StoreKey:
    """The key of a parsed object."""
    if isinstance(item, CiliumPolicy):
        return StoreKey(item.kind.value, item.namespace, item.name)
    kind = type(item).__name__
    if isinstance(item, Namespace | Node):
        return StoreKey(kind, "", item.name)
    return StoreKey(kind, item.namespace, item.name)


def parse(document: Document) -> Object:
    """A stored document as a value; it was checked when it came in."""
    item = parse_object(document, _ORIGIN)
    if item is None or isinstance(item, ConfigMap):
        raise ValueError(f"the lab does not store {document.get('kind')}")
    return item


def load(run: Path) -> Store:
    """The store of a lab; empty when it has none yet."""
    try:
        document = json.loads((run / STORE_FILE).read_bytes())
    except FileNotFoundError:
        return Store()
    return Store(
        {
            StoreKey(*entry["key"]): Stored(entry["document"], entry["applied"])
            for entry in document["objects"]
        },
        {
            uid: entry
            for uid, text in document["record"].items()
            if (entry := parse_entry(text)) is not None
        },
    )


def save(run: Path, store: Store) -> None:
    """Put the whole store on disk, or leave the old one."""
    entries = [
        {
            "key": [key.kind, key.namespace, key.name],
            "document": store.objects[key].document,
            "applied": store.objects[key].applied,
        }
        for key in sorted(store.objects)
    ]
    record = {uid: entry_text(entry) for uid, entry in sorted(store.record.items())}
    document = {"objects": entries, "record": record}
    write_atomically(run / STORE_FILE, json.dumps(document, indent=1).encode())


def merge(
    before: Mapping[str, object] | None, wanted: Mapping[str, object], live: Mapping[str, object]
) -> Document:
    """Three-way: `wanted` over `live`, without what `before` had and `wanted` has not. Lists are
    replaced whole.
    """
    last = before or {}
    merged: Document = {}
    for key in (*live, *(key for key in wanted if key not in live)):
        ours, old, there = wanted.get(key), last.get(key), live.get(key)
        if isinstance(there, dict) and (isinstance(ours, dict) or key not in wanted):
            gone = old if isinstance(old, dict) else None
            merged[key] = merge(gone, ours if isinstance(ours, dict) else {}, there)
        elif key in wanted:
            merged[key] = ours
        elif key not in last:
            merged[key] = there
    return merged


def resource_name(kind: str) -> str:
    """A kind as kubectl prints it before the name."""
    if kind not in tuple(PolicyKind):
        return kind.lower()
    plain = kind == PolicyKind.NETWORK_POLICY
    return f"{kind.lower()}.{'networking.k8s.io' if plain else 'cilium.io'}"
