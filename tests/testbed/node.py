"""A hollow node that executes pods: those of Jobs, and those of Helm's hooks and tests.

    with JobNode(plane) as node:
        plane.kubectl("create", "job", "hello", "--image=ringfence", "--", "ringfence", "--version")
        node.logs("default", "hello-x7k2p")

Registers itself and binds its pods; the lab's `Jobs` execute them, here with any command. All
other pods are left to other nodes.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Self

from generators.documents.json import Document, mapping, text
from generators.kube.client import Client, PatchKind
from generators.kube.errors import KubeError
from generators.kube.resources import NODES
from lab.api.binder import Binder, Waiting
from lab.api.jobs import MOUNT_SECONDS, Here, Jobs
from lab.api.workload import of_a_job_or_hook
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import patience

__all__ = ["JobNode", "of_a_job_or_hook"]

MANAGER = "testbed-node"


class JobNode:
    """One node, from `start` to `stop`; `runs` chooses the pods that are its own.

    `api_port` is where its pods find the API server, for a test that keeps it from them.
    """

    def __init__(
        self,
        plane: ControlPlane,
        runs: Callable[[Document], bool] = of_a_job_or_hook,
        *,
        api_port: int | None = None,
    ) -> None:
        self.name = f"jobs-{token_hex(3)}"
        self._plane = plane
        self._runs = runs
        self._api_port = api_port
        self._stack = ExitStack()
        self._jobs: Jobs | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Register, and begin to look for pods."""
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="ringfence-jobs-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            kubeconfig = str(self._plane.kubeconfig())
            client = stack.enter_context(Client.connect(kubeconfig, user_agent=MANAGER))
            port = self._api_port or self._plane.port
            here = Here(self.name, folder, "127.0.0.1", port, patience(MOUNT_SECONDS))
            self._jobs = stack.enter_context(Jobs(client, here, self._runs))
            self._register(client, self._jobs.port)
            stack.callback(self._leave, client)
            binder = Binder(client, {self.name: {}}, self._waiting)
            Thread(target=binder.run, daemon=True).start()
            stack.callback(binder.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End every process, forget every file, take the node away."""
        self._stack.close()

    def logs(self, namespace: str, name: str) -> str:
        """What the pod's container has said."""
        assert self._jobs is not None, "the node has started"
        return self._jobs.logs(namespace, name)

    def _waiting(self, pod: Document) -> Waiting | None:
        """Every pod that is its own, whatever the pod asks of a node."""
        if text(mapping(pod, "spec"), "nodeName") or not self._runs(pod):
            return None
        return Waiting(text(mapping(pod, "metadata"), "uid"), {}, frozenset())

    def _register(self, client: Client, port: int) -> None:
        node: Document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}
        client.create(NODES, node, manager=MANAGER)
        status: Document = {
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                "conditions": [{"type": "Ready", "status": "True", "reason": "Hollow"}],
            }
        }
        client.patch(
            NODES,
            self.name,
            "",
            status,
            kind=PatchKind.MERGE,
            manager=MANAGER,
            subresource="status",
        )

    def _leave(self, client: Client) -> None:
        with contextlib.suppress(KubeError):
            client.delete(NODES, self.name)
