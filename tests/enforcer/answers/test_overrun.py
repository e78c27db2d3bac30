"""More drops than the ring buffer holds, with real packets: counted exactly, nobody is blocked."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from enforcer.answers import control
from generators.documents.json import mapping
from lab import netns
from tests.conftest import COMMAND
from tests.enforcer.answers.conftest import PATIENCE
from tests.enforcer.node import PORT, Node, deny_ingress
from tests.testbed.waiting import ending, eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

MANY = 40_000
"""Far more than events fit into the ring."""
KERNEL_LOSS = "EVENTS LOST: PERF_EVENT_RING_BUFFER "


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def flood(node: Node, count: int) -> None:
    """Datagrams from t2/b to t1/a, none of which may arrive."""
    with netns.inside(node.wires["t2/b"].netns):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    target = (node.wires["t1/a"].addresses[0], PORT)
    with sender:
        for _ in range(count):
            sender.sendto(b"x", target)


def dropped(node: Node) -> int:
    """Packets that the kernel counted as denied."""
    answer = control.ask(
        node.run_dir, {"command": "bpf", "table": "metrics", "timeout": patience(PATIENCE)}
    )
    rows = answer["entries"]
    assert isinstance(rows, list)
    return sum(row["packets"] for row in rows if row["reason"] == "POLICY_DENIED")


def told(node: Node) -> tuple[int, int]:
    """Flows that were read, and events that were lost."""
    flows = control.ask(node.run_dir, {"command": "status", "timeout": patience(PATIENCE)})["flows"]
    assert isinstance(flows, Mapping)
    return flows["read"], flows["lost"]


def test_a_full_ring_loses_events_but_no_count_and_blocks_nobody(
    node: Node, tmp_path: Path
) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    assert not node.reaches("t2/b", "t1/a"), "and now both know where the other is"
    assert node.reaches("t1/a", "t2/b")
    before = dropped(node)
    told_before = told(node)
    assert told_before[1] == 0

    with following(node, tmp_path / "monitor") as lines:
        agent.send_signal(signal.SIGSTOP)
        try:
            flood(node, MANY)
            assert node.reaches("t1/a", "t2/b"), "a full ring stops nobody"
        finally:
            agent.send_signal(signal.SIGCONT)
        assert dropped(node) - before == MANY
        eventually(lambda: any(KERNEL_LOSS in line for line in lines()))
        # What was not read was lost; the line that tells so counts as read.
        eventually(lambda: sum(told(node)) - sum(told_before) >= MANY)
        eventually(
            lambda: sum(count for line in lines() if (count := lost_by(line))) == told(node)[1]
        )
    assert told(node)[1] > 0


@contextlib.contextmanager
def following(node: Node, path: Path) -> Iterator[Callable[[], list[str]]]:
    """`ringfence monitor` in the background; what it has printed so far."""
    command = [str(COMMAND), "monitor", "--run-dir", str(node.run_dir), "--last", "99"]
    with path.open("wb") as out, ending(subprocess.Popen(command, stdout=out)):
        eventually(lambda: path.stat().st_size > 0)
        yield lambda: path.read_text().splitlines()


def lost_by(line: str) -> int:
    """How many events the kernel lost, by one line of monitor."""
    return int(line.removeprefix(KERNEL_LOSS)) if line.startswith(KERNEL_LOSS) else 0


def test_a_flood_is_read_within_limits_and_counted_exactly(node: Node) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    assert not node.reaches("t2/b", "t1/a")
    before = dropped(node)
    flood(node, 5_000)
    assert dropped(node) - before == 5_000
    eventually(lambda: sum(told(node)) >= 5_000)


def test_a_flood_hides_no_drop_of_another_pod(node: Node) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods(), deny_ingress("t1"), deny_ingress("t2")), agent)
    a, b = node.wires["t1/a"], node.wires["t2/b"]
    with netns.inside(b.netns):
        loud = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.inside(a.netns):
        quiet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with loud, quiet:
        for knock in range(20):
            for _ in range(MANY // 20):
                loud.sendto(b"x", (a.addresses[0], PORT))
            quiet.sendto(b"x", (b.addresses[0], 4000 + knock))
    assert told(node)[1] > 0, "it was a flood"
    wanted = {4000 + knock for knock in range(20)}

    def told_of() -> set[object]:
        lines = control.stream(node.run_dir, {"command": "flows", "last": 4096})
        layers = [mapping(mapping(line, "flow"), "l4") for line in lines]
        return {mapping(layer, "UDP").get("destination_port") for layer in layers}

    eventually(lambda: wanted <= told_of())
