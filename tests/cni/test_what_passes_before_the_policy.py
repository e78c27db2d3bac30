"""Start modes with traffic: what a new pod can read before its policy is in force, counted.

A pod's processes begin when ADD has returned; that is when a leak begins to count. The other pod
sends all the time, from before there is a veth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.datapath import attach, loader
from lab import netns
from lab.names import Wire
from tests.cni.leaks import flooding
from tests.cni.node import Node, pod, started
from tests.enforcer.node import deny_ingress
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("plugin"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[Node]:
    """In tenant t1 nobody may enter; t1/friend and t2/stranger want to."""
    with started(tmp_path_factory.mktemp("modes")) as found:
        found.write("pods.json", pod("t1/friend"), pod("t2/stranger"), deny_ingress("t1"))
        yield found


@pytest.fixture(scope="module")
def senders(node: Node) -> dict[str, Wire]:
    wires = {}
    for key in ("t1/friend", "t2/stranger"):
        wires[key] = node.sandbox()
        assert node.add(key, wires[key]).code == 0, node.log
    return wires


def restart(node: Node, option: str) -> None:
    node.end(node.processes[-1])
    node.start(option)


def known(node: Node) -> None:
    """The agent hears of t1/new, and has it under its policy."""
    node.write("new.json", pod("t1/new"))
    eventually(lambda: node.enforces("t1/new"))


def unknown(node: Node, wire: Wire) -> None:
    assert node.delete("t1/new", wire).code == 0
    (node.manifests / "new.json").unlink()


def test_strict_lets_nothing_through_to_a_pod_that_may_receive_nothing(
    node: Node, senders: dict[str, Wire]
) -> None:
    for key, source in senders.items():
        node.write("new.json", pod("t1/new"))
        wire = node.sandbox()
        with flooding(source, wire) as flood:
            assert node.add("t1/new", wire).code == 0
            begins = flood.go_on()
        print(f"strict: {flood.since(begins)} of {len(flood.sent)} datagrams of {key}")
        assert flood.since(begins) == 0
        unknown(node, wire)


def test_tenant_default_lets_in_the_own_tenant_alone_until_the_policy_is_known(
    node: Node, senders: dict[str, Wire]
) -> None:
    restart(node, "--start-mode=tenant-default")
    for key, passes in (("t2/stranger", False), ("t1/friend", True)):
        wire = node.sandbox()
        with flooding(senders[key], wire) as flood:
            assert node.add("t1/new", wire).code == 0, "without its policy"
            begins = flood.go_on()
            assert (flood.since(begins) > 0) is passes
            known(node)
            under_policy = flood.go_on()
        assert flood.since(under_policy) == 0
        print(f"tenant-default: {flood.since(begins)} of {len(flood.sent)} datagrams of {key}")
        unknown(node, wire)


def test_open_lets_everything_in_until_the_policy_is_known(
    node: Node, senders: dict[str, Wire]
) -> None:
    restart(node, "--start-mode=open")
    wire = node.sandbox()
    with flooding(senders["t2/stranger"], wire) as flood:
        assert node.add("t1/new", wire).code == 0
        begins = flood.go_on()
        assert flood.since(begins) > 0
        known(node)
        under_policy = flood.go_on()
    assert flood.since(under_policy) == 0
    print(f"open: {flood.since(begins)} of {len(flood.sent)} datagrams of t2/stranger")
    unknown(node, wire)


def test_the_watcher_closes_a_pod_that_no_cni_call_told_of(
    node: Node, senders: dict[str, Wire]
) -> None:
    restart(node, "--watch-interfaces=vt*")
    wire = node.empty()
    with flooding(senders["t2/stranger"], wire) as flood:
        node.plug(wire)
        eventually(lambda: _programs(node, wire))
        closed = flood.go_on()
        assert flood.since(closed) == 0, "closed until somebody knows whose it is"
        node.write("new.json", pod("t1/bypassed", ips=wire.addresses))
        eventually(lambda: node.enforces("t1/bypassed"))
        under_policy = flood.go_on()
    assert flood.since(under_policy) == 0
    print(f"watcher: {len(flood.arrived)} of {len(flood.sent)} datagrams of t2/stranger")


def _programs(node: Node, wire: Wire) -> bool:
    with netns.inside(node.name):
        pins = loader.find_loaded(node.pin_dir)
        return pins is not None and attach.attached(pins, wire.interface) is not None
