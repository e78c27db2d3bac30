"""A real API server with the kinds of Kyverno's policies, and our controller that carries them out.

Policies are ClusterPolicy and Policy objects; the controller runs as its ServiceAccount with the
role that `ringfence controller rules` prints for the same options.
"""

from __future__ import annotations

import contextlib
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import yaml

from generators.documents.json import Document, key_of, mapping, mappings, strings, text
from generators.kube.client import PatchKind, WatchScope
from generators.kube.errors import Conflict, NotFound
from generators.kube.resources import (
    CLUSTER_POLICIES,
    CONFIG_MAPS,
    NETWORK_POLICIES,
    POLICIES,
    SECRETS,
    Resource,
)
from tests.controller.cluster import COMMAND, TENANTS, Cluster, ControllerProcess, cluster
from tests.testbed.waiting import eventually

OPTIONS = ("--policies", "cluster", "--allow-kind", "Secret")
CRD = """\
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.kyverno.io}}
spec:
  group: kyverno.io
  scope: {scope}
  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {{status: {{}}}}
    schema:
      openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


class Ground(Cluster):
    """A cluster in which policies are objects."""

    def permit(self, *options: str) -> None:
        """Give the controller the role that these options need."""
        rules = subprocess.run(
            [COMMAND, "controller", "rules", *options], capture_output=True, text=True, check=True
        ).stdout
        self.plane.kubectl("apply", "-f", "-", stdin=rules)

    def install_kinds(self) -> None:
        for kind, plural, scope in (
            ("ClusterPolicy", "clusterpolicies", "Cluster"),
            ("Policy", "policies", "Namespaced"),
        ):
            crd = CRD.format(kind=kind, plural=plural, scope=scope, singular=kind.lower())
            self.plane.kubectl("apply", "-f", "-", stdin=crd)
        names = ("crd/clusterpolicies.kyverno.io", "crd/policies.kyverno.io")
        self.plane.kubectl("wait", "--for=condition=Established", *names)

    def tenants_elsewhere(self) -> None:
        """A tenant file that is about none of the tests' namespaces."""
        moved = TENANTS.replace("labelKey: client\n", "").replace('"-test0', '"-elsewhere0')
        self.tenants.write_text(moved.replace('"test01-"', '"elsewhere01-"'))

    # --- policies -------------------------------------------------------------------------------

    def policy_object(self, name: str, rules: str, head: str = "", namespace: str = "") -> None:
        """Create or replace a policy; `rules` is the YAML list."""
        kind = "Policy" if namespace else "ClusterPolicy"
        home = f"\n  namespace: {namespace}" if namespace else ""
        spec = textwrap.indent(head, "  ") + "  rules:\n" + textwrap.indent(rules, "  ")
        document = f"apiVersion: kyverno.io/v1\nkind: {kind}\nmetadata:\n  name: {name}{home}\n"
        self.apply(f"{document}spec:\n{spec}")

    def apply(self, documents: str) -> None:
        for document in yaml.safe_load_all(documents):
            meta = document["metadata"]
            resource = POLICIES if document["kind"] == "Policy" else CLUSTER_POLICIES
            eventually(partial(self._replaced, resource, document), f"{meta['name']} is written")

    def _replaced(self, resource: Resource, document: Document) -> bool:
        """Create or replace; its status may be written at the same moment."""
        key = key_of(document)
        try:
            live = self.admin.get(resource, key.name, key.namespace)
        except NotFound:
            self.admin.create(resource, document, manager="test")
            return True
        version = mapping(live, "metadata")["resourceVersion"]
        metadata = {**mapping(document, "metadata"), "resourceVersion": version}
        try:
            self.admin.update(resource, {**document, "metadata": metadata}, manager="test")
        except Conflict:
            return False
        return True

    def drop(self, name: str, namespace: str = "") -> None:
        resource = POLICIES if namespace else CLUSTER_POLICIES
        self.admin.delete(resource, name, namespace)

    def condition(self, name: str, namespace: str = "") -> tuple[str, str, str]:
        """Status, reason and message of Ready."""
        live = self.admin.get(POLICIES if namespace else CLUSTER_POLICIES, name, namespace)
        for each in mappings(mapping(live, "status"), "conditions"):
            if each.get("type") == "Ready":
                return text(each, "status"), text(each, "reason"), text(each, "message")
        return "", "", ""

    def is_ready(self, name: str, namespace: str = "") -> bool:
        return self.condition(name, namespace)[:2] == ("True", "Succeeded")

    # --- objects --------------------------------------------------------------------------------

    def find(self, resource: Resource, namespace: str, name: str) -> Document | None:
        try:
            return self.admin.get(resource, name, namespace)
        except NotFound:
            return None

    def config(self, namespace: str, name: str, labels: Mapping[str, str], **data: str) -> None:
        """A ConfigMap: what triggers most rules here."""
        meta: Document = {"name": name, "namespace": namespace, "labels": dict(labels)}
        self.admin.create(CONFIG_MAPS, {"metadata": meta, "data": data}, manager="test")

    def secret(self, namespace: str, name: str, **data: str) -> None:
        meta: Document = {"name": name, "namespace": namespace, "labels": {"copy": "me"}}
        self.admin.create(SECRETS, {"metadata": meta, "stringData": data}, manager="test")

    def merge(self, resource: Resource, namespace: str, name: str, patch: Document) -> None:
        self.admin.patch(resource, name, namespace, patch, kind=PatchKind.MERGE, manager="test")

    def networks(self, namespace: str) -> list[str]:
        """Names of the NetworkPolicies of a namespace."""
        found = self.admin.list_all(NETWORK_POLICIES, WatchScope(namespace=namespace))
        return sorted(text(mapping(each, "metadata"), "name") for each in found)


def uid_of(document: Document | None) -> str:
    return text(mapping(document or {}, "metadata"), "uid")


def version_of(document: Document | None) -> str:
    return text(mapping(document or {}, "metadata"), "resourceVersion")


def labels_of(document: Document | None) -> Mapping[str, str]:
    return strings(mapping(document or {}, "metadata"), "labels")


@contextlib.contextmanager
def ground(folder: Path, *options: str) -> Iterator[Ground]:
    """A control plane of its own, in which nothing of ours runs yet."""
    with cluster(folder, Ground) as made:
        assert isinstance(made, Ground)
        made.permit(*(options or OPTIONS))
        made.install_kinds()
        made.tenants_elsewhere()
        yield made


def started(on: Ground, *options: str, seconds: float = 40.0) -> ControllerProcess:
    """A controller that carries out the cluster's policies."""
    controller = on.controller(*(options or OPTIONS), webhook=False)
    what = f"policies are carried out: {controller.log}"
    eventually(lambda: running(controller), what, seconds)
    return controller


def running(controller: ControllerProcess) -> bool:
    return controller.leads() and controller.metrics()["ringfence_policies_running"] == 1


def quiet(controller: ControllerProcess) -> bool:
    """Nothing waits."""
    return controller.metrics()["ringfence_policies_queue_depth"] == 0
