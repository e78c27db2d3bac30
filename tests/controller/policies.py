"""A cluster whose Kyverno policies Ringfence carries out, and policies for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from generators.documents.json import Document, mapping, mappings, strings, text
from generators.documents.yaml import documents, plain
from generators.kube.client import Client
from generators.kube.resources import CLUSTER_POLICIES, MUTATING_WEBHOOKS, NAMESPACES, POLICIES
from tests.controller.cluster import COMMAND, SYSTEM, Cluster, ControllerProcess, Process, cluster
from tests.testbed.processes import free_ports
from tests.testbed.waiting import eventually

SAMPLES = Path(__file__).parents[1] / "generators" / "kyverno" / "samples"


EXAMPLES = Path(__file__).parents[2] / "examples" / "kyverno"


@dataclass
class Running:
    """A cluster whose policies Ringfence carries out."""

    cluster: Cluster
    controller: ControllerProcess
    webhook: Process
    metrics_port: int

    @property
    def admin(self) -> Client:
        return self.cluster.admin

    def apply(self, document: Document) -> None:
        """Create a policy and wait until the webhook answers for it."""
        resource = POLICIES if document["kind"] == "Policy" else CLUSTER_POLICIES
        self.admin.create(resource, document, manager="test")
        name = text(mapping(document, "metadata"), "name")
        home = text(mapping(document, "metadata"), "namespace")
        self.in_force(f"{home}/{name}" if home else name)

    def in_force(self, name: str) -> None:
        """Served, and registered: the controller has nothing left to tell the API server."""
        eventually(lambda: name in self.served(), f"{name} served: {self.webhook.log}")
        eventually(lambda: self.ready_reason(name) == "Succeeded", f"{name}: {self.controller.log}")

    def served(self) -> list[object]:
        events = self.webhook.events("policies_in_force")
        found = events[-1]["policies"] if events else []
        assert isinstance(found, list)
        return found

    def taken(self) -> object:
        """How many policies the controller's work behind requests has taken over."""
        return self.controller.events("policies_taken")[-1]["policies"]

    def ready_reason(self, name: str) -> str:
        namespace, _, short = name.rpartition("/")
        resource = POLICIES if namespace else CLUSTER_POLICIES
        status = mapping(self.admin.get(resource, short, namespace), "status")
        for condition in mappings(status, "conditions"):
            if text(condition, "type") == "Ready":
                return text(condition, "reason")
        return ""

    def remove(self, name: str) -> None:
        self.admin.delete(CLUSTER_POLICIES, name)
        eventually(lambda: name not in self.served(), f"{name} gone")

    def make(self, name: str, by: Client | None = None, **metadata: object) -> dict[str, str]:
        """Create a namespace; its labels as admission left them."""
        document: Document = {"metadata": {"name": name} | metadata}
        made = (by or self.admin).create(NAMESPACES, document, manager="test")
        return strings(mapping(made, "metadata"), "labels")

    def webhooks(self) -> dict[str, Document]:
        """Registered for policies, by name."""
        live = self.admin.get(MUTATING_WEBHOOKS, "ringfence")
        found = {text(each, "name"): dict(each) for each in mappings(live, "webhooks")}
        return {
            name: each for name, each in found.items() if name.endswith("policies.ringfence.io")
        }


@contextmanager
def carried_out(folder: Path) -> Iterator[Running]:
    """A control plane of its own: the controller installs the kinds and registers the webhook, both
    read the cluster's policies with the rights that `ringfence ... rules` print.
    """
    with cluster(folder) as made:
        sample = str(SAMPLES / "add-rolebinding.yaml")
        both = ("--policies", "cluster", "--policies", sample)
        grant(made, "controller", *both, "--install-policy-crds")
        grant(made, "webhook", "--policies", "cluster")
        kubeconfig = made.plane.service_account_kubeconfig(SYSTEM, "ringfence-webhook")
        controller = made.controller("--policies", "cluster", "--install-policy-crds")
        (port,) = free_ports(1)
        webhook = made.webhook(
            *("--policies", "cluster", "--kubeconfig", kubeconfig),
            *("--metrics-listen", f"127.0.0.1:{port}"),
        )
        eventually(controller.in_force, f"admission in force: {controller.log}")
        yield Running(made, controller, webhook, port)


def grant(made: Cluster, part: str, *options: str) -> None:
    """The rights that the command prints for these options."""
    rules = subprocess.run(
        [COMMAND, part, "rules", *options], capture_output=True, text=True, check=True
    ).stdout
    made.plane.kubectl("apply", "-f", "-", stdin=rules)


def policy(name: str, *rules: Document, kind: str = "ClusterPolicy", **spec: object) -> Document:
    meta: Document = {"name": name}
    if kind == "Policy":
        meta["namespace"] = "default"
    named = [{"name": f"rule-{number}", **rule} for number, rule in enumerate(rules)]
    return {
        "apiVersion": "kyverno.io/v1",
        "kind": kind,
        "metadata": meta,
        "spec": {"rules": named, **spec},
    }


def labelling(prefix: str, labels: Document, **more: object) -> Document:
    """A rule that labels namespaces of a prefix."""
    resources: Document = {"kinds": ["Namespace"], "names": [f"{prefix}*"]}
    patch: Document = {"patchStrategicMerge": {"metadata": {"labels": labels}}}
    return {"match": {"any": [{"resources": resources}]}, "mutate": patch, **more}


def sample(name: str) -> Document:
    """A public sample, unmodified."""

    (root,) = documents((SAMPLES / f"{name}.yaml").read_bytes(), name)
    found = plain(root)
    assert isinstance(found, dict)
    return dict(found)
