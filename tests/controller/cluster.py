"""A cluster as its users have it: a real API server, our webhook and controller as processes.

The controller runs as its ServiceAccount with exactly the rules that `ringfence controller rules`
prints; the webhook with the certificates that the controller made.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from urllib.request import urlopen

import yaml

from generators.documents.json import Document, key_of, mapping, strings, text
from generators.isolation.record import RECORD_PREFIX, SHARDS, RecordEntry, parse_entry
from generators.kube.client import Client, PatchKind, WatchScope
from generators.kube.errors import NotFound
from generators.kube.resources import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    SERVICE_ACCOUNTS,
    Resource,
)
from tests.controller.balancer import Balancer
from tests.testbed.plane import ControlPlane
from tests.testbed.processes import free_ports
from tests.testbed.waiting import ended, eventually, kill, patience

COMMAND = Path(sys.executable).with_name("ringfence")
SYSTEM = "ringfence-system"
POLICY = "allow-ingress-namespace"
KEY = "client"
TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
retiredLabelKeys: [owner]
admins: {groups: [platform-team], serviceAccounts: [ops/mover]}
shared:
  - name: ingress
    namespaces: {names: [ingress]}
tenants:
  - name: test01
    namespaces: {names: [legacy-shop], prefixes: ["test01-"], suffixes: ["-test01"]}
    members: {groups: [team-test01, everywhere], serviceAccounts: [ci/deployer]}
    labels: {cost-centre: "4711"}
    allowFrom: [{tenant: test02, ports: [{port: 5432, protocol: TCP}]}]
  - name: test02
    namespaces: {suffixes: ["-test02"]}
    members: {groups: [team-test02, everywhere]}
    allowTo: [{tenant: test01}]
"""


def allowing(name: str, rules: Sequence[str], groups: Sequence[str]) -> str:
    """Manifests by which groups may do what flow-style rules say."""
    group = "kind: Group, apiGroup: rbac.authorization.k8s.io, name"
    return "\n".join(
        (
            "---",
            "apiVersion: rbac.authorization.k8s.io/v1",
            "kind: ClusterRole",
            f"metadata: {{name: {name}}}",
            "rules:",
            *(f"- {rule}" for rule in rules),
            "---",
            "apiVersion: rbac.authorization.k8s.io/v1",
            "kind: ClusterRoleBinding",
            f"metadata: {{name: {name}}}",
            f"roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}",
            "subjects:",
            *(f"- {{{group}: {each}}}" for each in groups),
            "",
        )
    )


USERS = allowing(
    "cluster-user",
    [
        '{apiGroups: [""], resources: [namespaces, namespaces/status, namespaces/finalize],'
        ' verbs: ["*"]}',
        '{apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: ["*"]}',
        '{apiGroups: [""], resources: [configmaps, serviceaccounts], verbs: ["*"]}',
    ],
    [
        *("team-test01", "team-test02", "everywhere", "platform-team", "robots"),
        *("system:serviceaccounts:ci", "system:serviceaccounts:ops"),
    ],
)
"""What members, admins and robots may do by RBAC: everything that admission must then judge."""

CONTROLLER = f"system:serviceaccount:{SYSTEM}:ringfence-controller"


@cache
def rules() -> str:
    """The controller's RBAC objects, as the command prints them."""
    command = [str(COMMAND), "controller", "rules"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Process:
    """One `ringfence` command with its log."""

    def __init__(self, folder: Path, name: str, *arguments: str | Path) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([COMMAND, *arguments], stderr=log, stdout=log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self, name: str) -> list[Document]:
        lines = [line for line in self.log.read_bytes().split(b"\n")[:-1] if line[:1] == b"{"]
        return [event for line in lines if (event := json.loads(line))["event"] == name]

    def ended(self) -> int | None:
        return self._process.poll()

    def until(self, holds: Callable[[], bool], what: str, seconds: float, poll: float) -> None:
        """Wait for what it has to bring about; fails at once where it has ended."""

        def comes() -> bool:
            assert self.ended() is None, f"ended before {what}: {self.log.read_text()}"
            return holds()

        eventually(comes, f"{what}: {self.log}", seconds, poll)

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM and its exit code."""
        self._process.terminate()
        return ended(self._process, seconds)

    def kill(self) -> None:
        """SIGKILL, children first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with contextlib.suppress(OSError):
            for pid in [*children.read_text().split(), str(self.pid)]:
                os.kill(int(pid), signal.SIGKILL)
        kill(self._process)


class ControllerProcess(Process):
    """A running controller; ask its health port."""

    def __init__(self, folder: Path, name: str, *arguments: str | Path) -> None:
        (self.port,) = free_ports(1)
        listen = ("--metrics-listen", f"127.0.0.1:{self.port}")
        super().__init__(folder, name, "controller", "run", *listen, *arguments)

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; 0 when nobody answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience(5))
            with contextlib.closing(connection):
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
        return 0, ""

    def metrics(self) -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=patience(60)) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def ready(self) -> bool:
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def leads(self) -> bool:
        return "[+]leader" in self.get("/readyz")[1]

    def in_force(self) -> bool:
        state = 'ringfence_controller_admission_state{state="in-force"}'
        return self.ready() and self.metrics()[state] == 1


