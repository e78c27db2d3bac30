"""Cilium's policies of an API server: whose they are on this node, and what became of their parts.

Where Cilium runs they are its own business. Its agent keeps a CiliumNode under the node's name, and
it alone shows that: the CRDs stay behind when Cilium is uninstalled, and other nodes may run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from enforcer.policy.changes import PolicyChange
from generators.documents.json import Document, Key, key_of
from generators.kube.client import Client, WatchScope
from generators.kube.reflector import Timing
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_NODES,
    CILIUM_POLICIES,
    Resource,
)
from generators.kube.served import ServedKind
from generators.objects import CiliumPolicy, PolicyKind

KINDS: Mapping[PolicyKind, Resource] = {
    PolicyKind.CILIUM: CILIUM_POLICIES,
    PolicyKind.CILIUM_CLUSTERWIDE: CILIUM_CLUSTERWIDE_POLICIES,
}
LEFT_TO_CILIUM = (
    "Cilium runs on this node, its CiliumNode is there: CiliumNetworkPolicies and "
    "CiliumClusterwideNetworkPolicies are left to it; after an uninstall of Cilium delete the "
    "CiliumNode"
)


class CiliumHere:
    """Whether Cilium runs on a node; used like a `ServedKind`."""

    def __init__(
        self,
        client: Client,
        node: str,
        changed: Callable[[Key | None], None],
        timing: Timing | None,
    ) -> None:
        scope = WatchScope(fields=f"metadata.name={node}")
        self._nodes: ServedKind[str] = ServedKind(
            client, CILIUM_NODES, _name, changed, scope=scope, timing=timing
        )
        self.start, self.stop, self.follow = self._nodes.start, self._nodes.stop, self._nodes.follow

    @property
    def synced(self) -> bool:
        """Whether that is known."""
        return self._nodes.synced

    @property
    def is_here(self) -> bool:
        """Whether it does."""
        return bool(len(self._nodes.store))


def _name(document: Document) -> str:
    return key_of(document).name


class KnownParts:
    """The parts of each policy, so that one that is no longer among them goes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Key], tuple[str, ...]] = {}

    def follow(self, kind: str, key: Key, policy: CiliumPolicy | None) -> Iterator[PolicyChange]:
        """What changes when an object is this now; None: it is gone."""
        parts = {part.key: part for part in policy.parts} if policy is not None else {}
        before = self._known.pop((kind, key), ())
        if parts:
            self._known[kind, key] = tuple(parts)
        for name, part in parts.items():
            yield PolicyChange(name, part)
        for name in before:
            if name not in parts:
                yield PolicyChange(name, None)
