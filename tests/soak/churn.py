"""What a busy cluster's users do, one request after another: namespaces, pods, labels, policies."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from generators.documents.json import Document
from generators.errors import RingfenceError
from generators.kube.client import OnConflict
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, PODS, Resource
from tests.soak.ground import NODES, Ground

TENANT_SUFFIXES = ("-test01", "-test02", "")
"""The third kind of namespace is nobody's."""
NAMESPACES_AT_MOST = 16
PODS_AT_MOST = 12
AGE_SECONDS = 40.0
"""A namespace younger than that is not deleted: its Events must have been read."""
MANAGER = "soak"


@dataclass
class Churn:
    """Does one thing at a time; what the API server refuses or does not answer is counted."""

    ground: Ground
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    _made: int = 0
    _namespaces: dict[str, float] = field(default_factory=dict)
    _pods: dict[tuple[str, str], int] = field(default_factory=dict)

    def once(self) -> None:
        """One request."""
        act = self.chance.choices(
            (self._add, self._remove, self._add_pod, self._remove_pod, self._relabel, self._policy),
            weights=(3, 3, 5, 5, 6, 8),
        )[0]
        try:
            name = act()
        except RingfenceError as error:
            self.failed[type(error).__name__] += 1
        else:
            if name:
                self.done[name] += 1

    def _add(self) -> str:
        if len(self._namespaces) >= NAMESPACES_AT_MOST:
            return ""
        self._made += 1
        name = f"n{self._made}{self.chance.choice(TENANT_SUFFIXES)}"
        # Known before it is asked for: the answer may be lost, the namespace is not.
        self._namespaces[name] = time.monotonic()
        self._create(NAMESPACES, {"metadata": {"name": name, "labels": {"round": "0"}}})
        return "namespace made"

    def _remove(self) -> str:
        old = [n for n, at in self._namespaces.items() if time.monotonic() - at > AGE_SECONDS]
        if len(self._namespaces) < NAMESPACES_AT_MOST // 2 or not old:
            return ""
        name = self.chance.choice(old)
        self.ground.cluster.admin.delete(NAMESPACES, name)
        del self._namespaces[name]
        self._pods = {key: node for key, node in self._pods.items() if key[0] != name}
        return "namespace deleted"

    def _add_pod(self) -> str:
        if len(self._pods) >= PODS_AT_MOST or not self._namespaces:
            return ""
        self._made += 1
        namespace, name = self.chance.choice(list(self._namespaces)), f"p{self._made}"
        node = self.chance.randint(1, NODES)
        container = {"name": "main", "image": "main", "ports": [{"containerPort": 80}]}
        pod: Document = {
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "a"}},
            "spec": {"nodeName": self.ground.node(node), "containers": [container]},
        }
        self._create(PODS, pod)
        self._pods[namespace, name] = node
        return "pod made"

    def _remove_pod(self) -> str:
        if len(self._pods) < PODS_AT_MOST // 2:
            return ""
        namespace, name = self.chance.choice(list(self._pods))
        self.ground.cluster.admin.delete(PODS, name, namespace, grace_seconds=0)
        del self._pods[namespace, name]
        return "pod deleted"

    def _relabel(self) -> str:
        """A label that selectors ask for: of a pod, or of a namespace."""
        value = self.chance.choice("ab")
        apply = self.ground.cluster.admin.apply
        if self._pods and self.chance.random() < 0.7:
            namespace, name = self.chance.choice(list(self._pods))
            meta: Document = {"name": name, "namespace": namespace, "labels": {"app": value}}
            apply(PODS, {"metadata": meta}, manager=MANAGER, on_conflict=OnConflict.FORCE)
            return "pod relabelled"
        if not self._namespaces:
            return ""
        meta = {"name": self.chance.choice(list(self._namespaces)), "labels": {"round": value}}
        apply(NAMESPACES, {"metadata": meta}, manager=MANAGER, on_conflict=OnConflict.FORCE)
        return "namespace relabelled"

    def _policy(self) -> str:
        """A tenant's own policy beside the generated one: written, changed or deleted."""
        if not self._namespaces:
            return ""
        namespace = self.chance.choice(list(self._namespaces))
        if self.chance.random() < 0.2:
            self.ground.cluster.admin.delete(NETWORK_POLICIES, "own", namespace)
            return "policy deleted"
        peers = [
            {"podSelector": {"matchLabels": {"app": self.chance.choice("ab")}}},
            {"namespaceSelector": {"matchLabels": {"round": self.chance.choice("ab")}}},
        ]
        spec: Document = {
            "podSelector": {"matchLabels": {"app": self.chance.choice("ab")}},
            "ingress": [{"from": peers[: self.chance.randint(1, 2)]}],
        }
        document: Document = {"metadata": {"name": "own", "namespace": namespace}, "spec": spec}
        self.ground.cluster.admin.apply(
            NETWORK_POLICIES, document, manager=MANAGER, on_conflict=OnConflict.FORCE
        )
        return "policy applied"

    def _create(self, resource: Resource, document: Document) -> None:
        self.ground.cluster.admin.create(resource, document, manager=MANAGER)
