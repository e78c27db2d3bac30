"""Which interface a pod hangs on, by the kernel's word, in network namespaces of our own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from enforcer import links
from enforcer.attachments import device_of
from enforcer.lab import netns, network
from enforcer.lab.names import NETNS_ROOT, Wire
from enforcer.links import VETH, Link
from enforcer.watcher import USUAL_NAMES, looks_like_pod

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
        assert links.locate(first.addresses, found) == numbers[first.interface], "by its peer"
        assert links.locate(["10.9.0.77"], found) is None
        assert device_of(numbers[first.interface]) != device_of(numbers[second.interface])
        assert device_of(4711) is None


@pytest.mark.bpf
def test_an_address_that_two_pods_have_given_themselves_is_nobodys(unique_name: Names) -> None:
    node = unique_name("rfl")
    with wired(node, 2) as (first, second):
        network_address = first.addresses[0]
        add_address(second.netns, network_address)
        with netns.inside(node), links.netlink() as asked:
            found = asked.links()
            assert links.locate([network_address], found) is None
        network.connect_pod(node, first)  # the node's own routes are above suspicion
        with netns.inside(node):
            located = links.locate([network_address], found)
            assert located == {link.name: link.ifindex for link in found}[first.interface]


def add_address(name: str, address: str) -> None:
    command = ["nsenter", f"--net={NETNS_ROOT / name}", "ip", "address", "add"]
    subprocess.run([*command, f"{address}/32", "dev", "eth0"], check=True)
