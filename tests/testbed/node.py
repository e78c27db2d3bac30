"""A hollow node that executes pods: those of Jobs, and those of Helm's hooks and tests.

    with JobNode(plane) as node:
        plane.kubectl("create", "job", "hello", "--image=ringfence", "--", "ringfence", "--version")
        node.logs("default", "hello-x7k2p")

Binds them, runs the command in a `container.py` with the pod's environment, volumes and a token of
its ServiceAccount, so that RBAC is real, and reports what came of it; Jobs complete, `helm --wait`
and hook log policies work, `kubectl logs` answers. It starts no container twice (`restartPolicy:
Never`), runs one container a pod, and leaves all other pods to other nodes.
"""

from __future__ import annotations

import contextlib
import datetime
import http.server
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Self
from urllib.parse import urlsplit

from generators.kube.client import Client, PatchKind
from generators.kube.documents import Document, key_of, mapping, mappings, text
from generators.kube.errors import Conflict, KubeError, NotFound
from generators.kube.reflector import Reflector
from generators.kube.resources import BINDINGS, NODES, PODS, Key
from tests.testbed import container
from tests.testbed.plane import ControlPlane
from tests.testbed.volumes import Pod, mounts, variables
from tests.testbed.waiting import kill, patience

MANAGER = "testbed-node"
HOOK = "helm.sh/hook"
ENDED = ("Succeeded", "Failed")
MOUNT_SECONDS = 120.0
POLL_SECONDS = 0.1