class Cluster:
    """A control plane with Ringfence's objects, and the processes that were started on it."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.key = KEY
        """The tenant label of the file in force."""
        self.tenants = folder / "tenants.yaml"
        self.tenants.write_text(TENANTS)
        self.certificates = folder / "certificates"
        self.admin = Client.connect(str(plane.kubeconfig()))
        self._processes: list[Process] = []
        self._webhooks: list[Process] = []
        self._clients: dict[tuple[str, ...], Client] = {}
        self.balancer: Balancer | None = None
        self.service = ""
        """`NAMESPACE/NAME:PORT` where the API server finds the webhook by its Service."""
        (self.webhook_port,) = free_ports(1)
        for document in yaml.safe_load_all(rules() + USERS):
            self.admin.apply(_resource_of(document), document, manager="test")
        self.kubeconfig = plane.service_account_kubeconfig(SYSTEM, "ringfence-controller")

    # --- processes ------------------------------------------------------------------------------

    def controller(self, *options: str | Path, webhook: bool = True) -> ControllerProcess:
        """Start a controller; `webhook` = registers the webhook."""
        target: tuple[str | Path, ...] = ()
        if webhook:
            target = ("--webhook-url", f"https://127.0.0.1:{self.webhook_port}")
            if self.service:
                target = ("--webhook-service", self.service)
            target += ("--certificate-dir", self.certificates, "--settle-seconds", "0.5")
        number = len(self._processes)
        base = ("-c", self.tenants, "--kubeconfig", self.kubeconfig)
        process = ControllerProcess(self.folder, f"controller-{number}", *base, *target, *options)
        self._processes.append(process)
        return process

    def replicas(self, count: int = 2) -> list[Path]:
        """Start several webhooks behind one address, each with a tenant file of its own."""
        ports = free_ports(count)
        files = [self.folder / f"tenants-of-replica-{n}.yaml" for n in range(count)]
        for file, port in zip(files, ports, strict=True):
            file.write_bytes(self.tenants.read_bytes())
            self.webhook(tenants=file, port=port)
        self.balancer = Balancer(self.webhook_port, ports)
        return files

    def webhook(
        self,
        *options: str | Path,
        tenants: Path | None = None,
        port: int | None = None,
        host: str = "127.0.0.1",
    ) -> Process:
        """Start the webhook once the controller has made certificates; returns when it serves."""
        pair = (self.certificates / "tls.crt", self.certificates / "tls.key")
        eventually(lambda: all(file.exists() for file in pair), "certificates")
        process = Process(
            self.folder,
            f"webhook-{len(self._processes)}",
            *("webhook", "serve", "-c", tenants or self.tenants, "--drain-seconds", "0"),
            *("--listen", f"{host}:{port or self.webhook_port}"),
            *("--tls-cert", pair[0], "--tls-key", pair[1]),
            *options,
        )
        self._processes.append(process)
        self._webhooks.append(process)
        eventually(lambda: bool(process.events("listening")), "webhook listens")
        return process

    def stop_webhooks(self) -> None:
        """All replicas gone at once."""
        for process in self._webhooks:
            process.kill()
        self._webhooks.clear()

    def stop(self) -> None:
        if self.balancer is not None:
            self.balancer.close()
        for process in self._processes:
            process.kill()
        for client in (self.admin, *self._clients.values()):
            client.close()

    # --- what is there --------------------------------------------------------------------------

    def labels(self, namespace: str) -> Mapping[str, str]:
        document = self.admin.get(NAMESPACES, namespace)
        return strings(mapping(document, "metadata"), "labels")

    def tenant(self, namespace: str) -> str | None:
        return self.labels(namespace).get(self.key)

    def uid(self, namespace: str) -> str:
        return text(mapping(self.admin.get(NAMESPACES, namespace), "metadata"), "uid")

    def record(self) -> dict[str, RecordEntry]:
        found: dict[str, RecordEntry] = {}
        for name in SHARDS:
            with contextlib.suppress(NotFound):
                shard = self.admin.get(CONFIG_MAPS, RECORD_PREFIX + name, SYSTEM)
                for uid, entry in strings(shard, "data").items():
                    parsed = parse_entry(entry)
                    assert parsed is not None
                    found[uid] = parsed
        return found

    def recorded(self, namespace: str) -> str | None:
        entry = self.record().get(self.uid(namespace))
        return None if entry is None else entry.tenant

    def has_default_account(self, namespace: str) -> bool:
        try:
            self.admin.get(SERVICE_ACCOUNTS, "default", namespace)
        except NotFound:
            return False
        return True

    def policy(self, namespace: str, name: str = POLICY) -> Document | None:
        try:
            return self.admin.get(NETWORK_POLICIES, name, namespace)
        except NotFound:
            return None

    def isolated(self, namespace: str, tenant: str) -> bool:
        """Label, record and policy agree."""
        policy = self.policy(namespace)
        return (
            policy is not None
            and f'"{self.key}": "{tenant}"' in json.dumps(policy["spec"])
            and self.tenant(namespace) == tenant
            and self.recorded(namespace) == tenant
        )

    def nobodys(self, namespace: str) -> bool:
        """Neither label nor record nor policy."""
        there = (self.tenant(namespace), self.recorded(namespace), self.policy(namespace))
        return there == (None, None, None)

    def reasons(self, namespace: str) -> list[str]:
        """Reasons of our Events in a namespace."""
        found = self.admin.list_all(EVENTS, WatchScope(namespace=namespace))
        return [text(item, "reason") for item in found if "ringfence-" in key_of(item).name]

    def status(self) -> dict[str, str]:
        try:
            return strings(self.admin.get(CONFIG_MAPS, "ringfence-status", SYSTEM), "data")
        except NotFound:
            return {}

    def synchronized(self) -> bool:
        digest = self.status().get("configDigest")
        wanted = hashlib.sha256(self.tenants.read_bytes()).hexdigest()
        return digest == wanted and self.status()["synchronized"] == "true"

    def as_user(self, user: str, *groups: str) -> Client:
        """A client with a certificate of that user."""
        key = (user, *groups)
        if key not in self._clients:
            self._clients[key] = Client.connect(str(self.plane.kubeconfig(user, groups)))
        return self._clients[key]

    def make(self, name: str, by: Client | None = None, **metadata: object) -> None:
        """Create a namespace."""
        client = by or self.admin
        client.create(NAMESPACES, {"metadata": {"name": name} | metadata}, manager="test")

    def label(self, name: str, value: str | None, by: Client | None = None, key: str = KEY) -> None:
        """Set or remove a label of a namespace."""
        patch: Document = {"metadata": {"labels": {key: value}}}
        client = by or self.admin
        client.patch(NAMESPACES, name, "", patch, kind=PatchKind.MERGE, manager="test")


def _resource_of(document: Document) -> Resource:
    """Of the kinds in `controller rules`, whose plurals are regular."""
    kind, named = text(document, "kind"), mapping(document, "metadata")
    group, _, version = text(document, "apiVersion").rpartition("/")
    return Resource(group, version, f"{kind.lower()}s", kind, namespaced="namespace" in named)


@contextlib.contextmanager
def cluster(
    folder: Path,
    kind: type[Cluster] = Cluster,
    plane: AbstractContextManager[ControlPlane] | None = None,
) -> Iterator[Cluster]:
    """A cluster for as long as the block runs; its control plane is its own unless given."""
    with plane or ControlPlane() as running:
        made = kind(running, folder)
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def guarded(
    folder: Path, *options: str, plane: AbstractContextManager[ControlPlane] | None = None
) -> Iterator[tuple[Cluster, ControllerProcess]]:
    """A cluster with webhook and controller, admission in force."""
    with cluster(folder, plane=plane) as made:
        controller = made.controller(*options)
        made.webhook()
        eventually(controller.in_force, f"admission in force: {controller.log}")
        yield made, controller
