"""A hollow kubelet: runs the pods of one node as network namespaces, and reports them.

`lab up --api-server` starts one a node (`python -m lab.api.kubelet`). A pod gets addresses and a
veth with its links down; when the agent enforces it, the links go up, the responder answers on its
ports, and its status becomes Running and Ready. Killed, it finds all of that again in its journal:
the pods run on meanwhile, because nothing of them is this process. A pod on its node's network is a
set of listening ports in the node's network namespace, and no more; and pods of Jobs and hooks are
processes of this host, which end with the kubelet (jobs.py).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from generators.documents.json import Document, Key, labels_of
from generators.errors import RingfenceError
from generators.kube.client import Client, PatchKind, Preconditions, WatchScope
from generators.kube.errors import AlreadyExists, Conflict, NotFound
from generators.kube.queue import Backoff, WorkQueue
from generators.kube.reflector import Reflector
from generators.kube.resources import NODES, PODS
from generators.process import logs, signals
from generators.process.logs import event
from lab.api import enforcement, kubeconfig
from lab.api.binder import Binder
from lab.api.enforcement import Enforcement
from lab.api.jobs import Here, Jobs
from lab.api.runtime import Runtime
from lab.api.services import Proxy
from lab.api.workload import (
    Assigned,
    addressed_patch,
    assigned,
    hosted,
    node_document,
    node_status,
    running_patch,
)
from lab.journal import Journal, Sandbox, Stage
from lab.names import Places, Shape, places
from lab.pods import site
from lab.responder import ResponderFailed, Site, announce
from lab.topology import LabNode, lab_nodes, node_named

log = logging.getLogger("ringfence.lab.kubelet")

MANAGER = "ringfence-lab-kubelet"
WORKERS = 4
LOOK_SECONDS = 0.02
"""Between two questions to the agent whether a pod is enforced."""
PATIENCE = Backoff(first=0.05, longest=2.0)
RESPONDER_SECONDS = 2.0
SYNC_SECONDS = 120.0


@dataclass(slots=True)
class _Announced:
    """What the responder last got, and which responder that was (inode of its socket)."""

    sites: tuple[Site, ...] = ()
    socket: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Kubelet:
    """One node's pods, kept as the API server wants them."""

    def __init__(
        self,
        client: Client,
        lab: Places,
        node: LabNode,
        enforcement: Enforcement,
        shape: Shape,
    ) -> None:
        self._client = client
        self._lab = lab
        self._node = node
        self._enforcement = enforcement
        self._journal = Journal(node.places.journal)
        self._runtime = Runtime(lab, node, self._journal, enforcement, shape)
        self._announced = _Announced()
        self._queue: WorkQueue[Key] = WorkQueue(PATIENCE)
        scope = WatchScope(fields=f"spec.nodeName={node.name}")
        self._pods = Reflector(client, PODS, assigned, self._queue.add, scope=scope)

    def run(self, stop: threading.Event, ready: Path) -> None:
        """Run the node's pods until stopped; they run on afterwards."""
        self._pods.start()
        if not self._pods.wait_synced(SYNC_SECONDS):
            raise RingfenceError(f"the API server lists no pods within {SYNC_SECONDS:.0f} s")
        for key in self._journal.snapshot():
            self._queue.add(Key(*key.split("/")))
        self._announce()
        workers = [threading.Thread(target=self._work) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        ready.touch()
        event(log, "kubelet_started", node=self._node.name)
        while not stop.wait(RESPONDER_SECONDS):
            self._remind()
        self._queue.close()
        self._pods.stop()
        for worker in workers:
            worker.join()

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._step(key)
            except (RingfenceError, OSError) as error:
                event(log, "pod_failed", logging.WARNING, pod=str(key), error=str(error))
                self._queue.retry(key)
            else:
                self._queue.done(key)

    def _step(self, key: Key) -> None:
        """Bring one pod further; what has to wait for others comes back."""
        item = self._pods.store.get(key)
        sandbox = self._journal.of(str(key))
        if sandbox is not None and (item is None or item.leaves or item.pod.uid != sandbox.uid):
            with contextlib.suppress(ResponderFailed):
                self._announce(without=sandbox.key)
            self._runtime.tear_down(sandbox)
            event(log, "pod_stopped", pod=str(key), uid=sandbox.uid)
            sandbox = None
        if item is None or item.leaves:
            self._announce()
            if item is not None and item.pod.terminating:
                self._confirm_deleted(key, item)
        elif item.pod.host_network:
            self._announce()
            self._report(key, item, self._node.addresses)
        else:
            self._start(key, item, sandbox or self._runtime.plan(item.pod))

    def _start(self, key: Key, item: Assigned, sandbox: Sandbox) -> None:
        """From a planned sandbox to a running pod."""
        if sandbox.stage is Stage.PLANNED:
            sandbox = self._runtime.wire(sandbox)
        if sandbox.stage is Stage.WIRED:
            told = set(item.pod.ips) == set(sandbox.addresses)
            if self._enforcement.announces and not told:
                self._patch(key, addressed_patch(item.pod, self._node, sandbox.addresses), "status")
            if not self._enforcement.in_force(sandbox):
                self._queue.add_after(key, LOOK_SECONDS)
                return
            sandbox = self._runtime.connect(sandbox)
            event(log, "pod_started", pod=str(key), uid=sandbox.uid, netns=sandbox.netns)
        self._announce()
        self._report(key, item, sandbox.addresses)

    def _report(self, key: Key, item: Assigned, addresses: tuple[str, ...]) -> None:
        if not item.ready:
            self._patch(key, running_patch(item, self._node, addresses, _now()), "status")

    def _patch(self, key: Key, patch: Document, subresource: str = "") -> None:
        try:
            self._client.patch(
                PODS,
                key.name,
                key.namespace,
                patch,
                kind=PatchKind.MERGE,
                manager=MANAGER,
                subresource=subresource,
            )
        except (NotFound, Conflict):
            return  # gone, or another of that name: its event is on the way

    def _confirm_deleted(self, key: Key, item: Assigned) -> None:
        only_if = Preconditions(uid=item.pod.uid)
        try:
            self._client.delete(PODS, key.name, key.namespace, only_if=only_if, grace_seconds=0)
        except (NotFound, Conflict):
            return

    # --- the responder --------------------------------------------------------------------------

    def _announce(self, without: str = "") -> None:
        """Tell the responder which pods answer, unless it knows."""
        with self._announced.lock:
            sites = tuple(sorted(self._sites(without)))
            socket = _inode(self._node.places.responder_socket)
            if (sites, socket) != (self._announced.sites, self._announced.socket):
                announce(self._node.places.responder_socket, sites)
                self._announced.sites, self._announced.socket = sites, socket

    def _sites(self, without: str) -> list[Site]:
        sandboxes = self._journal.snapshot()
        found = []
        for item in self._pods.store.snapshot().values():
            pod, sandbox = item.pod, sandboxes.get(item.pod.key)
            if item.leaves or pod.key == without:
                continue
            if pod.host_network:
                found.append(site(pod, self._node.places.netns))
            elif sandbox is not None and sandbox.stage is Stage.CONNECTED:
                found.append(site(pod, sandbox.netns))
        return found

    def _remind(self) -> None:
        """A restarted responder knows no pods."""
        try:
            self._announce()
        except ResponderFailed as error:
            event(log, "responder_away", logging.WARNING, error=str(error))


def register(client: Client, lab: Places, node: LabNode, logs_port: int) -> None:
    """Have the API server know the node, ready."""
    document = node_document(node, lab.name)
    try:
        client.create(NODES, document, manager=MANAGER)
    except AlreadyExists:
        client.apply(NODES, document, manager=MANAGER)
    status = node_status(node, logs_port, _now())
    client.patch(
        NODES, node.name, "", status, kind=PatchKind.MERGE, manager=MANAGER, subresource="status"
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def main() -> None:
    """Run one node until SIGTERM."""
    parser = argparse.ArgumentParser(description="run the pods of one hollow node")
    parser.add_argument("--lab", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--ready", type=Path, required=True, help="made when pods are followed")
    parser.add_argument("--network", type=Shape, required=True, help="how pods are wired")
    parser.add_argument("--bind", type=int, default=0, help="bind pods to so many nodes")
    asked = parser.parse_args()
    logs.configure()
    stop = threading.Event()
    signals.on_end(stop.set)
    lab = places(asked.lab)
    node = node_named(lab, asked.node)
    with ExitStack() as stack:
        client = stack.enter_context(
            Client.connect(asked.kubeconfig, user_agent="ringfence-lab-kubelet")
        )
        if asked.bind:
            nodes = {n.name: _labels(n, lab) for n in lab_nodes(lab, asked.bind)}
            binder = Binder(client, nodes)
            threading.Thread(target=binder.run, daemon=True).start()
            stack.callback(binder.stop)
        proxy = Proxy(client, node.places.netns)
        threading.Thread(target=proxy.run, daemon=True).start()
        stack.callback(proxy.stop)
        server = kubeconfig.target(Path(asked.kubeconfig))
        here = Here(node.name, lab.run / f"jobs-{node.name}", server.host, server.port)
        jobs = stack.enter_context(Jobs(client, here, hosted))
        register(client, lab, node, jobs.port)
        plan = enforcement.plan(node.places)
        Kubelet(client, lab, node, plan, asked.network).run(stop, asked.ready)


def _labels(node: LabNode, lab: Places) -> dict[str, str]:
    return labels_of(node_document(node, lab.name))


if __name__ == "__main__":
    main()
