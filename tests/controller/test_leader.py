"""One controller writes; the others follow, ready to take over."""

from __future__ import annotations

import os
import signal

import pytest

from generators.documents.json import mapping, text
from generators.kube.resources import LEASES
from tests.controller.cluster import SYSTEM, Cluster, ControllerProcess
from tests.testbed.waiting import eventually, holds_for

pytestmark = pytest.mark.cluster
QUICK = ("--lease-seconds", "3")


@pytest.fixture
def pair(fresh: Cluster) -> tuple[ControllerProcess, ControllerProcess]:
    """A leader and a standby."""
    first = fresh.controller(*QUICK, webhook=False)
    eventually(first.leads, "the first leads")
    second = fresh.controller(*QUICK, webhook=False)
    eventually(lambda: "[+]standby" in second.get("/readyz")[1], "the second stands by")
    return first, second


def writes(controller: ControllerProcess) -> float:
    found = controller.metrics()
    return sum(v for n, v in found.items() if n.startswith("ringfence_controller_writes_total"))


def test_a_standby_is_ready_and_writes_nothing(
    fresh: Cluster, pair: tuple[ControllerProcess, ControllerProcess]
) -> None:
    first, second = pair
    fresh.make("a-test02")
    eventually(lambda: fresh.isolated("a-test02", "test02"), "isolated")
    eventually(fresh.synchronized, "synchronized")
    eventually(second.ready, "the second is ready, too")
    # Record, label, policy.
    assert writes(first) == 3
    assert writes(second) == 0


def test_a_leader_that_stops_hands_over_at_once(
    fresh: Cluster, pair: tuple[ControllerProcess, ControllerProcess]
) -> None:
    first, second = pair
    assert first.terminate() == 0
    eventually(second.leads, "the second leads", 3.0)
    fresh.make("a-test02")
    eventually(lambda: fresh.isolated("a-test02", "test02"), "isolated")


def test_the_last_leader_leaves_the_lease_to_nobody(fresh: Cluster) -> None:
    only = fresh.controller(webhook=False)
    eventually(only.leads, "leads")
    assert only.terminate() == 0
    lease = fresh.admin.get(LEASES, "ringfence-controller", SYSTEM)
    assert text(mapping(lease, "spec"), "holderIdentity") == ""


def test_a_killed_leader_is_replaced(
    fresh: Cluster, pair: tuple[ControllerProcess, ControllerProcess]
) -> None:
    first, second = pair
    first.kill()
    fresh.make("a-test02")
    eventually(lambda: fresh.isolated("a-test02", "test02"), "isolated by the second")
    assert second.leads()


def test_a_leader_that_was_frozen_does_not_lead_when_it_wakes(
    fresh: Cluster, pair: tuple[ControllerProcess, ControllerProcess]
) -> None:
    first, second = pair
    os.kill(first.pid, signal.SIGSTOP)
    eventually(second.leads, "the second leads")
    fresh.make("a-test02")
    eventually(lambda: fresh.isolated("a-test02", "test02"), "isolated")
    os.kill(first.pid, signal.SIGCONT)
    eventually(lambda: "[+]standby" in first.get("/readyz")[1], "the first stands by")
    holds_for(1.0, lambda: second.leads() and not first.leads(), "one leads")
    assert writes(first) == 0
