"""A webhook that the API server cannot call: namespaces are refused, and everybody is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.controller.cluster import Cluster, guarded
from tests.testbed.planes import Planes
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
ANSWERS = "ringfence_controller_webhook_answers"
READY = "[!]webhook: the API server refuses namespaces: "


def verify(cluster: Cluster, ringfence: Run, kubeconfig: Path) -> tuple[int, str]:
    asked = ("controller", "verify", "-c", cluster.tenants, "--wait-seconds", "0")
    done = ringfence(*asked, "--kubeconfig", kubeconfig)
    return done.returncode, done.stdout


def exits(code: int, cluster: Cluster, ringfence: Run, kubeconfig: Path) -> bool:
    return verify(cluster, ringfence, kubeconfig)[0] == code


def test_a_webhook_that_cannot_be_called_is_told_everywhere(
    planes: Planes, tmp_path: Path, ringfence: Run
) -> None:
    with guarded(tmp_path, plane=planes.one()) as (cluster, controller):
        everybody = {
            "an admin": cluster.plane.kubeconfig(),
            "who may only read": cluster.plane.kubeconfig("reader", ["readers"]),
        }
        cluster.plane.kubectl(
            *("create", "clusterrole", "reader", "--verb=get"),
            "--resource=configmaps,validatingwebhookconfigurations,mutatingwebhookconfigurations,"
            "validatingadmissionpolicies,validatingadmissionpolicybindings",
        )
        cluster.plane.kubectl(
            *("create", "clusterrolebinding", "reader", "--clusterrole=reader"), "--group=readers"
        )
        eventually(lambda: controller.metrics().get(ANSWERS) == 1, "it answers")
        for kubeconfig in everybody.values():
            eventually(partial(exits, 0, cluster, ringfence, kubeconfig), "all is well")
            assert "[+]webhook: answers the API server" in verify(cluster, ringfence, kubeconfig)[1]

        cluster.stop_webhooks()
        eventually(lambda: controller.metrics().get(ANSWERS) == 0, "it does not answer")
        code, text = controller.get("/readyz")
        assert f"{READY}Internal error occurred: failed calling webhook" in text
        assert code == 200
        for kubeconfig in everybody.values():
            eventually(partial(exits, 1, cluster, ringfence, kubeconfig), "told")
            found = verify(cluster, ringfence, kubeconfig)[1]
            assert "[-]webhook: Internal error occurred: failed calling webhook" in found

        cluster.webhook()
        eventually(lambda: controller.metrics().get(ANSWERS) == 1, "it answers again")
        eventually(lambda: READY not in controller.get("/readyz")[1], "nothing is told")
