"""What `lab get` prints: the lab's objects as tables like kubectl's, or as documents."""

from __future__ import annotations

from collections.abc import Sequence

from generators import selectors
from generators.errors import Refused
from generators.labels import MANAGED_BY
from generators.manifests import Object
from generators.objects import CiliumPolicy, Direction, Labels, Namespace, NetworkPolicy, Node, Pod
from generators.output import columns
from lab.store import CLUSTER_SCOPED, Document, Store, StoreKey, parse

_HEADS = {
    "Namespace": ("NAME", "STATUS", "LABELS"),
    "Node": ("NAME", "ADDRESSES"),
    "Pod": ("NAMESPACE", "NAME", "STATUS", "IP", "PORTS", "LABELS"),
    "NetworkPolicy": ("NAMESPACE", "NAME", "POD-SELECTOR", "TYPES", "MANAGED-BY"),
    "CiliumNetworkPolicy": ("NAMESPACE", "NAME", "ENDPOINTS", "CLOSES"),
    "CiliumClusterwideNetworkPolicy": ("NAME", "ENDPOINTS", "CLOSES"),
}
NONE = "<none>"


def select(store: Store, kind: str, name: str | None) -> tuple[Document, ...]:
    """The documents of one kind: all, those of `NS/`, or the one called `[NS/]NAME`."""
    keys = [key for key in sorted(store.objects) if key.kind == kind]
    if name is None:
        return tuple(store.objects[key].document for key in keys)
    namespace, slash, own = name.rpartition("/")
    if kind not in CLUSTER_SCOPED and not slash:
        namespace = "default"
    if slash and not own:
        return tuple(store.objects[key].document for key in keys if key.namespace == namespace)
    wanted = StoreKey(kind, namespace, own)
    if wanted not in store.objects:
        raise Refused(f'Error from server (NotFound): {kind.lower()} "{name}" not found')
    return (store.objects[wanted].document,)


def as_list(documents: Sequence[Document], one: bool) -> Document:
    """The one object that was asked for by name, or a List, as kubectl gives them."""
    if one and len(documents) == 1:
        return documents[0]
    return {"apiVersion": "v1", "kind": "List", "items": list(documents)}


def names(documents: Sequence[Document]) -> str:
    """The documents as `kind.group/name`, a line each; as kubectl has it, without a namespace."""
    return "".join(f"{_kind(document)}/{parse(document).name}\n" for document in documents)


def _kind(document: Document) -> str:
    group, slash, _ = str(document["apiVersion"]).partition("/")
    return str(document["kind"]).lower() + (f".{group}" if slash else "")


def table(kind: str, documents: Sequence[Document]) -> str:
    """The documents as a table; one line saying so if there are none."""
    if not documents:
        return f"No {kind.lower()} found.\n"
    return columns([_HEADS[kind], *(_row(parse(document)) for document in documents)])


def _row(item: Object) -> tuple[str, ...]:
    if isinstance(item, Namespace):
        return (item.name, "Terminating" if item.terminating else "Active", _labels(item.labels))
    if isinstance(item, Pod):
        ports = ",".join(f"{port.port}/{port.protocol}" for port in item.ports)
        addresses = ",".join(item.ips)
        own = (item.namespace, item.name, item.phase)
        return (*own, addresses or NONE, ports or NONE, _labels(item.labels))
    if isinstance(item, NetworkPolicy):
        return (
            item.namespace,
            item.name,
            selectors.text(item.pod_selector) or NONE,
            ",".join(d.value for d in Direction if d in item.directions),
            item.labels.get(MANAGED_BY, NONE),
        )
    if isinstance(item, CiliumPolicy):
        selected = "; ".join(selectors.text(part.pod_selector) for part in item.parts)
        closes = {d.value for part in item.parts for d in part.directions}
        home = (item.namespace,) if item.namespace else ()
        return (*home, item.name, selected or NONE, ",".join(sorted(closes, reverse=True)) or NONE)
    if isinstance(item, Node):
        return (item.name, ",".join(item.ips) or NONE)
    raise TypeError(f"no columns for {type(item).__name__}")


def _labels(labels: Labels) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or NONE
