"""A lab as the looking commands see it: its objects, and the pods that run with where they run.

`session.looking` makes one for `get`, `probe`, `exec` and `status`, whatever the objects are kept
in: the lab's own file, or an API server, of which a lab sees all objects but runs only the pods of
its own nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from generators.manifests import Documents
from generators.objects import Node
from lab.created import CreatedThings
from lab.names import NodePlaces
from lab.pods import Running, documents
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
    shared: bool = False
    """Pods in the store may run elsewhere: only those of the lab's nodes count."""

    @property
    def documents(self) -> Documents:
        """The objects that decisions about the lab's pods depend on."""
        found = documents(self.store)
        return replace(found, pods=tuple(p.pod for p in self.pods)) if self.shared else found

    def home(self, item: Running) -> Home:
        """The node that a pod runs on."""
        return next(home for home in self.homes if home.node.name == item.node)
