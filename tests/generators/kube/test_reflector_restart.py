"""What a reflector does while the API server itself is away, frozen or has forgotten its history.

These tests break the API server, so they have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from generators.kube.client import Client
from lab.api.plane import ADMINS
from tests.generators.kube.following import QUICK, Cluster
from tests.generators.kube.proxy import FaultProxy, refusal
from tests.testbed.plane import Controllers, ControlPlane
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=Controllers.LEAVE_OUT) as running:
        yield running


@pytest.fixture
def cluster(plane: ControlPlane, unique_name: Callable[[str], str]) -> Iterator[Cluster]:
    with Client.connect(str(plane.kubeconfig())) as admin:
        made = Cluster(admin, unique_name("mark"))
        made.put("a")
        made.put("b")
        yield made
        for reflector in made.reflectors:
            reflector.stop()


def test_a_restart_of_the_api_server_loses_nothing_and_reports_only_what_changed(
    plane: ControlPlane, cluster: Cluster
) -> None:
    reflector = cluster.synced(cluster.admin)
    plane.stop_apiserver()
    eventually(lambda: not reflector.stats().connected, "the end of the watch is seen")
    assert reflector.synced
    assert cluster.seen(reflector) == {"a": "1", "b": "1"}
    eventually(lambda: reflector.stats().watch_errors.get("Unreachable", 0) > 1, "it keeps trying")
    plane.start_apiserver()
    cluster.put("c")
    cluster.remove("a")
    cluster.expect(reflector, b="1", c="1")
    eventually(lambda: set(cluster.changed) == {"a", "c"}, "b did not change")


def test_history_that_the_real_server_has_forgotten_means_one_new_list(
    plane: ControlPlane, cluster: Cluster
) -> None:
    with FaultProxy(plane, "admin", ADMINS) as proxy:
        reflector = cluster.synced(proxy.client())
        lists = reflector.stats().relists
        proxy.answer = lambda _: refusal(503, "ServiceUnavailable")
        proxy.cut()
        for value in range(20):
            cluster.put("b", str(value))
        cluster.remove("a")
        plane.compact_history()
        # A new process has no events in memory either.
        plane.stop_apiserver()
        plane.start_apiserver()
        cluster.put("c")
        proxy.answer = lambda _: None
        cluster.expect(reflector, b="19", c="1")
        stats = reflector.stats()
        assert stats.watch_errors["Gone"] == 1
        assert stats.relists == {**lists, "expired": 1}
        eventually(lambda: set(cluster.changed) == {"a", "b", "c"}, "each change reported")
        reflector.stop()


def test_a_frozen_api_server_leaves_the_copy_and_is_found_again(
    plane: ControlPlane, cluster: Cluster
) -> None:
    reflector = cluster.synced(cluster.admin, replace(QUICK, silence=0.5))
    plane.child("kube-apiserver").pause()
    try:
        eventually(lambda: reflector.stats().watch_errors.get("Silent", 0) > 0, "silence is seen")
        assert cluster.seen(reflector) == {"a": "1", "b": "1"}
    finally:
        plane.child("kube-apiserver").resume()
    cluster.put("c")
    cluster.expect(reflector, a="1", b="1", c="1")
