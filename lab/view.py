"""A lab as the looking commands see it: its objects, and the pods that run with where they run.

`session.looking` makes one for `get`, `probe`, `exec` and `status`, whatever the objects are kept
in: the lab's own file, or an API server, of which a lab sees all objects but runs only the pods of
its own nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from generators.cluster import from_objects
from generators.manifests import Documents
from generators.objects import Node
from lab import netns
from lab import store as stores
from lab.api import objects
from lab.api.topology import hollow_nodes
from lab.created import Backing, CreatedThings
from lab.names import NODE, NodePlaces, Wire
from lab.pods import Running, documents, node_of, running
from lab.store import Store


@dataclass(frozen=True, slots=True)
class Home:
    """One node: the object, and its places on this machine."""

    node: Node
    places: NodePlaces


@dataclass(frozen=True, slots=True)
class View:
    """What there is at this moment."""

    ledger: CreatedThings
    store: Store
    pods: tuple[Running, ...]
    homes: tuple[Home, ...]

    @property
    def documents(self) -> Documents:
        """The objects that decisions about the lab's pods depend on."""
        if self.ledger.state.backing is Backing.FILES:
            return documents(self.store)
        return replace(documents(self.store), pods=tuple(item.pod for item in self.pods))

    def home(self, item: Running) -> Home:
        """The node that a pod runs on."""
        return next(home for home in self.homes if home.node.name == item.node)


def look(ledger: CreatedThings) -> View:
    """The lab as it is now."""
    makers: dict[Backing, Callable[[CreatedThings], View]] = {Backing.FILES: _from_files}
    return makers.get(ledger.state.backing, _from_api)(ledger)


def _from_files(ledger: CreatedThings) -> View:
    places = ledger.places
    store = stores.load(places.run)
    pods = running(places, store)
    node = node_of(from_objects(documents(store)), pods)
    return View(ledger, store, pods, (Home(node, places.node(NODE)),))


def _from_api(ledger: CreatedThings) -> View:
    places = ledger.places
    store = objects.load(places.kubeconfig)
    homes = tuple(
        Home(Node(hollow.name, hollow.addresses, hollow.pod_cidrs), hollow.places)
        for hollow in hollow_nodes(places, ledger.state.nodes)
    )
    return View(ledger, store, tuple(_hollow_pods(ledger, store, homes)), homes)


def _hollow_pods(ledger: CreatedThings, store: Store, homes: Sequence[Home]) -> list[Running]:
    """The running pods of the lab's nodes, by namespace and name."""
    by_node = {home.node.name: home for home in homes}
    found = []
    for pod in store.pods:
        home = by_node.get(pod.node)
        if home is None or not pod.ips or pod.phase != "Running":
            continue
        if pod.host_network:
            found.append(Running(pod, home.places.netns, None, pod.node))
            continue
        where = ledger.places.pod_netns(pod.namespace, pod.name)
        if pod.terminating and not netns.exists(where):
            continue  # only a finalizer keeps the object
        wire = Wire(where, ledger.places.interface(pod.namespace, pod.name), pod.ips)
        found.append(Running(pod, where, wire, pod.node))
    return found
