"""The subchart, the example that depends on it, and looks at what they left in a namespace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pytest

from tests.charts.helm import Helm
from tests.testbed.node import JobNode
from tests.testbed.plane import ControlPlane

CHECKOUT = Path(__file__).resolve().parents[3]
CHART = CHECKOUT / "charts/ringfence-namespace"
UMBRELLA = "examples/umbrella"
KINDS = "pods,jobs,serviceaccounts,roles,rolebindings,networkpolicies,deployments,secrets"
BY_ITSELF = "serviceaccount/default"


class ManagedFields(TypedDict):
    """One manager's entry, as the API server writes it."""

    manager: str
    time: str
    fieldsV1: dict[str, dict[str, dict[str, object]]]


@dataclass(frozen=True, slots=True)
class Team:
    """One namespace on the session's API server."""

    plane: ControlPlane
    namespace: str

    @property
    def labels(self) -> dict[str, str]:
        """Of the namespace."""
        return self._metadata("labels")

    def managers(self, key: str) -> set[str]:
        """Who owns that label of the namespace."""
        return {
            entry["manager"]
            for entry in self._managed_fields()
            if f"f:{key}" in entry["fieldsV1"].get("f:metadata", {}).get("f:labels", {})
        }

    def labelled_at(self, manager: str) -> str:
        """When that manager changed the namespace last, in a form that sorts."""
        (entry,) = (e for e in self._managed_fields() if e["manager"] == manager)
        return entry["time"]

    def made_at(self, kind: str, name: str) -> str:
        """When an object came to be, in the same form."""
        path = "jsonpath={.metadata.creationTimestamp}"
        return self.plane.kubectl("get", kind, name, "-n", self.namespace, "-o", path)

    def objects(self) -> set[str]:
        """Everything in the namespace that it does not have by itself."""
        listed = self.plane.kubectl("get", KINDS, "-n", self.namespace, "-o", "name")
        names = {line.partition("/") for line in listed.splitlines()}
        return {f"{kind.partition('.')[0]}/{name}" for kind, _, name in names} - {BY_ITSELF}

    def policy(self, name: str) -> Mapping[str, object]:
        """`spec` of a NetworkPolicy."""
        found = self.plane.kubectl(
            "get", "networkpolicy", name, "-n", self.namespace, "-o", "jsonpath={.spec}"
        )
        spec: dict[str, object] = json.loads(found)
        return spec

    def _managed_fields(self) -> list[ManagedFields]:
        words = ("get", "namespace", self.namespace, "-o", "json", "--show-managed-fields")
        entries: list[ManagedFields] = json.loads(self.plane.kubectl(*words))["metadata"][
            "managedFields"
        ]
        return entries

    def _metadata(self, key: str) -> dict[str, str]:
        found = self.plane.kubectl("get", "namespace", self.namespace, "-o", "json")
        values: dict[str, str] = json.loads(found)["metadata"].get(key, {})
        return values


@pytest.fixture
def team(api: ControlPlane, job_node: JobNode, namespace: str) -> Team:
    """A fresh namespace that takes only restricted pods; hooks in it are executed."""
    api.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return Team(api, namespace)


@pytest.fixture(scope="session")
def umbrella(helm4: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a team has it after `helm dependency build`; works for both helms."""
    checkout = tmp_path_factory.mktemp("checkout")
    for part in (UMBRELLA, "charts/ringfence-namespace"):
        shutil.copytree(CHECKOUT / part, checkout / part, ignore=shutil.ignore_patterns("*.tgz"))
    helm4.run("dependency", "build", checkout / UMBRELLA)
    return checkout / UMBRELLA
