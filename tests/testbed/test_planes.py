"""A control plane that was used before is as good as new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from tests.testbed import build
from tests.testbed.fixtures import pytest_collection_finish
from tests.testbed.plane import ControlPlane
from tests.testbed.planes import Planes
from tests.testbed.waiting import eventually

__all__ = ["pytest_collection_finish"]

pytestmark = pytest.mark.cluster
KINDS = "namespaces,serviceaccounts,configmaps,secrets,clusterroles,events,leases"
FORBIDS_NAMESPACES = """\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: nobody-answers}
webhooks:
- name: nobody.example.com
  clientConfig: {url: "https://127.0.0.1:1/"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [namespaces]}]
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: left}
rules: []
"""
NEW_KIND = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: Thing, plural: things}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""


@pytest.fixture(scope="module")
def planes() -> Iterator[Planes]:
    try:
        build.ensure(build.KUBERNETES, lambda _: None)
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")
    with Planes() as kept:
        yield kept


def everything(plane: ControlPlane) -> set[str]:
    listed = plane.kubectl("get", KINDS, "-A", "--no-headers", "-o", "name")
    return {line for line in listed.splitlines() if "apiserver-" not in line}


def states(plane: ControlPlane) -> set[str]:
    """Of its processes, as the kernel writes them."""
    written = (Path(f"/proc/{pid}/stat").read_text() for pid in plane.pids.values())
    return {line.rpartition(")")[2].split()[0] for line in written}


def test_the_next_test_finds_nothing_of_the_one_before(planes: Planes) -> None:
    with planes.one() as first:
        before = everything(first)
        first.kubectl("create", "namespace", "left")
        first.kubectl("create", "configmap", "left", "-n", "default")
        first.kubectl("label", "namespace", "default", "left=behind")
        first.kubectl("apply", "-f", "-", stdin=FORBIDS_NAMESPACES)
        assert everything(first) > before
    eventually(lambda: states(first) == {"T"}, "the plane that waits is stopped")
    with planes.one() as second:
        assert second is first
        assert everything(second) == before
        assert "left" not in second.kubectl("get", "namespace", "default", "-o", "yaml")
        second.kubectl("create", "namespace", "left")
        asked = ("get", "serviceaccount", "default", "-n", "left")
        eventually(lambda: second.try_kubectl(*asked).returncode == 0, "its controllers work")


def test_two_at_a_time_have_one_each_and_what_would_not_be_new_is_not_used_again(
    planes: Planes,
) -> None:
    with planes.one() as first, planes.one() as second:
        assert first.port != second.port
        first.kubectl("apply", "-f", "-", stdin=NEW_KIND)
        second.stop_apiserver()
    assert not first.pids
    assert not second.pids
