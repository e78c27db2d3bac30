"""What happens to the programs of a node, and what another CNI does to its configuration, opens no
wall and leaves no pod out; uninstalled, Ringfence has never been there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import created as ledgers
from lab.api.real import configuration, view
from lab.api.real.bringup import CONFLIST
from lab.api.real.parts import CNI_BIN, CNI_CONF, Parts
from lab.names import NETNS_ROOT, Shape
from lab.parts import ringfence as command_line
from lab.topology import lab_node
from tests.conftest import Run
from tests.lab.api.hollow import fresh_lab
from tests.lab.api.real.nodes import RealLab, serving
from tests.lab.api.real.test_services import DEPLOYMENT
from tests.testbed.waiting import eventually, patience

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


def _node(lab: RealLab) -> Parts:
    return Parts(lab.places, lab_node(lab.places, 1))


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
    broken.kubectl("drain", node, "--pod-selector=app=web", "--timeout=50s")
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
    file = _node(broken).node.places.cni_conf / CONFLIST
    file.write_text(configuration.cni(_node(broken), Shape.PTP) + "\n")
    joined = lambda: json.loads(file.read_text())["plugins"][-1]["type"] == "ringfence-cni"  # noqa: E731
    eventually(joined, "Ringfence is last in the chain again", 20)
    late = f"{trio.red}/late"
    broken.make(serving(late), late)
    trio.check(late)


def test_uninstalled_the_configuration_is_byte_for_byte_what_it_was(broken: RealLab) -> None:
    trio = Trio(broken)
    parts = _node(broken)
    file = parts.node.places.cni_conf / CONFLIST
    assert "ringfence-cni" in file.read_text()
    os.kill(broken.pid(parts.node.places.enforcer), signal.SIGKILL)
    done = _in_node(
        broken,
        *("enforcer", "uninstall", "--pin-dir", str(parts.node.places.pins)),
        *("--run-dir", str(parts.node.places.enforcer_run)),
        *("--cni-conf-dir", CNI_CONF, "--cni-bin-dir", CNI_BIN),
    )
    assert done.returncode == 0, done.stderr
    assert file.read_text() == configuration.cni(parts, Shape.PTP) + "\n"
    assert [path.name for path in file.parent.iterdir()] == [CONFLIST]
    assert broken.asks(trio.other, f"{broken.ip(trio.web)}:80").startswith("web sees")
    done = broken("apply", "-f", "-", stdin=serving(trio.web))
    assert done.returncode == 0, done.stderr
    trio.check()


def _in_node(lab: RealLab, *words: str) -> subprocess.CompletedProcess[str]:
    """A `ringfence` command as somebody on the node would run it."""
    ledger = ledgers.load(lab.places)
    assert ledger is not None
    keeper = ledger.state.process(_node(lab).view)
    assert keeper is not None
    network = ("nsenter", f"--net={NETNS_ROOT / _node(lab).node.places.netns}")
    return subprocess.run(
        [*network, *view.inside(keeper, *command_line(*words))],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