def of_a_job_or_hook(pod: Document) -> bool:
    """Made by a Job, or by Helm as a hook or test."""
    meta = mapping(pod, "metadata")
    owners = mappings(meta, "ownerReferences")
    return any(text(o, "kind") == "Job" for o in owners) or HOOK in mapping(meta, "annotations")


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
        self._folder = Path()
        self._client: Client | None = None
        self._pods: Reflector[Document] | None = None
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._kubelet: http.server.ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Register, and begin to look for pods."""
        container.check()
        self._folder = Path(tempfile.mkdtemp(prefix="ringfence-jobs-"))
        self._client = Client.connect(str(self._plane.kubeconfig()), user_agent=MANAGER)
        self._kubelet = self._serve_logs()
        self._client.create(NODES, self._node(), manager=MANAGER)
        status: Document = {"status": self._node_status(self._kubelet.server_address[1])}
        self._client.patch(
            NODES,
            self.name,
            "",
            status,
            kind=PatchKind.MERGE,
            manager=MANAGER,
            subresource="status",
        )
        self._pods = Reflector(self._client, PODS, self._own, self._changed)
        self._pods.start()

    def stop(self) -> None:
        """End every process, forget every file, leave the node's object to the plane's end."""
        self._stopping.set()
        if self._pods is not None:
            self._pods.stop()
        for process in list(self._processes.values()):
            process.kill()
        for thread in list(self._threads.values()):
            thread.join(20)
        if self._kubelet is not None:
            self._kubelet.shutdown()
            self._kubelet.server_close()
        if self._client is not None:
            with contextlib.suppress(KubeError):
                self._client.delete(NODES, self.name)
            self._client.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def logs(self, namespace: str, name: str) -> str:
        """What the pod's container has said."""
        log = self._log(namespace, name)
        return log.read_text(errors="replace") if log.exists() else ""

    # --- pods -----------------------------------------------------------------------------------

    def _own(self, pod: Document) -> Document | None:
        node = text(mapping(pod, "spec"), "nodeName")
        mine = node in ("", self.name) and self._runs(pod)
        return pod if mine else None

    def _changed(self, key: Key) -> None:
        pod = self._pods.store.get(key) if self._pods is not None else None
        if pod is None or self._stopping.is_set():
            return
        uid = text(mapping(pod, "metadata"), "uid")
        if "deletionTimestamp" in mapping(pod, "metadata"):
            if process := self._processes.get(uid):
                process.kill()
        elif uid not in self._threads and text(mapping(pod, "status"), "phase") == "Pending":
            thread = threading.Thread(target=self._life, args=(pod,), name=f"pod-{key}")
            self._threads[uid] = thread
            thread.start()

    def _life(self, document: Document) -> None:
        """A pod from binding to its end; runs in a thread of its own."""
        pod = Pod(document)
        with contextlib.suppress(Conflict, NotFound):
            if not text(mapping(document, "spec"), "nodeName"):
                self._bind(pod)
            try:
                code = self._execute(pod)
            except (KubeError, OSError, ValueError) as error:
                # What a kubelet would tell as an event, where a person looks first.
                self._log(pod.namespace, pod.name).write_text(f"{MANAGER}: {error}\n")
                code = 128
            if not self._stopping.is_set():
                self._report(pod, _ended(pod, code))
                self._finish_deletion(pod)

    def _execute(self, pod: Pod) -> int:
        folder = self._folder / pod.uid
        (folder / "root").mkdir(parents=True)
        made = self._once_complete(pod, folder / "volumes")
        log = self._log(pod.namespace, pod.name)
        process = self._processes[pod.uid] = container.start(made, folder / "root", log)
        self._report(pod, _running(pod))
        try:
            return process.wait(pod.deadline)
        except subprocess.TimeoutExpired:
            kill(process)
            return process.returncode
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _once_complete(self, pod: Pod, volumes: Path) -> container.Container:
        """As a kubelet waits for what a pod names: others make it a moment later."""
        deadline = time.monotonic() + patience(MOUNT_SECONDS)
        while True:
            try:
                return self._container(pod, volumes)
            except NotFound:
                late = time.monotonic() > deadline or self._is_leaving(pod)
                if late or self._stopping.wait(POLL_SECONDS):
                    raise
                shutil.rmtree(volumes, ignore_errors=True)

    def _is_leaving(self, pod: Pod) -> bool:
        live = self._pods.store.get(key_of(pod.document)) if self._pods is not None else None
        meta = mapping(live or {}, "metadata")
        return text(meta, "uid") != pod.uid or "deletionTimestamp" in meta

    def _container(self, pod: Pod, volumes: Path) -> container.Container:
        return container.Container(
            command=pod.command,
            environment=variables(pod, self._connected) | self._service_variables(),
            mounts=mounts(pod, self._connected, volumes),
            root=pod.root,
            user=pod.number("runAsUser", container.IMAGE_USER),
            group=pod.number("runAsGroup", container.IMAGE_USER),
            directory=text(pod.container, "workingDir") or "/",
        )

    def _service_variables(self) -> dict[str, str]:
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._api_port or self._plane.port),
        }

    @property
    def _connected(self) -> Client:
        assert self._client is not None, "the node has started"
        return self._client

    def _bind(self, pod: Pod) -> None:
        binding: Document = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.name},
        }
        self._connected.create(BINDINGS, binding, manager=MANAGER)

    def _report(self, pod: Pod, status: Document) -> None:
        self._connected.patch(
            PODS,
            pod.name,
            pod.namespace,
            {"metadata": {"uid": pod.uid}, "status": status},
            kind=PatchKind.MERGE,
            manager=MANAGER,
            subresource="status",
        )

    def _finish_deletion(self, pod: Pod) -> None:
        """A pod that was deleted while it ran is gone only when its node says so."""
        live = self._connected.get(PODS, pod.name, pod.namespace)
        meta = mapping(live, "metadata")
        if text(meta, "uid") == pod.uid and "deletionTimestamp" in meta:
            self._connected.delete(PODS, pod.name, pod.namespace, grace_seconds=0)

    # --- the node itself ------------------------------------------------------------------------

    def _node(self) -> Document:
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}

    def _node_status(self, port: int) -> Document:
        return {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Hollow"}],
        }

    def _log(self, namespace: str, name: str) -> Path:
        return self._folder / f"{namespace}_{name}.log"

    def _serve_logs(self) -> http.server.ThreadingHTTPServer:
        """The part of a kubelet's own API that `kubectl logs` and Helm ask through the server."""
        read = self.logs

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, kind, namespace, name, *_ = [*urlsplit(self.path).path.split("/"), "", "", ""]
                found = kind == "containerLogs"
                body = read(namespace, name).encode() if found else b""
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *_: object) -> None:
                """Requests are no news."""

        pair = self._plane.authority.server(self.name, ["localhost"], ["127.0.0.1"])
        pem = self._folder / "kubelet.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(pair.certificate + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        return server


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(pod: Pod, phase: str, ready: str, state: Mapping[str, object]) -> Document:
    conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
    conditions += [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized")]
    image = text(pod.container, "image")
    return {
        "phase": phase,
        "hostIP": "127.0.0.1",
        "startTime": _now(),
        "conditions": conditions,
        "containerStatuses": [
            {
                "name": text(pod.container, "name"),
                "image": image,
                "imageID": f"hollow://{image}",
                "containerID": f"hollow://{pod.uid}",
                "ready": ready == "True",
                "started": ready == "True",
                "restartCount": 0,
                "state": state,
            }
        ],
    }


def _running(pod: Pod) -> Document:
    return _status(pod, "Running", "True", {"running": {"startedAt": _now()}})


def _ended(pod: Pod, code: int) -> Document:
    # A process that a signal killed: 128 and the signal, as container runtimes say it.
    exit_code = code if code >= 0 else 128 - code
    reason = "Completed" if exit_code == 0 else "Error"
    end = {"exitCode": exit_code, "reason": reason, "finishedAt": _now(), "startedAt": _now()}
    phase = ENDED[0] if exit_code == 0 else ENDED[1]
    return _status(pod, phase, "False", {"terminated": end, "running": None})
