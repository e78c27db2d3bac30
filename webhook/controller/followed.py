"""What a controller follows of the cluster, and what it calls on a change.

One reflector for each resource, in every replica, leader or not. The copies of namespaces, policies
and nodes are what workers read; of the record and of admission objects only the fact of a change is
passed on; the callee reads them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from generators.documents.json import resource_version_of
from generators.kube.client import Client, WatchScope
from generators.kube.copies import Copies
from generators.kube.reflector import Reflector
from generators.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    VALIDATING_WEBHOOKS,
    Resource,
)
from generators.labels import OURS
from generators.objects import Namespace, NetworkPolicy, Node
from webhook.controller.reconcile import NetworkPolicyReader, read_namespace, read_node


@dataclass(frozen=True, slots=True)
class ChangeListeners:
    """Callbacks for changes, called from the watch threads."""

    namespace: Callable[[str], None]
    """The namespace of that name, or a generated policy in it."""
    node: Callable[[], None]
    record: Callable[[], None]
    admission: Callable[[], None]


class Followed(Copies):
    """The reflectors of one controller, from `start` to `stop`."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        record: Resource,
        admission: bool,
        told: ChangeListeners,
    ) -> None:
        """`namespace`: the controller's own, where objects of `record` hold the record;
        `admission`: follow the objects of admission, too."""
        self.namespaces: Reflector[Namespace] = Reflector(
            client, NAMESPACES, read_namespace, lambda key: told.namespace(key.name)
        )
        self.policies: Reflector[NetworkPolicy] = Reflector(
            client,
            NETWORK_POLICIES,
            NetworkPolicyReader(),
            lambda key: told.namespace(key.namespace),
            scope=WatchScope(labels=OURS),
        )
        self.nodes: Reflector[Node] = Reflector(client, NODES, read_node, lambda _: told.node())
        self.kept: Reflector[str] = Reflector(
            client,
            record,
            resource_version_of,
            lambda _: told.record(),
            scope=WatchScope(namespace=namespace, labels=OURS),
        )
        # Looked at by GET when their turn comes.
        self._admission: list[Reflector[str]] = [
            Reflector(
                client,
                resource,
                resource_version_of,
                lambda _: told.admission(),
                scope=WatchScope(labels=OURS),
            )
            for resource in (
                VALIDATING_WEBHOOKS,
                MUTATING_WEBHOOKS,
                ADMISSION_POLICIES,
                ADMISSION_POLICY_BINDINGS,
            )
            if admission
        ]

    def reflectors(self) -> tuple[Reflector[Any], ...]:
        """What tenancy rests on comes first."""
        return (self.namespaces, self.policies, self.nodes, self.kept, *self._admission)
