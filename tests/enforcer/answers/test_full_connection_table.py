"""A table of connections that somebody filled is listed in parts, and costs the agent no memory."""

from __future__ import annotations

import ctypes
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.answers.control import MOST_CONNECTIONS
from enforcer.datapath import kernel, layout
from tests.enforcer.node import Node

pytestmark = pytest.mark.bpf

FULL = 200_000
"""An LRU map of 262,144 begins to push out before it is quite full."""
CEILING = 160 << 20
"""Less than a third of the chart's limit."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with pods, and no agent yet."""
    made = Node(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def fill(pins: Path) -> None:
    """Connections of one endpoint to as many ports and addresses."""
    now = time.monotonic_ns()
    value = bytes(layout.ConnectionValue(last=now, generation=1, opener=1, reason=3))
    local = layout.pack_address("10.0.0.1")
    entries = []
    for number in range(FULL):
        remote = layout.pack_address(f"10.{number >> 22 & 63}.{number >> 14 & 255}.7")
        key = layout.ConnectionKey(
            (ctypes.c_uint8 * 16)(*local),
            (ctypes.c_uint8 * 16)(*remote),
            1,
            7,
            1 + number % 60000,
            17,
        )
        key.endpoint = 1 + number // 60000
        entries.append((bytes(key), value))
    with kernel.open_pin(pins / "ct_map") as handle:
        kernel.map_update_batch(handle.fd, entries)


def memory_of(pid: int) -> int:
    """The most that a process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_table_is_listed_in_parts_and_the_agent_stays_small(
    node: Node, ringfence: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods()), agent)
    (pins,) = node.pin_dir.glob("v*")
    fill(pins)
    listing = ("bpf", "ct", "list", "--run-dir", str(node.run_dir), "--no-headers")
    for _ in range(2):
        done = ringfence(*listing)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == MOST_CONNECTIONS
        assert "more exist: raise --limit" in done.stderr
    more = ringfence(*listing, "--limit", str(MOST_CONNECTIONS * 4), "-o", "json")
    assert more.returncode == 0, more.stderr
    assert more.stdout.count('"peerTenant"') == MOST_CONNECTIONS * 4
    assert memory_of(agent.pid) < CEILING
