"""The node that executes Jobs: real commands, real tokens, and nobody else's pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.testbed.node import JobNode
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.cluster

POD_SPEC = {
    "restartPolicy": "Never",
    "containers": [{"name": "main", "image": "x", "command": ["true"]}],
}
INSIDE = """
id --user; touch /file || echo root is closed; touch /tmp/file && echo tmp is open
cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo
grep CapBnd /proc/self/status; echo "$WHERE"; cat /etc/settings/colour; exit 7
"""


@pytest.fixture(scope="module")
def node(api: ControlPlane) -> Iterator[JobNode]:
    with JobNode(api) as running:
        yield running


@pytest.fixture
def place(api: ControlPlane, unique_name: Callable[[str], str]) -> str:
    name = unique_name("jobs")
    api.kubectl("create", "namespace", name)
    return name


def _job(name: str, script: str) -> str:
    container = {
        "name": "main",
        "image": "x",
        "command": ["sh", "-c", script],
        "env": [
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "settings", "mountPath": "/etc/settings", "readOnly": True},
        ],
    }
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "settings", "configMap": {"name": "settings"}},
    ]
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    return json.dumps(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    )


def test_a_job_runs_as_the_image_s_user_in_a_root_of_its_own(
    api: ControlPlane, node: JobNode, place: str
) -> None:
    api.kubectl("create", "configmap", "settings", "-n", place, "--from-literal=colour=blue")
    api.kubectl("apply", "-n", place, "-f", "-", stdin=_job("inside", INSIDE))
    api.kubectl(
        "wait",
        "--for=condition=Failed",
        "job/inside",
        "-n",
        place,
        f"--timeout={patience(20):.0f}s",
    )
    said = api.kubectl("logs", "job/inside", "-n", place).splitlines()
    # `touch` complains on stderr, which is part of the log.
    assert [line for line in said if "touch" not in line] == [
        "65532",
        "root is closed",
        "tmp is open",
        place,
        "CapBnd:\t0000000000000000",
        place,
        "blue",
    ]
    code = "{.items[0].status.containerStatuses[0].state.terminated.exitCode}"
    assert api.kubectl("get", "pods", "-n", place, "-o", f"jsonpath={code}") == "7"


def test_a_job_that_is_deleted_while_it_runs_ends_at_once(
    api: ControlPlane, node: JobNode, place: str
) -> None:
    api.kubectl("create", "job", "long", "-n", place, "--image=x", "--", "sleep", "600")
    ready = "--for=jsonpath={.status.ready}=1"
    api.kubectl("wait", ready, "job/long", "-n", place, f"--timeout={patience(20):.0f}s")
    api.kubectl(
        "delete",
        "job",
        "long",
        "-n",
        place,
        "--cascade=foreground",
        f"--timeout={patience(20):.0f}s",
        "--wait",
    )
    assert api.kubectl("get", "pods", "-n", place, "-o", "name") == ""


def test_a_pod_that_no_job_made_stays_unbound(api: ControlPlane, node: JobNode, place: str) -> None:
    for name, marks in (("other", {}), ("hook", {"helm.sh/hook": "test"})):
        meta = {"name": name, "annotations": marks}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": POD_SPEC}
        api.kubectl("apply", "-n", place, "-f", "-", stdin=json.dumps(pod))

    def phase(name: str) -> str:
        return api.kubectl("get", "pod", name, "-n", place, "-o", "jsonpath={.status.phase}")

    # The hook came second, so the other one has been seen, and passed over, before.
    eventually(lambda: phase("hook") == "Succeeded", "Helm's pod has run")
    assert phase("other") == "Pending"
