"""A program of somebody else that hands packets straight to pods, as eBPF host routing does.

It stands before or behind ours.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from enforcer.answers import control
from enforcer.datapath import attach, kernel, neighbours
from enforcer.datapath.attach import CLOSED, AttachMode
from enforcer.datapath.kernel import Hook
from lab import netns
from tests.enforcer.node import Document, Node, deny_ingress
from tests.enforcer.redirecting import (
    FAMILIES,
    FIRST,
    FRIEND,
    OTHER,
    PASS,
    VICTIM,
    cluster,
    enforce,
    handing_on,
    index_of,
    op,
    put_filter,
    status,
    three_pods,
)
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with three_pods(tmp_path) as made:
        yield made


@pytest.fixture
def links() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def put(
    links: ExitStack,
    node: Node,
    code: bytes,
    on: Sequence[str],
    hook: Hook = Hook.TCX_INGRESS,
) -> None:
    """Put a program first on a hook of these interfaces of the node."""
    with netns.inside(node.name), kernel.program_load("neighbour", code) as program:
        for interface in on:
            ifindex = index_of(node, interface)
            links.enter_context(kernel.link_create(program.fd, ifindex, hook))


def redirect_everything(links: ExitStack, node: Node) -> None:
    """Have all pods' packets go past the hooks where they would enter pods."""
    interfaces = [wire.interface for wire in node.wires.values()]
    pods = {number: index_of(node, name) for number, name in enumerate(interfaces, start=FIRST)}
    put(links, node, handing_on(pods), interfaces)


def until_noticed(node: Node, what: str) -> None:
    eventually(lambda: what in str(status(node)["neighbours"]), "the neighbour is noticed")


@FAMILIES
def test_what_is_there_before_us_passes_the_hook_of_the_receiver(
    node: Node, links: ExitStack, family: int
) -> None:
    redirect_everything(links, node)
    assert node.reaches(FRIEND, VICTIM, family)  # both know their gateways from now on
    put(links, node, CLOSED, [node.wires[VICTIM].interface], Hook.TCX_EGRESS)
    assert node.reaches(FRIEND, VICTIM, family)
    links.close()
    put(links, node, CLOSED, [node.wires[VICTIM].interface], Hook.TCX_EGRESS)
    assert not node.reaches(FRIEND, VICTIM, family)


@FAMILIES
def test_one_that_was_there_first_passes_no_wall_and_no_policy(
    node: Node, links: ExitStack, family: int
) -> None:
    redirect_everything(links, node)
    enforce(node)
    assert not node.reaches(FRIEND, VICTIM, family), "from the first moment on"
    assert node.reaches(FRIEND, OTHER, family)
    node.write(*cluster(node, deny_ingress("t1")))
    eventually(lambda: not node.reaches(FRIEND, OTHER, family), "policies hold")
    assert not status(node)["problems"]


@FAMILIES
def test_one_that_comes_later_and_puts_itself_first_is_overtaken(
    node: Node, links: ExitStack, family: int
) -> None:
    enforce(node)
    assert not node.reaches(FRIEND, VICTIM, family)
    redirect_everything(links, node)
    until_noticed(node, "neighbour")
    eventually(lambda: not node.reaches(FRIEND, VICTIM, family), "the wall holds again")
    assert node.reaches(FRIEND, OTHER, family)
    assert not status(node)["problems"]


def test_when_it_goes_the_detour_ends(node: Node, links: ExitStack) -> None:
    redirect_everything(links, node)
    enforce(node)
    until_noticed(node, "neighbour")
    links.close()
    eventually(lambda: not status(node)["neighbours"], "nobody is there any more")
    assert node.reaches(FRIEND, OTHER)
    assert not node.reaches(FRIEND, VICTIM)


