"""What happens to the programs of a node, and what another CNI does to its configuration, opens no
wall and leaves no pod out; uninstalled, Ringfence has never been there.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.api.real import configuration
from lab.api.real.bringup import CONFLIST
from lab.names import Shape
from tests.conftest import Run
from tests.lab.api.hollow import fresh_lab
from tests.lab.api.real.nodes import RealLab, serving
from tests.lab.api.real.test_services import DEPLOYMENT
from tests.testbed.waiting import eventually

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def broken(programs: None, ringfence: Run, tenants: Path) -> Iterator[RealLab]:
    """A lab of these tests' own, for they harm it."""
    with fresh_lab(RealLab, ringfence) as lab:
        done = lab.up("--kubelet", "-c", tenants)
        assert done.returncode == 0, done.stderr
        yield lab


class Trio:
    """Two pods of a tenant and one of another."""

    def __init__(self, lab: RealLab) -> None:
        self.lab = lab
        self.red, self.blue = lab.spaces("red", "blue")
        self.web, self.own, self.other = f"{self.red}/web", f"{self.red}/own", f"{self.blue}/other"
        pods = (self.web, self.own, self.other)
        lab.make("".join(map(serving, pods)), *pods)

    def check(self, web: str = "") -> None:
        """The own tenant gets an answer, the other none."""
        target = web or self.web
        name = target.split("/")[1]

        def asks(pod: str) -> str:
            return self.lab.asks(pod, f"{self.lab.ip(target)}:80")

        eventually(lambda: asks(self.own).startswith(f"{name} sees"), f"{target} answers", 60)
        assert asks(self.other) == ""


@pytest.mark.parametrize("program", ["containerd", "kubelet", "kube-proxy", "enforcer"])
def test_a_program_that_was_killed_comes_back_and_pods_run_on(
    broken: RealLab, program: str
) -> None:
    trio = Trio(broken)
    before = {pod: broken.pod(pod)["metadata"]["uid"] for pod in (trio.web, trio.other)}
    os.kill(broken.pid(f"{program}-{broken.places.name}-1"), signal.SIGKILL)
    late = f"{trio.red}/late"
    done = broken("apply", "-f", "-", stdin=serving(late))
    assert done.returncode == 0, done.stderr
    broken.ready(late)
    trio.check()
    trio.check(late)
    for pod, uid in before.items():
        status = broken.pod(pod)["status"]["containerStatuses"][0]
        assert (broken.pod(pod)["metadata"]["uid"], status["restartCount"]) == (uid, 0)


def test_a_node_that_was_restarted_has_its_pods_and_walls_again(broken: RealLab) -> None:
    trio = Trio(broken)
    node = f"{broken.places.name}-1"
    broken.kubectl("cordon", node)
    os.kill(broken.pid(f"node-{node}"), signal.SIGKILL)
    eventually(lambda: f"kubelet-{node}" in broken.ok("status"), "the lab says what is gone", 30)
    done = broken("apply", "-f", "-", stdin=serving(trio.web))
    assert done.returncode == 0, done.stderr
    broken.kubectl("uncordon", node)
    restarted = lambda: broken.pod(trio.web)["status"]["containerStatuses"][0]["restartCount"]  # noqa: E731
    eventually(restarted, "the pod's container was started anew", 90)
    for pod in (trio.web, trio.own, trio.other):
        broken.ready(pod)
    trio.check()


def test_pods_of_a_drained_node_start_behind_their_walls_when_it_is_back(broken: RealLab) -> None:
    red, blue = broken.spaces("red", "blue")
    own, other = f"{red}/own", f"{blue}/other"
    broken.make(DEPLOYMENT.format(space=red) + serving(own) + serving(other), own, other)
    node, rollout = f"{broken.places.name}-1", ("rollout", "status", "deployment/web", "-n", red)
    broken.kubectl(*rollout)
    broken.kubectl("drain", node, "--pod-selector=app=web,pod-template-hash", "--timeout=50s")
    pods = ("get", "pods", "-n", red, "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}")
    eventually(lambda: broken.kubectl(*pods) == "", "no pod is left", 40)
    assert broken.kubectl("get", "pods", "-n", red, "-l", "app=web", "-o", "name")
    broken.kubectl("uncordon", node)
    broken.kubectl(*rollout)
    for address in broken.kubectl(*pods).split():
        assert broken.asks(own, f"{address}:80").startswith("web-")
        assert broken.asks(other, f"{address}:80") == ""


