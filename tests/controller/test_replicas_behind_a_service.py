"""Several webhook pods behind one Service: each is found, asked and waited for by its address.

Also where their port of admission answers nobody but the API server, by its certificate.

Service, pods and EndpointSlices are the API server's and kube-controller-manager's own; the API
server chooses among the addresses in the slices. All of it runs in a network namespace, because
loopback is no address for a pod. What stands in for kubelets is the status of the pods.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from generators.documents.json import Document, mapping, mappings
from generators.kube.client import PatchKind, WatchScope
from generators.kube.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from lab import netns
from lab.api.plane import authority_named, certificate_credentials, client_pair
from tests.controller.cluster import SYSTEM, TENANTS, Cluster, ControllerProcess, Process
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.timeout(300)]
NAME, PORT, HEALTH = "ringfence-webhook", 9443, 9444
CLIENT = "kube-apiserver"
CLIENT_CA = "clients.crt"
LABELS = {"app": NAME}
NODE = "somewhere"
NEWER = TENANTS + "  - name: test03\n    members: {users: [carla]}\n"
PROOF = TENANTS.replace("labelKey: client", "labelKey: proof")


class Replica:
    """A pod with an address of its own, on which a real webhook answers by a file of its own."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self.pod = f"{NAME}-{number}"
        self.address = f"10.99.0.{number}"
        self.file = cluster.folder / f"tenants-{number}.yaml"
        self.file.write_bytes(cluster.tenants.read_bytes())
        address = ("ip", "address", "add", f"{self.address}/32", "dev", "lo")
        subprocess.run(address, check=True)
        container = {"name": "webhook", "image": "none", "ports": [{"containerPort": PORT}]}
        pod: Document = {
            "metadata": {"name": self.pod, "namespace": SYSTEM, "labels": LABELS},
            "spec": {"nodeName": NODE, "containers": [container]},
        }
        cluster.admin.create(PODS, pod, manager="test")

    def serve(self) -> Process:
        """The webhook listens, and its pod is ready."""
        options: list[str | Path] = ["--health-listen", f"{self.address}:{HEALTH}"]
        if (authority := self._cluster.folder / CLIENT_CA).exists():
            options += ["--client-ca", authority, "--client-name", CLIENT]
        made = self._cluster.webhook(*options, tenants=self.file, port=PORT, host=self.address)
        self.tell("True")
        return made

    def tell(self, ready: str) -> None:
        """The pod's status, as a kubelet writes it."""
        status: Document = {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [{"type": "Ready", "status": ready}],
        }
        self._cluster.admin.patch(
            PODS,
            self.pod,
            SYSTEM,
            {"status": status},
            kind=PatchKind.MERGE,
            manager="kubelet",
            subresource="status",
        )

    def go(self) -> None:
        """The pod is deleted."""
        self._cluster.admin.delete(PODS, self.pod, SYSTEM, grace_seconds=0)


def client_certificates(folder: Path) -> str:
    """A flag for an API server that shows webhooks a certificate; who signed it is CLIENT_CA."""
    authority = authority_named("clients of webhooks")
    (folder / CLIENT_CA).write_bytes(authority.pem)
    user = certificate_credentials(client_pair(authority, CLIENT))
    kubeconfig = folder / "webhooks.kubeconfig"
    users = [{"name": f"{NAME}.{SYSTEM}.svc", "user": user}]
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": users}))
    version = "apiserver.config.k8s.io/v1"
    configuration = {
        "apiVersion": version,
        "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": str(kubeconfig),
    }
    plugins = [
        {"name": name, "configuration": configuration}
        for name in ("ValidatingAdmissionWebhook", "MutatingAdmissionWebhook")
    ]
    document = {"apiVersion": version, "kind": "AdmissionConfiguration", "plugins": plugins}
    (folder / "admission.yaml").write_text(json.dumps(document))
    return f"--admission-control-config-file={folder / 'admission.yaml'}"