def test_one_on_an_uplink_is_told(node: Node, links: ExitStack) -> None:
    up = ("ip", "-n", node.name, "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    subprocess.run(up, check=True)
    put(links, node, handing_on({6: index_of(node, node.wires[VICTIM].interface)}), ["up0"])
    enforce(node)
    told = eventually(lambda: status(node)["problems"], "it is told")
    assert "not enforced for packets from other nodes" in str(told)
    assert "tcx ingress of up0" in str(told)
    assert "bpf.hostLegacyRouting=true" in str(told)


def test_one_that_only_looks_is_nobodys_business(node: Node, links: ExitStack) -> None:
    put(links, node, PASS, [wire.interface for wire in node.wires.values()])
    enforce(node)
    found = neighbours_of(node)
    assert {n.hook for n in found.neighbours} == {"tcx ingress"}
    assert not any(n.passes for n in found.neighbours)
    assert not status(node)["neighbours"]
    assert not status(node)["problems"]


def neighbours_of(node: Node) -> neighbours.Findings:
    """As the agent sees them; our programs are those by our names."""
    indices = [index_of(node, wire.interface) for wire in node.wires.values()]
    with netns.inside(node.name):
        ours = set()
        for ifindex in indices:
            for hook in Hook:
                for number in kernel.hook_programs(ifindex, hook):
                    with kernel.program_of(number) as program:
                        if kernel.program_info(program.fd).name in ("to_pod", "from_pod"):
                            ours.add(number)
        return neighbours.Lookout().look(ours, dict.fromkeys(indices, AttachMode.TCX.value))


POD = 5


def neighbour(**fields: object) -> neighbours.Neighbour:
    known: dict[str, object] = {
        "ifindex": 7,
        "interface": "eth0",
        "hook": "tcx ingress",
        "program": 12,
        "name": "cil_from_netdev",
        "before": False,
        "passes": False,
    }
    return neighbours.Neighbour(**{**known, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "shortcut", "told"),
    [
        pytest.param({}, False, "", id="one that only looks"),
        pytest.param({"ifindex": POD}, False, "", id="the same on a pod's"),
        pytest.param({"ifindex": POD, "passes": True}, True, "", id="held"),
        pytest.param(
            {"passes": True}, True, "not enforced for packets from other nodes", id="an uplink"
        ),
        pytest.param(
            {"ifindex": POD, "before": True, "hook": "netkit"},
            False,
            "not enforced: program cil_from_netdev (id 12) on netkit of eth0 sees packets before",
            id="in the place of ours",
        ),
    ],
)
def test_what_follows_from_a_program(found: dict[str, object], shortcut: bool, told: str) -> None:
    findings = neighbours.Findings((neighbour(**found),))
    assert findings.shortcut is shortcut
    problems = findings.problems({POD})
    assert told in "".join(problems)
    assert bool(problems) is bool(told)
    assert bool(findings.held({POD})) is (shortcut and not told)


def test_where_there_is_no_tcx_one_before_ours_is_told(node: Node, links: ExitStack) -> None:
    """As on kernels before 6.6: ours are clsact filters, in their order with others'."""
    enforce(node)
    wire = node.wires[FRIEND]
    (pins,) = (path.parent for path in node.pin_dir.glob("*/from_pod"))
    with netns.inside(node.name):
        ifindex = socket.if_nametoindex(wire.interface)
        attach.attach(pins, ifindex, AttachMode.CLSACT)
        foreign = links.enter_context(kernel.program_load("first", PASS))
        for priority in (1, 9):
            put_filter(ifindex, foreign.fd, priority)
        seen = neighbours.Lookout().look(
            attach.program_ids(pins), {ifindex: AttachMode.CLSACT.value}
        )
    on_ours = [n.before for n in seen.neighbours if n.hook == "clsact ingress"]
    assert on_ours == [order_of(wire.interface, node.name) == "first", False]


def order_of(interface: str, namespace: str) -> str:
    """Whose filter tc lists first."""
    command = ["tc", "-n", namespace, "filter", "show", "dev", interface, "ingress"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    named = [line for line in shown.splitlines() if "direct-action" in line]
    return "first" if "first" in named[0] else "ours"


@FAMILIES
def test_a_wall_on_another_node_holds_at_the_sender(
    node: Node, links: ExitStack, family: int
) -> None:
    """There something else may hand it on, too; here nothing is enforced at the other end."""
    redirect_everything(links, node)
    agent = node.start("--config", str(node.directory / "tenants.yaml"))
    (remote,) = node.pods([VICTIM])
    elsewhere = {**remote, "spec": {**_part(remote, "spec"), "nodeName": "there"}}
    documents = [d for d in cluster(node) if d is not remote and not _is(d, VICTIM)]
    node.wait(node.write(*documents, elsewhere), agent)
    node.wait_until_enforced()
    until_noticed(node, "neighbour")
    eventually(lambda: not node.reaches(FRIEND, VICTIM, family), "the wall holds")
    assert node.reaches(FRIEND, OTHER, family)
    lines = [str(flow) for flow in control.stream(node.run_dir, {"command": "flows", "last": 50})]
    assert any("TENANT_WALL" in flow and "tenant/t2#wall" in flow for flow in lines)


def _part(document: Document, name: str) -> Mapping[str, object]:
    part = document[name]
    assert isinstance(part, Mapping)
    return part


def _is(document: Document, pod: str) -> bool:
    metadata = _part(document, "metadata")
    return f"{metadata.get('namespace')}/{metadata.get('name')}" == pod


def test_programs_are_judged_with_those_that_they_may_call() -> None:
    shape = kernel.MapShape(neighbours.PROG_ARRAY, 4, 4, 4, 0)
    with ExitStack() as stack:
        behind = stack.enter_context(kernel.program_load("behind", handing_on({1: 1})))
        harmless = stack.enter_context(kernel.program_load("harmless", PASS))
        table = stack.enter_context(kernel.map_create("calls", shape))
        load_map = struct.pack("<BBhiBBhi", 0x18, 1 << 4 | 2, 0, table.fd, 0, 0, 0, 0)
        code = load_map + op(0xB7, 3) + op(0x85, value=neighbours.TAIL_CALL) + PASS
        caller = stack.enter_context(kernel.program_load("caller", code))
        number = kernel.program_info(caller.fd).id
        assert not neighbours.may_pass(number), "it has nobody to call"
        for program, passes in ((harmless, False), (behind, True)):
            kernel.map_update(table.fd, bytes(4), program.fd.to_bytes(4, "little"))
            assert neighbours.may_pass(number) is passes
        assert neighbours.may_pass(kernel.program_info(behind.fd).id)
    with suppress(kernel.KernelError):
        assert not neighbours.may_pass(number), "it is gone"


def test_what_may_be_called_is_read_again(node: Node, links: ExitStack) -> None:
    shape = kernel.MapShape(neighbours.PROG_ARRAY, 4, 4, 4, 0)
    table = links.enter_context(kernel.map_create("calls", shape))
    behind = links.enter_context(kernel.program_load("behind", handing_on({1: 1})))
    load_map = struct.pack("<BBhiBBhi", 0x18, 1 << 4 | 2, 0, table.fd, 0, 0, 0, 0)
    code = load_map + op(0xB7, 3) + op(0x85, value=neighbours.TAIL_CALL) + PASS
    put(links, node, code, [node.wires[FRIEND].interface])
    lookout, patient = neighbours.Lookout(again=0), neighbours.Lookout(again=3600)

    def passes(by: neighbours.Lookout) -> list[bool]:
        with netns.inside(node.name):
            return [n.passes for n in by.look((), {}).neighbours]

    assert (passes(lookout), passes(patient)) == ([False], [False])
    kernel.map_update(table.fd, bytes(4), behind.fd.to_bytes(4, "little"))
    assert (passes(lookout), passes(patient)) == ([True], [False])


def test_an_agent_that_is_killed_while_it_overtakes_leaves_the_pod_closed(
    node: Node, links: ExitStack
) -> None:
    """The gate stands and our program is gone: what attaches next opens it."""
    enforce(node)
    assert node.reaches(FRIEND, OTHER)
    (pins,) = (path.parent for path in node.pin_dir.glob("*/to_pod"))
    with netns.inside(node.name):
        ifindex = socket.if_nametoindex(node.wires[OTHER].interface)
        link = pins.parent / attach.LINKS / f"{ifindex}-to_pod"
        with (
            kernel.program_load("closed", CLOSED) as closed,
            kernel.link_create(closed.fd, ifindex, Hook.TCX_EGRESS) as gate,
        ):
            kernel.pin(gate.fd, link.with_name(f"{link.name}-gate"))
        with kernel.open_pin(link) as held:
            kernel.link_detach(held.fd)
    assert not node.reaches(FRIEND, OTHER)
    with netns.inside(node.name):
        attach.attach(pins, ifindex)
    assert node.reaches(FRIEND, OTHER)
    assert not list((pins.parent / attach.LINKS).glob("*-gate"))
