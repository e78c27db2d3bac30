"""The testbed is what it says: a real, current API server with RBAC that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testbed import build
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import ended, ending, eventually

pytestmark = pytest.mark.cluster


def test_the_server_says_which_release_it_is(api: ControlPlane) -> None:
    server = build.ensure(build.KUBERNETES, print) / "kube-apiserver"
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    version = json.loads(api.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    assert said.stdout == f"Kubernetes {version}\n"
    if "KUBEBUILDER_ASSETS" not in os.environ:
        assert version == build.kubernetes_release()


def test_rbac_refuses_who_has_no_role(
    api: ControlPlane,
    unique_name: Callable[[str], str],
) -> None:
    name = unique_name("refused")
    done = api.try_kubectl("create", "namespace", name, user="alice", groups=["team-test01"])
    assert 'namespaces is forbidden: User "alice"' in done.stderr
    # The control: the same request by an admin is granted.
    assert "created" in api.kubectl("create", "namespace", name)


def test_groups_of_a_client_certificate_arrive(api: ControlPlane) -> None:
    answer = api.kubectl(
        "auth", "whoami", "-o", "json", user="alice", groups=["team-test01", "readers"]
    )
    who = json.loads(answer)["status"]["userInfo"]
    assert who["username"] == "alice"
    assert {"team-test01", "readers", "system:authenticated"} <= set(who["groups"])


def test_a_service_account_is_who_its_token_says(
    api: ControlPlane,
    unique_name: Callable[[str], str],
) -> None:
    namespace = unique_name("robots")
    api.kubectl("create", "namespace", namespace)
    api.kubectl("create", "serviceaccount", "deployer", "-n", namespace)
    config = api.service_account_kubeconfig(namespace, "deployer")
    who = json.loads(api.kubectl("auth", "whoami", "-o", "json", "--kubeconfig", str(config)))
    assert who["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:deployer"


def _started_by(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_programs_end_with_the_process_that_started_them(how: signal.Signals) -> None:
    # As a background job gets it: SIGINT is ignored from the start.
    command = ["env", "--ignore-signal=INT", sys.executable, "-m", "tests.testbed", "up"]
    started = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with ending(started) as parent:
        assert parent.stdout is not None
        config = Path(parent.stdout.readline().strip())
        children = _started_by(parent.pid)
        assert len(children) == 3
        parent.send_signal(how)
        ended(parent)
    eventually(lambda: all(map(_gone, children)), f"{children} outlive their parent")
    if how is signal.SIGKILL:
        assert config.exists(), "nobody was left to remove it"
        with ControlPlane():
            pass
    assert not config.parent.exists()
