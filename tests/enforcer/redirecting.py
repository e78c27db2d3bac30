"""A program of somebody else that hands packets straight to pods, and the cluster around it."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.answers import control
from enforcer.datapath import iproute
from tests.enforcer.node import STRICT_TENANTS, Document, Node, owned_namespaces

FRIEND, OTHER, VICTIM = "t1/friend", "t1/other", "t2/victim"
FIRST = 5
"""Addresses of pods end with it and what follows; nothing of the link's own does."""
FAMILIES = pytest.mark.parametrize("family", [4, 6])
PASS = bytes.fromhex("b7000000ffffffff 9500000000000000")
LOAD_BYTES, REDIRECT_PEER = 26, 155


def op(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction."""
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def handing_on(pods: Mapping[int, int]) -> bytes:
    """A program that hands on IP for addresses that end with a byte to the pod of an interface."""
    cases = b"".join(
        op(0x55, 8, offset=4, value=last)  # if it is another one, go past these four
        + op(0xB7, 1, value=ifindex)
        + op(0xB7, 2)
        + op(0x85, value=REDIRECT_PEER)
        + op(0x95)
        for last, ifindex in pods.items()
    )
    load = (
        op(0xBF, 1, 6)
        + op(0xBF, 2, 7)
        + op(0xBF, 3, 10)
        + op(0x07, 3, value=-8)
        + op(0xB7, 4, value=1)
        + op(0x85, value=LOAD_BYTES)
        + op(0x71, 8, 10, offset=-8)
    )
    return (
        op(0xBF, 6, 1)
        + op(0x61, 2, 6, offset=16)  # the protocol, in network order
        + op(0x7A, 10, offset=-8)
        + op(0xB7, 7, value=33)
        + op(0x15, 2, offset=3, value=0x0008)
        + op(0xB7, 7, value=53)
        + op(0x15, 2, offset=1, value=0xDD86)
        + op(0x05, offset=(len(load) + len(cases)) // 8)
        + load
        + cases
        + PASS
    )


@contextmanager
def three_pods(directory: Path) -> Iterator[Node]:
    """Two of one tenant and one of another, and no agent yet."""
    made = Node(directory)
    try:
        made.build((FRIEND, OTHER, VICTIM), first=FIRST)
        (directory / "tenants.yaml").write_text(STRICT_TENANTS)
        yield made
    finally:
        made.remove()


def index_of(node: Node, interface: str) -> int:
    found = subprocess.run(
        ["ip", "-n", node.name, "-o", "link", "show", interface],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout.partition(":")[0])


def cluster(node: Node, *policies: Document) -> list[Document]:
    ranges: Document = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "here"},
        "spec": {"podCIDRs": ["10.7.0.0/16", "fd07::/64"]},
    }
    return [*owned_namespaces("t1", "t2"), ranges, *node.pods(), *policies]


def enforce(node: Node, *policies: Document) -> subprocess.Popen[bytes]:
    agent = node.start("--config", str(node.directory / "tenants.yaml"))
    node.wait(node.write(*cluster(node, *policies)), agent)
    node.wait_until_enforced()
    return agent


def put_filter(ifindex: int, program: int, priority: int, handle: int = 1) -> None:
    """A filter of somebody else on what an interface receives; it needs the qdisc."""
    with iproute.opened() as netlink:
        netlink.tc(
            "add-filter",
            "bpf",
            ifindex,
            handle,
            fd=program,
            name="first",
            parent=0xFFFFFFF2,
            prio=priority,
            protocol=3,
            direct_action=True,
        )


def status(node: Node) -> control.Answer:
    return control.ask(node.run_dir, {"command": "status"})
