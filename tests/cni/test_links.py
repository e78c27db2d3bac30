"""Which interface a pod hangs on, by the kernel's word, in network namespaces of our own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.agent import sandboxes
from enforcer.agent.attachments import device_of
from enforcer.agent.watcher import USUAL_NAMES
from enforcer.datapath import links
from enforcer.datapath.links import VETH, Link, looks_like_pod
from lab import netns, network
from lab.names import NETNS_ROOT, Wire

Names = Callable[[str], str]


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (Link(5, "veth12ab", VETH, 2, 0), True),
        (Link(5, "cali12ab", VETH, 2, 0), True),
        (Link(5, "eth0", VETH, 2, 0), False),
        (Link(5, "veth12ab", VETH, 4, None), False),
        (Link(5, "veth12ab", "macvlan", 2, 0), False),
        (Link(5, "lxcbr0", "bridge"), False),
    ],
    ids=["veth", "calico", "a node in a container", "both ends here", "no veth", "a bridge"],
)
def test_what_looks_like_the_host_side_of_a_pod(link: Link, found: bool) -> None:
    assert looks_like_pod(link, USUAL_NAMES) is found


@contextmanager
def wired(node: str, count: int) -> Iterator[list[Wire]]:
    wires = [
        Wire(f"{node}-{n}", f"veth{n}", (f"10.9.0.{n}", f"fd09::{n}")) for n in range(1, count + 1)
    ]
    try:
        netns.create(node)
        network.prepare_node(node)
        for wire in wires:
            netns.create(wire.netns)
            network.add_pod(node, wire)
        yield wires
    finally:
        for name in (node, *(wire.netns for wire in wires)):
            if netns.exists(name):
                netns.remove(name)


@pytest.mark.bpf
def test_the_kernel_says_where_a_pod_is(unique_name: Names) -> None:
    node = unique_name("rfl")
    with wired(node, 2) as (first, second), netns.inside(node):
        listening = links.listen(links.RTNLGRP_LINK)
        network.connect_pod(node, second)
        with listening:
            assert second.interface in {link.name for link in links.heard(listening.recv(1 << 18))}
        with links.netlink() as asked:
            found = asked.links()
            numbers = {link.name: link.ifindex for link in found}
            descriptor = os.open(NETNS_ROOT / first.netns, os.O_RDONLY)
            host_side = asked.host_side(descriptor, "eth0")
            assert host_side is not None
            assert host_side.name == first.interface
            assert asked.host_side(descriptor, "lo") is None
            assert asked.host_side(descriptor, "eth7") is None
            os.close(descriptor)
            assert asked.route_to("10.9.0.1") is None, "its links are down"
            assert asked.route_to("fd09::2") == numbers[second.interface]
            assert asked.link(4711) is None
        assert links.locate(["fd09::2"], found) == numbers[second.interface], "by its route"
        assert links.locate(first.addresses, found) is None, "what it says of itself is no proof"
        assert links.locate(["10.9.0.77"], found) is None
        assert device_of(numbers[first.interface]) != device_of(numbers[second.interface])
        assert device_of(4711) is None


@pytest.mark.bpf
def test_an_address_that_a_pod_gives_itself_moves_nobody(unique_name: Names) -> None:
    node = unique_name("rfl")
    with wired(node, 2) as (first, second):
        address = first.addresses[0]
        add_address(second.netns, address)
        network.connect_pod(node, first)
        with netns.inside(node), links.netlink() as asked:
            found = asked.links()
            located = links.locate([address], found)
        assert located == {link.name: link.ifindex for link in found}[first.interface]


RECORD = {
    "kind": "cniCacheV1",
    "containerId": "c",
    "ifName": "eth0",
    "cniArgs": [["K8S_POD_NAMESPACE", "t1"], ["K8S_POD_NAME", "a"], ["K8S_POD_UID", "u"]],
    "result": {
        "interfaces": [{"name": "cni0"}, {"name": "veth2"}, {"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.9.0.2/24"}, {"address": "FD09:0::2/64"}],
    },
}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"cniArgs": 3}', json.dumps({**RECORD, "result": {"ips": [{}]}})],
)
def test_a_record_that_makes_no_sense_says_nothing(text: str) -> None:
    assert sandboxes.parse(text) is None


@pytest.mark.parametrize(
    ("key", "uid", "ip", "found"),
    [
        ("t1/a", "u", "fd09::2", True),
        ("t1/a", "", "10.9.0.2", True),
        ("t1/a", "another", "10.9.0.2", False),
        ("t1/b", "u", "10.9.0.2", False),
        ("t1/a", "u", "10.9.0.3", False),
    ],
)
def test_a_record_speaks_for_just_one_pod(key: str, uid: str, ip: str, found: bool) -> None:
    recorded = sandboxes.parse(json.dumps(RECORD))
    assert recorded is not None
    assert recorded.is_of(key, uid, frozenset({ip})) is found


@pytest.mark.bpf
@pytest.mark.parametrize("visible", [True, False], ids=["by its namespace", "by its name"])
def test_the_runtimes_record_says_where_a_pod_is(
    unique_name: Names, tmp_path: Path, visible: bool
) -> None:
    node = unique_name("rfl")
    with wired(node, 2) as (first, second):
        where = str(NETNS_ROOT / second.netns) if visible else "/not/here"
        (tmp_path / "net-c-eth0").write_text(json.dumps({**RECORD, "netns": where}))
        add_address(first.netns, second.addresses[0])
        with netns.inside(node), links.netlink() as asked:
            found = asked.links()
            located = sandboxes.locate(tmp_path, "t1/a", "u", frozenset({"10.9.0.2"}), found)
        assert located == {link.name: link.ifindex for link in found}[second.interface]


def add_address(name: str, address: str) -> None:
    command = ["nsenter", f"--net={NETNS_ROOT / name}", "ip", "address", "add"]
    subprocess.run([*command, f"{address}/32", "dev", "eth0"], check=True)
