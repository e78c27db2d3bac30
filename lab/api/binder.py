"""A scheduler for hollow nodes: every pod that waits goes to the next node that it allows.

One kubelet of a lab runs it. It looks at `nodeSelector` and at the node names that a DaemonSet
writes into the affinity; resources, taints and the rest mean nothing to a network namespace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from generators.documents.json import Document, Key, mapping, mappings, strings, text
from generators.kube.client import Client, WatchScope
from generators.kube.errors import Conflict, KubeError, NotFound
from generators.kube.queue import WorkQueue
from generators.kube.reflector import Reflector
from generators.kube.resources import BINDINGS, PODS
from generators.process.logs import event
from lab.api.workload import hosted, owned_by_job

log = logging.getLogger("ringfence.lab.binder")

MANAGER = "ringfence-lab-binder"
UNBOUND = WatchScope(fields="spec.nodeName=")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pod without a node, and what it asks of one."""

    uid: str
    selector: Mapping[str, str]
    names: frozenset[str]
    """Nodes by name that its affinity allows; empty: all."""

    def allows(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether it may run on that node."""
        selected = all(labels.get(key) == value for key, value in self.selector.items())
        return selected and (not self.names or name in self.names)


def waiting(document: Document) -> Waiting | None:
    """A pod that needs a node; None for those that are not for us."""
    meta, spec = mapping(document, "metadata"), mapping(document, "spec")
    if text(spec, "nodeName") or "deletionTimestamp" in meta:
        return None
    if owned_by_job(document) and not hosted(document):
        return None
    if text(spec, "schedulerName") not in ("", "default-scheduler"):
        return None
    return Waiting(text(meta, "uid"), strings(spec, "nodeSelector"), _named_nodes(spec))


def _named_nodes(spec: Mapping[str, object]) -> frozenset[str]:
    """The node that a DaemonSet made the pod for."""
    affinity = mapping(mapping(spec, "affinity"), "nodeAffinity")
    required = mapping(affinity, "requiredDuringSchedulingIgnoredDuringExecution")
    found: list[str] = []
    for term in mappings(required, "nodeSelectorTerms"):
        for field in mappings(term, "matchFields"):
            values = field.get("values")
            if text(field, "key") == "metadata.name" and isinstance(values, list):
                found += [str(value) for value in values]
    return frozenset(found)


class Binder:
    """Binds the pods that `choose` knows to nodes in turn; `run` in a thread until `stop`."""

    def __init__(
        self,
        client: Client,
        nodes: Mapping[str, Mapping[str, str]],
        choose: Callable[[Document], Waiting | None] = waiting,
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._turn = 0
        self._queue: WorkQueue[Key] = WorkQueue()
        self._pods = Reflector(client, PODS, choose, self._queue.add, scope=UNBOUND)

    def run(self) -> None:
        """Bind until stopped."""
        self._pods.start()
        while (key := self._queue.get()) is not None:
            try:
                self._bind(key)
            except KubeError as error:
                event(log, "binding_failed", logging.WARNING, pod=str(key), error=str(error))
                self._queue.retry(key)
            else:
                self._queue.done(key)

    def stop(self) -> None:
        """End `run`."""
        self._queue.close()
        self._pods.stop()

    def _bind(self, key: Key) -> None:
        pod = self._pods.store.get(key)
        if pod is None:
            return
        name = self._next(pod)
        if name is None:
            event(log, "no_node_fits", logging.WARNING, pod=str(key), selector=dict(pod.selector))
            return
        binding: Document = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": name},
        }
        try:
            self._client.create(BINDINGS, binding, manager=MANAGER)
        except (Conflict, NotFound):
            return  # bound by somebody else, or gone

    def _next(self, pod: Waiting) -> str | None:
        names: Sequence[str] = sorted(self._nodes)
        for step in range(len(names)):
            name = names[(self._turn + step) % len(names)]
            if pod.allows(name, self._nodes[name]):
                self._turn = (self._turn + step + 1) % len(names)
                return name
        return None
