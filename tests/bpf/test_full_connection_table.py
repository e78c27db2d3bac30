"""A table full of other pods' connections: what a busy and an idle connection of a pod keep."""

from __future__ import annotations

import ctypes
import time

import pytest

from enforcer.datapath import kernel, layout
from tests.bpf.test_connections import own_connections
from tests.bpf.veth import OTHER, OWN_TENANT, POD, WALLED, Veth, ip, tcp, tcp_back

pytestmark = [pytest.mark.bpf, pytest.mark.slow, pytest.mark.timeout(300)]

FOREIGN = 1_500_000
BATCH = 10_000
NOBODY = 0x7FFF0000
"""An endpoint that is not there."""


def foreign(first: int) -> list[tuple[bytes, bytes]]:
    """So many connections of another endpoint, each with just been opened."""
    key, value = layout.ConnectionKey(), layout.ConnectionValue()
    key.endpoint, key.protocol = NOBODY, 17
    value.last = time.monotonic_ns()
    found = []
    for number in range(first, first + BATCH):
        ctypes.memmove(key.remote, number.to_bytes(16, "little"), 16)
        found.append((bytes(key), bytes(value)))
    return found


def test_a_busy_connection_stays_and_any_other_goes_on_when_its_client_speaks(veth: Veth) -> None:
    veth.configure(WALLED, OWN_TENANT)
    there, back = ip(4, POD, OTHER), ip(4, OTHER, POD)
    for port in (40000, 40001):
        assert veth.from_pod(there / tcp(client_port=port)).passed
        assert veth.to_pod(back / tcp_back(client_port=port)).passed
    with kernel.open_pin(veth.pins / "ct_map") as handle:
        for first in range(0, FOREIGN, BATCH):
            kernel.map_update_batch(handle.fd, foreign(first))
            assert veth.to_pod(back / tcp_back("A", client_port=40000)).passed, "the busy one"
    left = {c.local_port for c in own_connections(veth)}
    assert 40000 in left
    print(f"after {FOREIGN} foreign connections: busy {40000 in left}, idle {40001 in left}")
    assert veth.from_pod(there / tcp("A", client_port=40001)).passed
    assert veth.to_pod(back / tcp_back("A", client_port=40001)).passed
    veth.maps.forget([NOBODY])
