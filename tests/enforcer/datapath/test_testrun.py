"""Test runs leave nothing behind, and clear away what killed ones left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import pytest

from enforcer.datapath import engine, loader, testrun
from enforcer.policy.tables import CAPACITY, MapOverflow, Table
from generators.addresses import Family
from generators.cluster import Cluster
from generators.objects import Namespace, NetworkPolicy, Pod, PolicyPort, Rule
from generators.reachability.packets import Question
from generators.reachability.verdicts import Cell
from tests.testbed.waiting import ended

Engine = Callable[[Cluster, Iterable[Question]], Sequence[Cell]]
pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]


def test_the_pins_of_a_killed_run_go_with_the_next_and_those_of_a_live_one_stay() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    assert ended(gone) == 0
    with testrun.loaded():
        left = loader.BPF_FS / f"{testrun.PINS}{gone.pid}-test"
        live = loader.BPF_FS / f"{testrun.PINS}{os.getpid()}-test"
        left.mkdir()
        live.mkdir()
    try:
        with testrun.loaded():
            assert not left.exists()
            assert live.exists()
    finally:
        live.rmdir()
    assert not list(loader.BPF_FS.glob(f"{testrun.PINS}{os.getpid()}-*"))


@pytest.mark.parametrize("ask", [testrun.engine, engine.maps], ids=["kernel", "maps"])
def test_more_than_the_maps_hold_is_refused_with_the_map_and_the_limit(ask: Engine) -> None:
    ranges = tuple(
        PolicyPort(protocol, port, port + 1)
        for protocol in ("TCP", "UDP", "SCTP")
        for port in range(2, 65_534, 4)
    )
    policy = NetworkPolicy("a", "large", ingress=(Rule(ports=ranges),))
    pods = (Pod("a", "x", ips=("10.244.0.5",)), Pod("a", "y", ips=("10.244.0.6",)))
    cluster = Cluster({"a": Namespace("a")}, pods, (policy,))
    question = Question("a/x", "a/y", "TCP", 80, Family.IPV4)
    with pytest.raises(MapOverflow, match=rf"map rng_map .* holds {CAPACITY[Table.RANGES]}"):
        ask(cluster, [question])
