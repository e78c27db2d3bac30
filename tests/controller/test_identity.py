"""Who the controller is and where it lives: said when it is not as it should be."""

from __future__ import annotations

import json
import subprocess

import pytest

from generators.kube.resources import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS
from tests.controller.cluster import COMMAND, SYSTEM, Cluster, ControllerProcess
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.cluster


def ringfence(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *map(str, words)]
    limit = patience(60)
    return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)


def test_run_as_a_person_it_says_what_that_means(fresh: Cluster) -> None:
    """That person's own requests pass admission: nobody would see why labels come late."""
    admin = fresh.plane.kubeconfig()
    url = f"https://127.0.0.1:{fresh.webhook_port}"
    target = ("--webhook-url", url, "--certificate-dir", fresh.certificates)
    options = ("-c", fresh.tenants, "--kubeconfig", admin, *target, "--settle-seconds", "0")
    controller = ControllerProcess(fresh.folder, "person", *options)
    try:
        eventually(lambda: bool(controller.events("exempt_person")), "said at the start")
        said = "the controller runs as admin: its own requests pass admission unlabelled"
        eventually(lambda: f"[!]{said}" in controller.get("/readyz")[1], "said while it runs")
        eventually(lambda: "exempt" in controller.log.read_text(), "in the log")
        eventually(lambda: registered(fresh), "registered")
        verify = ("--kubeconfig", admin, "--wait-seconds", "0")
        assert (
            f"[!]{said}" in ringfence("controller", "verify", "-c", fresh.tenants, *verify).stdout
        )
    finally:
        controller.kill()


def registered(cluster: Cluster) -> bool:
    return bool(
        cluster.admin.list_all(VALIDATING_WEBHOOKS) and cluster.admin.list_all(MUTATING_WEBHOOKS)
    )


def test_as_a_service_account_it_says_nothing(guarded_cluster: Cluster) -> None:
    where = ("--kubeconfig", guarded_cluster.plane.kubeconfig(), "--wait-seconds", "30")
    done = ringfence("controller", "verify", "-c", guarded_cluster.tenants, *where)
    assert (done.returncode, "[!]" in done.stdout) == (0, False), done.stdout


def test_a_missing_system_namespace_is_named_with_what_to_do(guarded_cluster: Cluster) -> None:
    config = guarded_cluster.plane.kubeconfig()
    words = ("-c", guarded_cluster.tenants, "--kubeconfig", config, "--namespace", "nowhere")
    done = ringfence("controller", "run", *words)
    assert done.returncode == 3
    assert "there is no namespace nowhere" in done.stderr
    assert "kubectl create namespace nowhere" in done.stderr


@pytest.mark.parametrize(
    ("command", "job"),
    [("unregister", "ringfence-unregister"), ("forget", "ringfence-forget")],
)
def test_a_job_of_an_uninstall_that_kubectl_applied_does_nothing(
    guarded_cluster: Cluster, command: str, job: str
) -> None:
    """As after `helm template | kubectl apply`."""
    plane = guarded_cluster.plane
    container = {"name": "hook", "image": "ringfence"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job, "namespace": SYSTEM},
        "spec": {"template": {"spec": pod}},
    }
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    before = guarded_cluster.admin.get(VALIDATING_WEBHOOKS, "ringfence")
    where = ("--kubeconfig", plane.kubeconfig(), "--wait-seconds", "0")
    done = ringfence("controller", command, "--job", job, *where)
    assert done.returncode == 1
    assert "was made by kubectl-client-side-apply, not by an uninstall" in done.stderr
    assert "--no-hooks" in done.stderr
    assert guarded_cluster.admin.get(VALIDATING_WEBHOOKS, "ringfence") == before
    plane.kubectl("delete", "job", job, "-n", SYSTEM)


def test_a_controller_that_still_runs_stands_by_after_forget(fresh: Cluster) -> None:
    """By hand nobody knows whether one still runs; it would register again what was removed."""
    controller = fresh.controller()
    fresh.webhook()
    eventually(controller.in_force, "in force")
    where = ("--kubeconfig", fresh.plane.kubeconfig(), "--wait-seconds", "0")
    assert ringfence("controller", "unregister", *where).returncode == 0
    done = ringfence("controller", "forget", *where)
    assert done.returncode == 0
    assert "Lease ringfence-system/ringfence-controller stays" in done.stdout
    lease = json.loads(
        fresh.plane.kubectl("get", "lease", "ringfence-controller", "-n", SYSTEM, "-o", "json")
    )["spec"]
    assert (lease["holderIdentity"], lease["leaseDurationSeconds"]) == ("ringfence-uninstall", 300)
    eventually(lambda: controller.metrics()["ringfence_controller_leader"] == 0, "stands by")
    assert not registered(fresh)