@pytest.fixture(params=[False], ids=[""])
def cluster(
    programs: None,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> Iterator[Cluster]:
    """Its parameter: whether the webhook answers only who shows the API server's certificate."""
    name = unique_name("rft")
    netns.create(name)
    try:
        with netns.inside(name):
            subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
            # The API server dials the pods behind a Service itself: nobody routes its address here.
            flags = ["--enable-aggregator-routing=true"]
            if request.param:
                flags.append(client_certificates(tmp_path))
            with ControlPlane(apiserver_flags=flags) as plane:
                made = Cluster(plane, tmp_path)
                made.service = f"{SYSTEM}/{NAME}:443"
                try:
                    yield made
                finally:
                    made.stop()
    finally:
        netns.remove(name)


def started(cluster: Cluster, count: int) -> tuple[ControllerProcess, list[Replica]]:
    service: Document = {
        "metadata": {"name": NAME, "namespace": SYSTEM},
        "spec": {"selector": LABELS, "ports": [{"port": 443, "targetPort": PORT}]},
    }
    cluster.admin.create(SERVICES, service, manager="test")
    # Pods of a node that is not there are collected as garbage.
    cluster.admin.create(NODES, {"metadata": {"name": NODE}}, manager="test")
    eventually(lambda: cluster.has_default_account(SYSTEM), "pods can be made")
    controller = cluster.controller("--webhook-health-port", str(HEALTH))
    replicas = [Replica(cluster, number) for number in range(1, count + 1)]
    for replica in replicas:
        replica.serve()
    eventually(controller.in_force, f"in force: {controller.log}")
    eventually(lambda: listed(cluster) == {r.address for r in replicas}, "all are listed")
    return controller, replicas


def listed(cluster: Cluster) -> set[str]:
    """Addresses that the EndpointSlices of the Service call ready."""
    found: set[str] = set()
    for each in cluster.admin.list_all(ENDPOINT_SLICES, WatchScope(namespace=SYSTEM)):
        for endpoint in mappings(each, "endpoints"):
            addresses = endpoint["addresses"]
            if mapping(endpoint, "conditions").get("ready") and isinstance(addresses, list):
                found |= set(map(str, addresses))
    return found


def behind(controller: ControllerProcess) -> float:
    return controller.metrics()["ringfence_controller_webhooks_behind"]


@pytest.mark.parametrize("cluster", [False, True], ids=["anybody", "the API server"], indirect=True)
def test_another_file_waits_for_each_pod_behind_the_service(cluster: Cluster) -> None:
    controller, replicas = started(cluster, 3)
    anna = cluster.as_user("anna", "team-test01")
    for number in range(6):
        cluster.make(f"annas-{number}", anna)
        eventually(partial(cluster.isolated, f"annas-{number}", "test01"), "by any of the pods")
    robot = cluster.as_user("robot", "robots")
    for name in ("a-plain", "z-plain"):
        cluster.make(name)
        cluster.label(name, "test02", robot, key="proof")

    cluster.tenants.write_text(PROOF)
    for replica in replicas[:2]:
        replica.file.write_text(PROOF)
    lagging = f"{replicas[2].address}:{PORT}"
    eventually(lambda: behind(controller) == 1, "one lags")
    eventually(lambda: lagging in cluster.status().get("problem", ""), "the one that lags is named")
    assert not cluster.synchronized()
    replicas[2].file.write_text(PROOF)
    cluster.key = "proof"
    eventually(cluster.synchronized, "proof is in force")
    for name in ("a-plain", "z-plain"):
        eventually(partial(cluster.nobodys, name), f"{name} has not moved")
    for number in range(6):
        eventually(partial(cluster.isolated, f"annas-{number}", "test01"), "members' stay theirs")


def test_pods_that_are_gone_or_not_ready_are_not_waited_for(cluster: Cluster) -> None:
    controller, replicas = started(cluster, 3)
    replicas[0].tell("False")
    replicas[1].go()
    eventually(lambda: listed(cluster) == {replicas[2].address}, "one is left")
    cluster.tenants.write_text(NEWER)
    replicas[2].file.write_text(NEWER)
    eventually(cluster.synchronized, "the newer file is in force")
    assert behind(controller) == 0
    # One that comes back with the former file decides nothing; the others serve.
    replicas[0].tell("True")
    eventually(lambda: listed(cluster) == {replicas[0].address, replicas[2].address}, "back")

    def made(name: str) -> bool:
        return (
            cluster.plane.try_kubectl(
                "create", "namespace", name, user="carla", groups=["robots"]
            ).returncode
            == 0
        )

    for number in range(6):
        eventually(partial(made, f"carlas-{number}"), "served by the other one", poll=0.3)
        eventually(partial(cluster.isolated, f"carlas-{number}", "test03"), "the new tenant's")
    replicas[0].file.write_text(NEWER)
    for number in range(6, 12):
        eventually(partial(made, f"carlas-{number}"), "served by both")
