"""The pods of Jobs and of Helm's hooks and tests, executed: each is a process of this host.

A network namespace would never complete a Job. So the hollow kubelet, and the tests' node
(tests/testbed/node.py), hand such pods to `Jobs`: the command runs in a `container.py` with the
pod's environment, volumes and a token of its ServiceAccount, so that RBAC is real, and what came of
it is reported. Jobs complete, `helm --wait` and hook log policies work, `kubectl logs` answers any
caller on this machine. No container is started twice (`restartPolicy: Never`), and a pod has one.
"""

from __future__ import annotations

import contextlib
import datetime
import http.server
import logging
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from generators.documents.json import Document, Key, key_of, mapping, text
from generators.kube.client import Client, PatchKind
from generators.kube.errors import Conflict, KubeError, NotFound
from generators.kube.reflector import Reflector
from generators.kube.resources import PODS
from generators.process.logs import event
from lab.api import container
from lab.api.plane import authority_named, server_pair
from lab.api.volumes import Pod, mounts, variables

log = logging.getLogger("ringfence.lab.jobs")

MANAGER = "ringfence-lab-jobs"
MOUNT_SECONDS = 120.0
POLL_SECONDS = 0.1
ENDED = ("Succeeded", "Failed")
LOST = 137
"""What a runtime reports of a killed container."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where pods are executed: on which node, and where they find the API server."""

    node: str
    folder: Path
    api_host: str
    api_port: int
    mount_seconds: float = MOUNT_SECONDS
    """How long a pod waits for a mounted ConfigMap that does not exist yet."""


class Jobs:
    """Executes those pods of one node that `runs` chooses, from `start` to `stop`."""

    def __init__(self, client: Client, here: Here, runs: Callable[[Document], bool]) -> None:
        self._client = client
        self._here = here
        self._runs = runs
        self._pods = Reflector(client, PODS, self._own, self._changed)
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        here.folder.mkdir(parents=True, exist_ok=True)
        self._server = self._serve_logs()

    @property
    def port(self) -> int:
        """Where `kubectl logs` is answered on loopback: a node's kubeletEndpoint."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        container.check()
        self._pods.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End every process; their pods keep their last status."""
        self._stopping.set()
        self._pods.stop()
        for process in list(self._processes.values()):
            process.kill()
        for thread in list(self._threads.values()):
            thread.join(20)
        self._server.shutdown()
        self._server.server_close()

    def logs(self, namespace: str, name: str) -> str:
        """The log of the pod's container."""
        path = self._log(namespace, name)
        return path.read_text(errors="replace") if path.exists() else ""

    # --- pods -----------------------------------------------------------------------------------

    def _own(self, pod: Document) -> Document | None:
        mine = text(mapping(pod, "spec"), "nodeName") == self._here.node and self._runs(pod)
        return pod if mine else None

    def _changed(self, key: Key) -> None:
        pod = self._pods.store.get(key)
        if pod is None or self._stopping.is_set():
            return
        uid = text(mapping(pod, "metadata"), "uid")
        process = self._processes.get(uid)
        if process is not None and "deletionTimestamp" in mapping(pod, "metadata"):
            process.kill()
        if uid not in self._threads and text(mapping(pod, "status"), "phase") not in ENDED:
            thread = threading.Thread(target=self._life, args=(pod,), name=f"pod-{key}")
            self._threads[uid] = thread
            thread.start()

    def _life(self, document: Document) -> None:
        """A pod from its binding to its end; runs in a thread of its own."""
        pod = Pod(document)
        with contextlib.suppress(Conflict, NotFound):
            code = self._outcome(pod)
            if not self._stopping.is_set():
                event(log, "job_ended", pod=str(key_of(document)), uid=pod.uid, code=code)
                self._report(pod, _ended(pod, code))
                self._finish_deletion(pod)

    def _outcome(self, pod: Pod) -> int:
        status = mapping(pod.document, "status")
        if text(status, "phase") == "Running":
            return LOST  # with the process that ran it: it is not ours to run it twice
        if "deletionTimestamp" in mapping(pod.document, "metadata"):
            return LOST
        try:
            return self._execute(pod)
        except (KubeError, OSError, ValueError) as error:
            # What a kubelet would tell as an event, where a person looks first.
            self._log(pod.namespace, pod.name).write_text(f"{MANAGER}: {error}\n")
            return 128

    def _execute(self, pod: Pod) -> int:
        folder = self._here.folder / pod.uid
        shutil.rmtree(folder, ignore_errors=True)  # of a kubelet that was killed
        (folder / "root").mkdir(parents=True)
        made = self._once_complete(pod, folder / "volumes")
        output = self._log(pod.namespace, pod.name)
        process = self._processes[pod.uid] = container.start(made, folder / "root", output)
        self._report(pod, _running(pod))
        try:
            return process.wait(pod.deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _once_complete(self, pod: Pod, volumes: Path) -> container.ContainerSpec:
        """As a kubelet waits for what a pod names: others make it a moment later."""
        deadline = time.monotonic() + self._here.mount_seconds
        while True:
            try:
                return self._container(pod, volumes)
            except NotFound:
                late = time.monotonic() > deadline or self._is_leaving(pod)
                if late or self._stopping.wait(POLL_SECONDS):
                    raise
                shutil.rmtree(volumes, ignore_errors=True)

    def _is_leaving(self, pod: Pod) -> bool:
        live = self._pods.store.get(key_of(pod.document))
        meta = mapping(live or {}, "metadata")
        return text(meta, "uid") != pod.uid or "deletionTimestamp" in meta

    def _container(self, pod: Pod, volumes: Path) -> container.ContainerSpec:
        server = {
            "KUBERNETES_SERVICE_HOST": self._here.api_host,
            "KUBERNETES_SERVICE_PORT": str(self._here.api_port),
        }
        return container.ContainerSpec(
            command=pod.command,
            environment=variables(pod, self._client) | server,
            mounts=mounts(pod, self._client, volumes),
            root=pod.root,
            user=pod.number("runAsUser", container.IMAGE_USER),
            group=pod.number("runAsGroup", container.IMAGE_USER),
            directory=text(pod.container, "workingDir") or "/",
        )

    def _report(self, pod: Pod, status: Document) -> None:
        self._client.patch(
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
        live = self._client.get(PODS, pod.name, pod.namespace)
        meta = mapping(live, "metadata")
        if text(meta, "uid") == pod.uid and "deletionTimestamp" in meta:
            self._client.delete(PODS, pod.name, pod.namespace, grace_seconds=0)

    # --- logs -----------------------------------------------------------------------------------

    def _log(self, namespace: str, name: str) -> Path:
        return self._here.folder / f"{namespace}_{name}.log"

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

        # An API server looks at no kubelet's certificate unless it is told a CA for them.
        pair = server_pair(authority_named("ringfence-lab-jobs"), "localhost", "127.0.0.1")
        pem = self._here.folder / "kubelet.pem"
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
