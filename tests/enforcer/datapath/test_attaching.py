"""Attaching: two ways with one result, others' filters stay, and uninstall leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.datapath import attach, kernel, loader
from enforcer.datapath.attach import AttachMode
from enforcer.datapath.flows import DropReason, FlowReader
from enforcer.datapath.maps import Maps
from enforcer.datapath.programs import Programs
from enforcer.policy.tables import Dir, EndpointFlag, PolicyKey
from lab.netns import inside
from tests.enforcer.datapath.pods import (
    PORT,
    Cluster,
    Pod,
    calling,
    command,
    connected,
    identity,
    listen,
    wait_for_event,
)
from tests.testbed.waiting import ending

pytestmark = pytest.mark.bpf

ISOLATED = EndpointFlag.ISOLATED_INGRESS
EVERYTHING = ("u32", "match", "u32", "0", "0", "flowid", "1:1")
"""A filter of somebody else that passes every packet."""
MODES = [pytest.param(AttachMode.TCX, id="tcx"), pytest.param(AttachMode.CLSACT, id="clsact")]


@pytest.fixture
def fresh_pins(datapath_pins: Path) -> Iterator[Path]:
    """The session's programs below a pin directory of their own, to be uninstalled."""
    directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
    again = directory / datapath_pins.name
    again.mkdir(parents=True)
    for pin in datapath_pins.iterdir():
        with kernel.open_pin(pin) as thing:
            kernel.pin(thing.fd, again / pin.name)
    try:
        yield again
    finally:
        attach.uninstall(directory)


def opened(cluster: Cluster, client: Pod, server: Pod) -> None:
    """The client may enter on PORT, and nobody else anywhere."""
    entry = {PolicyKey(server.number, identity(client), PORT, 6, Dir.INGRESS): 1}
    cluster.enforce({server.number: ISOLATED}, entry)


def enforced(cluster: Cluster, client: Pod, server: Pod, events: FlowReader) -> bool:
    """The allowed port is reached, and the port beside it meets the policy's drop."""
    del cluster
    with (
        listen(server.namespace, 4, socket.SOCK_STREAM),
        calling(client.namespace, 4, server.address[4]) as allowed,
        calling(client.namespace, 4, server.address[4], PORT + 1) as denied,
    ):
        record = wait_for_event(events, lambda r: r.destination_port == PORT + 1, "a drop")
        assert record.reason is DropReason.POLICY_DENIED
        return connected(allowed) and not connected(denied, timeout=0)


def filters(cluster: Cluster, pod: Pod) -> list[dict[str, object]]:
    """All tc filters of a pod's veth, as tc tells them."""
    found: list[dict[str, object]] = []
    for hook in ("ingress", "egress"):
        told = command(
            "ip", "netns", "exec", cluster.node, "tc", "-j", "filter", "show", "dev",
            pod.interface, hook,
        )  # fmt: skip
        found += [f for f in json.loads(told or "[]") if "options" in f]
    return found


def qdiscs(cluster: Cluster, pod: Pod) -> list[str]:
    told = command("tc", "-j", "-n", cluster.node, "qdisc", "show", "dev", pod.interface)
    return [q["kind"] for q in json.loads(told)]


@pytest.mark.parametrize("mode", MODES)
def test_both_ways_enforce_alike(
    cluster: Cluster, client: Pod, mode: AttachMode, events: FlowReader
) -> None:
    server = cluster.pod()
    cluster.mode = mode
    opened(cluster, client, server)
    assert cluster.attach(server) is mode
    assert cluster.attach(server) is mode, "again changes nothing"
    with inside(cluster.node):
        assert attach.attached(cluster.pins, server.interface) is mode
    assert enforced(cluster, client, server, events)


@pytest.mark.parametrize("first", MODES)
def test_changing_the_way_leaves_one_of_them(
    cluster: Cluster, server: Pod, client: Pod, first: AttachMode, events: FlowReader
) -> None:
    second = AttachMode.CLSACT if first is AttachMode.TCX else AttachMode.TCX
    opened(cluster, client, server)
    for mode in (first, second):
        cluster.mode = mode
        cluster.attach(server)
    with inside(cluster.node):
        tcx = [kernel.hook_programs(server.ifindex, hook) for hook in kernel.Hook]
    counts = {AttachMode.TCX: sum(map(len, tcx)), AttachMode.CLSACT: len(filters(cluster, server))}
    assert counts == {second: 2, first: 0}
    assert enforced(cluster, client, server, events)


