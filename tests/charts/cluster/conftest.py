"""A cluster in which charts/ringfence is installed for real, with an audit log of who did what.

Its node runs the chart's webhook and controller as the chart says: their user, read-only root,
mounts, arguments and the tokens of their ServiceAccounts. What stands in: one pod each, on this
host's network, and a Service that the API server finds without cluster addresses.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.sources.api import ApiSupply
from enforcer.sources.tenants import AgentTenants
from generators.documents.json import Document, mapping, strings
from generators.kube.client import Client
from tests.charts.cluster.rendered import SYSTEM
from tests.testbed.node import JobNode, of_a_job_or_hook
from tests.testbed.plane import ControlPlane
from tests.testbed.processes import free_ports
from tests.testbed.waiting import eventually

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts:ringfence-system"]
  - level: None
"""
COMPONENT = "app.kubernetes.io/component"
SECONDS = 180.0
"""Longer than all that happens here takes on a busy machine: real processes start for each step."""


def runs_here(pod: Document) -> bool:
    """All but the node agent, which needs a node of its own."""
    labels = strings(mapping(pod, "metadata"), "labels")
    return of_a_job_or_hook(pod) or labels.get(COMPONENT) in ("webhook", "controller")


@dataclass(frozen=True, slots=True)
class Site:
    """A control plane with a node, and looks at what Ringfence did there."""

    plane: ControlPlane
    node: JobNode
    audit: Path

    def values(self) -> dict[str, object]:
        """What makes the chart run on one host: one pod each, on ports that are free."""
        webhook, webhook_metrics, controller_metrics = free_ports(3)
        return {
            "webhook": {
                "replicas": 1,
                "port": webhook,
                "servicePort": webhook,
                "metricsPort": webhook_metrics,
                "drainSeconds": 0,
            },
            "controller": {
                "replicas": 1,
                "metricsPort": controller_metrics,
                "settleSeconds": 1,
                "leaseSeconds": 3,
            },
        }

    def find_service(self) -> None:
        """Tell the API server where the Service's pod is: here."""
        here = {"spec": {"type": "ExternalName", "externalName": "localhost", "clusterIP": None}}
        service = ("service", "ringfence-webhook", "-n", SYSTEM)
        self.plane.kubectl("patch", *service, "--type=merge", "-p", json.dumps(here))

    def wait_for_webhook(self) -> None:
        """What the readiness probe is for; this node has none."""
        word = r"jsonpath={.spec.ports[0].port}"
        get = ("get", "service", "ringfence-webhook", "-n", SYSTEM, "-o", word)
        port = int(self.plane.kubectl(*get))

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                return True
            return False

        try:
            self.soon(listens, "the webhook listens")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.last_words()}") from late

    def soon(self, holds: Callable[[], bool], what: str) -> None:
        """`eventually`, on a machine that does other things too."""
        eventually(holds, what, SECONDS)

    def last_words(self) -> str:
        """The end of what every pod of the chart has said."""
        pods = [name.partition("/")[2] for name in self.names("pods", "-n", SYSTEM)]
        logs = {pod: self.node.logs(SYSTEM, pod).splitlines()[-5:] for pod in pods}
        return "\n".join(f"{pod}: {line}" for pod, lines in logs.items() for line in lines)

    def restart(self, component: str) -> None:
        """New pods, which see the ConfigMaps of today."""
        chosen = ("-n", SYSTEM, "-l", f"{COMPONENT}={component}")
        before = set(self.names("pods", *chosen))
        self.plane.kubectl("delete", "pods", *chosen, "--wait=false")
        self.soon(
            lambda: bool(set(self.names("pods", *chosen)) - before),
            f"a new pod of the {component}",
        )

    def names(self, kind: str, *options: str) -> list[str]:
        """`kind/name` of all objects."""
        return self.plane.kubectl("get", kind, "-o", "name", *options).split()

    def labels(self, namespace: str) -> dict[str, str]:
        found = self.plane.kubectl("get", "namespace", namespace, "-o", "json")
        return strings(mapping(json.loads(found), "metadata"), "labels")

    def try_apply(self, manifest: str) -> bool:
        """Whether the API server knows the kind and takes the object."""
        return self.plane.try_kubectl("apply", "-f", "-", stdin=manifest).returncode == 0

    def follow_as_agent(self, folder: Path) -> None:
        """Follow all that a node's agent follows, with the token of its ServiceAccount."""
        kubeconfig = self.plane.service_account_kubeconfig(SYSTEM, "ringfence-enforcer")
        get = ("get", "configmap", "ringfence-tenants", "-n", SYSTEM)
        file = folder / "tenants.yaml"
        file.write_text(self.plane.kubectl(*get, "-o", r"jsonpath={.data.tenants\.yaml}"))
        supply = ApiSupply(Client.connect(str(kubeconfig)), "node", AgentTenants(file), SYSTEM)
        supply.start(lambda: None)
        try:
            self.soon(lambda: bool(supply.take().changes), f"{supply.health().errors}")
            assert supply.health().errors == {}
        finally:
            supply.stop()

    def requests(self, account: str) -> list[Document]:
        """What a ServiceAccount asked the API server for."""
        user = f"system:serviceaccount:{SYSTEM}:{account}"
        events = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [e for e in events if mapping(e, "user")["username"] == user]


@pytest.fixture
def site(api: ControlPlane, tmp_path: Path) -> Iterator[Site]:
    """Not the session's cluster: what is installed here judges every namespace."""
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    policy.write_text(AUDIT_POLICY)
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={log}"]
    with ControlPlane(apiserver_flags=flags) as plane, JobNode(plane, runs_here) as node:
        yield Site(plane, node, log)


@pytest.fixture(scope="module")
def system(api: ControlPlane) -> ControlPlane:
    """With the namespace of the install, and the accounts that pods name."""
    if api.try_kubectl("get", "namespace", SYSTEM).returncode:
        api.kubectl("create", "namespace", SYSTEM)
    for account in ("verify", "unregister", "forget"):
        made = ("create", "serviceaccount", f"ringfence-{account}", "-n", SYSTEM)
        api.try_kubectl(*made)
    return api
