"""Machines on which something is not as usual: the agent enforces, or ends and says what to do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.answers import control
from lab.names import NODE_ADDRESSES
from tests.enforcer.node import NODE_NAME, Node, deny_ingress, stop
from tests.testbed.waiting import ended, eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

RIGHTS = ("bpf", "net_admin", "perfmon")
"""Those that the chart gives the agent."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build(("t1/a", "t2/b"))
        yield made
    finally:
        made.remove()


def start(node: Node, first: str, *more: str, rights: bool = False) -> subprocess.Popen[bytes]:
    """The agent in a mount namespace of its own, in which something is done first."""
    arguments = node.arguments(*more)
    if rights:
        bounds = ",".join(["-all", *(f"+{right}" for right in RIGHTS)])
        at = arguments.index("--") + 1  # behind what enters the node
        arguments[at:at] = ["setpriv", f"--bounding-set={bounds}", "--no-new-privs", "--"]
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    return node.begin([*apart, f'{first}\nexec "$@"', "sh", *arguments])


def enforces(node: Node, agent: subprocess.Popen[bytes]) -> None:
    node.wait(node.write(*node.pods(), deny_ingress("t2")), agent)
    node.wait_until_enforced()
    assert not node.reaches("t1/a", "t2/b")
    assert node.reaches("t2/b", "t1/a")


def ends(agent: subprocess.Popen[bytes], node: Node) -> tuple[int, str]:
    """Exit code and last words; never a traceback."""
    code = ended(agent, 60)
    assert "Traceback" not in node.log
    return code, node.log.splitlines()[-1]


def test_a_sys_that_cannot_be_written_is_enough(node: Node) -> None:
    """As container runtimes give it to whoever is not privileged."""
    mounts = "mount -o remount,bind,ro /sys\n! touch /sys/kernel/uevent_seqnum 2>/dev/null"
    enforces(node, start(node, mounts, rights=True))


def test_no_bpf_filesystem_and_no_right_to_mount_it_is_said_with_the_command(node: Node) -> None:
    gone = "while grep -q ' /sys/fs/bpf bpf ' /proc/self/mounts; do umount -l /sys/fs/bpf; done"
    code, said = ends(start(node, gone, rights=True), node)
    assert code == 3
    assert "/sys/fs/bpf has no bpf filesystem, and it cannot be mounted from here" in said
    assert "on the node: mount -t bpf bpf /sys/fs/bpf" in said


def test_a_bpf_filesystem_that_cannot_be_written_is_said(node: Node) -> None:
    code, said = ends(start(node, "mount -o remount,bind,ro /sys/fs/bpf"), node)
    assert code == 3
    assert f"{node.pin_dir}/links cannot be made: Read-only file system; " in said


def test_a_node_and_pods_that_have_ipv6_alone(tmp_path: Path) -> None:
    node = Node(tmp_path, families=(6,))
    node_itself: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE_NAME},
        "spec": {"podCIDR": "fd07::/64", "podCIDRs": ["fd07::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESSES[1]}]},
    }
    try:
        node.build(("t1/a", "t2/b"))
        agent = node.start()
        node.wait(node.write(node_itself, *node.pods(), deny_ingress("t2")), agent)
        node.wait_until_enforced()
        assert not node.reaches("t1/a", "t2/b", 6)
        assert node.reaches("t2/b", "t1/a", 6)
        assert not control.ask(node.run_dir, {"command": "status"})["problems"]
    finally:
        node.remove()


def test_a_node_that_is_called_otherwise_from_now_on_opens_nobody(node: Node) -> None:
    """Its pods are of a node that is gone, until the API server has them anew."""
    agent = node.start()
    enforces(node, agent)
    assert stop(agent) == 0
    arguments = node.arguments()
    arguments[arguments.index(NODE_NAME)] = "renamed"
    agent = node.begin(arguments)
    node.wait(node.digest(), agent)
    assert not node.reaches("t1/a", "t2/b"), "closed, or as it was"
    text = json.dumps([*node.pods(), deny_ingress("t2")])
    node.put("cluster.json", json.loads(text.replace(f'"{NODE_NAME}"', '"renamed"')))
    node.wait(node.digest(), agent)
    node.wait_until_enforced()
    assert not node.reaches("t1/a", "t2/b")
    eventually(lambda: node.reaches("t2/b", "t1/a"), "what is allowed is allowed again")
    assert not control.ask(node.run_dir, {"command": "status"})["problems"]