def test_without_choice_it_is_tcx_where_the_kernel_has_it(cluster: Cluster) -> None:
    pod = cluster.pod()
    assert cluster.attach(pod) is AttachMode.TCX


def test_clsact_steps_in_where_the_kernel_has_no_tcx(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL is what such a kernel says to an attach type that it does not know."""
    pod = cluster.pod()

    def unknown(program_fd: int, ifindex: int, hook: kernel.Hook) -> kernel.Handle:
        del program_fd, ifindex, hook
        raise kernel.KernelError("link create", errno.EINVAL)

    monkeypatch.setattr(kernel, "link_create", unknown)
    assert cluster.attach(pod) is AttachMode.CLSACT


@pytest.mark.parametrize("mode", MODES)
def test_detaching_opens_and_leaves_nothing(
    cluster: Cluster, client: Pod, server: Pod, mode: AttachMode
) -> None:
    cluster.mode = mode
    before = qdiscs(cluster, server)
    cluster.attach(server)
    with inside(cluster.node):
        attach.detach(cluster.pins, server.interface)
        assert attach.attached(cluster.pins, server.interface) is None
    assert filters(cluster, server) == []
    assert qdiscs(cluster, server) == before
    with (
        listen(server.namespace, 4, socket.SOCK_STREAM),
        calling(client.namespace, 4, server.address[4]) as call,
    ):
        assert connected(call)


def take_links_off(cluster: Cluster, pod: Pod) -> None:
    for pin in (cluster.pins.parent / attach.LINKS).glob(f"{pod.ifindex}-*"):
        with kernel.open_pin(pin) as link:
            kernel.link_detach(link.fd)


def take_qdisc_off(cluster: Cluster, pod: Pod) -> None:
    command("tc", "-n", cluster.node, "qdisc", "del", "dev", pod.interface, "clsact")


@pytest.mark.parametrize(
    ("mode", "take_off"),
    [
        pytest.param(AttachMode.TCX, take_links_off, id="tcx"),
        pytest.param(AttachMode.CLSACT, take_qdisc_off, id="clsact"),
    ],
)
def test_programs_that_another_tool_took_off_are_put_back(
    cluster: Cluster,
    client: Pod,
    mode: AttachMode,
    take_off: Callable[[Cluster, Pod], None],
    monkeypatch: pytest.MonkeyPatch,
    events: FlowReader,
) -> None:
    server = cluster.pod()
    opened(cluster, client, server)
    monkeypatch.setattr(attach, "attach", partial(attach.attach, mode=mode))
    with inside(cluster.node):
        programs = Programs(cluster.pins, ())
        assert programs.put_on(server.ifindex) == ""
        take_off(cluster, server)
        assert attach.attached(cluster.pins, server.ifindex) is None
        programs.put_back()
        assert attach.attached(cluster.pins, server.ifindex) is None, "not looked at yet"
        programs.put_back(seconds=0)
        assert attach.attached(cluster.pins, server.ifindex) is mode
    assert enforced(cluster, client, server, events)


@pytest.mark.parametrize("mode", MODES)
def test_filters_of_others_stay(
    cluster: Cluster, client: Pod, server: Pod, mode: AttachMode, events: FlowReader
) -> None:
    node_tc = ("tc", "-n", cluster.node)
    command(*node_tc, "qdisc", "add", "dev", server.interface, "clsact")
    foreign = ("protocol", "all", "prio", "7", *EVERYTHING)
    command(*node_tc, "filter", "add", "dev", server.interface, "egress", *foreign)
    before = filters(cluster, server)
    cluster.mode = mode
    opened(cluster, client, server)
    cluster.attach(server)
    assert enforced(cluster, client, server, events)
    with inside(cluster.node):
        attach.detach(cluster.pins, server.interface)
    assert filters(cluster, server) == before
    assert "clsact" in qdiscs(cluster, server)


def test_filter_of_others_in_our_place_is_named_and_kept(cluster: Cluster, server: Pod) -> None:
    node_tc = ("tc", "-n", cluster.node)
    command(*node_tc, "qdisc", "add", "dev", server.interface, "clsact")
    foreign = ("protocol", "all", "prio", "1", *EVERYTHING)
    command(*node_tc, "filter", "add", "dev", server.interface, "egress", *foreign)
    before = filters(cluster, server)
    cluster.mode = AttachMode.CLSACT
    with pytest.raises(attach.AttachError, match="u32"):
        cluster.attach(server)
    assert filters(cluster, server) == before


def test_interface_that_does_not_exist_is_said(cluster: Cluster) -> None:
    with inside(cluster.node), pytest.raises(attach.AttachError, match="rft-nowhere"):
        attach.attach(cluster.pins, "rft-nowhere")


def test_pin_of_an_interface_that_is_gone_does_not_hinder_its_number(cluster: Cluster) -> None:
    pod = cluster.pod()
    cluster.attach(pod)
    command("ip", "-n", cluster.node, "link", "delete", pod.interface)
    again = ("link", "add", pod.interface, "index", str(pod.ifindex), "type", "veth")
    command("ip", "-n", cluster.node, *again, "peer", "name", "rft-peer")
    assert cluster.attach(pod) is AttachMode.TCX
    with inside(cluster.node):
        assert attach.attached(cluster.pins, pod.interface) is AttachMode.TCX


ATTACH_AND_WAIT = """
import sys
from pathlib import Path
from enforcer.datapath import attach
attach.attach(Path(sys.argv[1]), int(sys.argv[2]), attach.AttachMode(sys.argv[3]))
print("attached", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", MODES)
def test_enforcement_outlives_the_process_that_attached(
    cluster: Cluster, client: Pod, mode: AttachMode, events: FlowReader
) -> None:
    server = cluster.pod()
    opened(cluster, client, server)
    words = (sys.executable, "-c", ATTACH_AND_WAIT, str(cluster.pins), str(server.ifindex), mode)
    with inside(cluster.node):
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ending(process):
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        os.kill(process.pid, signal.SIGKILL)
    assert enforced(cluster, client, server, events)


@pytest.mark.parametrize("mode", MODES)
def test_uninstall_leaves_nothing(
    cluster: Cluster, server: Pod, fresh_pins: Path, mode: AttachMode
) -> None:
    with inside(cluster.node):
        attach.detach(cluster.pins, server.interface)
        before = qdiscs(cluster, server)
        attach.attach(fresh_pins, server.interface, mode)
        attach.uninstall(fresh_pins.parent)
        assert [kernel.hook_programs(server.ifindex, h) for h in kernel.Hook] == [(), ()]
    assert filters(cluster, server) == []
    assert qdiscs(cluster, server) == before
    assert not fresh_pins.parent.exists()


def test_uninstall_of_one_directory_leaves_the_other(
    cluster: Cluster, client: Pod, server: Pod, events: FlowReader
) -> None:
    opened(cluster, client, server)
    other = loader.ensure_loaded(loader.BPF_FS / f"ringfence-test-{token_hex(3)}")
    with inside(cluster.node):
        try:
            attach.attach(other, server.interface, AttachMode.TCX)
        finally:
            attach.uninstall(other.parent)
        assert attach.attached(cluster.pins, server.interface) is AttachMode.TCX
    assert enforced(cluster, client, server, events)


def test_what_others_keep_below_the_pin_directory_is_left_alone(fresh_pins: Path) -> None:
    """A lab's pins lie below those that an agent has by default."""
    others = fresh_pins.parent / "lab-other"
    others.mkdir()
    kernel_before = sorted(fresh_pins.iterdir())
    attach.retire(fresh_pins)
    assert others.is_dir()
    assert sorted(fresh_pins.iterdir()) == kernel_before
    attach.uninstall(fresh_pins.parent)
    assert list(fresh_pins.parent.iterdir()) == [others]
    others.rmdir()
    attach.uninstall(fresh_pins.parent)
    assert not fresh_pins.parent.exists()


def test_uninstall_without_pins_is_no_error(fresh_pins: Path) -> None:
    attach.uninstall(fresh_pins.parent / "never-made")


def test_maps_that_are_pinned_are_read_by_the_next_process(
    cluster: Cluster, client: Pod, server: Pod
) -> None:
    opened(cluster, client, server)
    code = "import sys; from pathlib import Path; from enforcer.datapath.maps import Maps; "
    code += "print(len(Maps.open(Path(sys.argv[1])).read().policy))"
    words = (sys.executable, "-c", code, str(cluster.pins))
    with Maps.open(cluster.pins) as maps:
        assert int(command(*words)) == len(maps.read().policy) == 1