def test_a_configuration_that_another_cni_writes_anew_is_joined_again(broken: RealLab) -> None:
    trio = Trio(broken)
    file = broken.parts().node.places.cni_conf / CONFLIST
    file.write_text(configuration.cni(broken.parts(), Shape.PTP) + "\n")
    _joined(file)
    _starts_behind_its_wall(broken, trio, "late")


def _joined(file: Path) -> None:
    """Wait until Ringfence is last in that chain."""

    def last() -> bool:
        return bool(json.loads(file.read_text())["plugins"][-1]["type"] == "ringfence-cni")

    eventually(last, f"Ringfence is last in {file.name}", 20)


def _starts_behind_its_wall(lab: RealLab, trio: Trio, name: str) -> str:
    pod = f"{trio.red}/{name}"
    lab.make(serving(pod), pod)
    trio.check(pod)
    return pod


def test_of_two_configurations_the_first_is_joined_and_pods_start_behind_their_walls(
    broken: RealLab,
) -> None:
    trio = Trio(broken)
    file = broken.parts().node.places.cni_conf / CONFLIST
    first = file.with_name("05-of-another.conflist")
    first.write_text(configuration.cni(broken.parts(), Shape.PTP) + "\n")
    try:
        _joined(first)
        _starts_behind_its_wall(broken, trio, "by-the-first")
    finally:
        first.unlink()
    _joined(file)
    _starts_behind_its_wall(broken, trio, "by-the-second")


def test_pods_with_an_ipv6_address_alone_have_their_walls(broken: RealLab) -> None:
    trio = Trio(broken)
    file = broken.parts().node.places.cni_conf / CONFLIST
    both = configuration.cni(broken.parts(), Shape.PTP)
    chain = json.loads(both)
    ipam = chain["plugins"][0]["ipam"]
    ipam["ranges"], ipam["routes"] = ipam["ranges"][1:], ipam["routes"][1:]
    pods = [f"{trio.red}/web6", f"{trio.red}/own6", f"{trio.blue}/other6"]
    try:
        file.write_text(json.dumps(chain))
        _joined(file)
        probed = "readinessProbe: {httpGet: {path: /ready, port: 80}, periodSeconds: 1}"
        broken.make("".join(serving(pod, container=probed) for pod in pods), *pods)
    finally:
        file.write_text(both + "\n")
    _joined(file)
    (address,) = broken.ips(pods[0])
    assert ":" in address
    assert broken.answer(pods[1], f"[{address}]:80").startswith("web6 sees [")
    assert broken.asks(pods[2], f"[{address}]:80") == ""
    # Pods with both families are of the same tenants.
    assert broken.answer(trio.own, f"[{address}]:80").startswith("web6 sees [")
    assert broken.asks(trio.other, f"[{address}]:80") == ""


def test_uninstalled_the_configuration_is_byte_for_byte_what_it_was(broken: RealLab) -> None:
    trio = Trio(broken)
    parts = broken.parts()
    file = parts.node.places.cni_conf / CONFLIST
    assert "ringfence-cni" in file.read_text()
    broken.uninstall()
    assert file.read_text() == configuration.cni(parts, Shape.PTP) + "\n"
    assert [path.name for path in file.parent.iterdir()] == [CONFLIST]
    assert broken.asks(trio.other, f"{broken.ip(trio.web)}:80").startswith("web sees")
    done = broken("apply", "-f", "-", stdin=serving(trio.web))
    assert done.returncode == 0, done.stderr
    trio.check()


def test_a_configuration_of_one_plugin_is_made_a_chain_and_is_back_afterwards(
    broken: RealLab,
) -> None:
    trio = Trio(broken)
    file = broken.parts().node.places.cni_conf / CONFLIST
    chain = json.loads(configuration.cni(broken.parts(), Shape.PTP))
    alone = {**chain["plugins"][0], "cniVersion": chain["cniVersion"], "name": chain["name"]}
    single = file.with_name("10-alone.conf")
    single.write_text(json.dumps(alone))
    file.unlink()
    eventually(lambda: not single.exists(), "it is set aside", 20)
    (made,) = file.parent.glob("*.conflist")
    _joined(made)
    _starts_behind_its_wall(broken, trio, "alone")
    broken.uninstall()
    assert [path.name for path in file.parent.iterdir()] == [single.name]
    assert single.read_text() == json.dumps(alone)
