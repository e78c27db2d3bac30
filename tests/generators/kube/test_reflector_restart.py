"""What a reflector does while the API server itself is away, frozen or has forgotten its history.

These tests break the API server, so they have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from generators.kube.client import Client
from lab.api.plane import ADMINS
from tests.generators.kube.following import QUICK, Marked
from tests.generators.kube.proxy import FaultProxy, refusal
from tests.testbed.plane import Controllers, ControlPlane
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=Controllers.LEAVE_OUT) as running:
        yield running


@pytest.fixture
def marked(plane: ControlPlane, unique_name: Callable[[str], str]) -> Iterator[Marked]:
    with Client.connect(str(plane.kubeconfig())) as admin:
        made = Marked(admin, unique_name("mark"))
        made.put("a")
        made.put("b")
        yield made
        for reflector in made.reflectors:
            reflector.stop()


def test_a_restart_of_the_api_server_loses_nothing_and_reports_only_what_changed(
    plane: ControlPlane, marked: Marked
) -> None:
    reflector = marked.synced(marked.admin)
    plane.stop_apiserver()
    eventually(lambda: not reflector.stats().connected, "the end of the watch is seen")
    assert reflector.synced
    assert marked.seen(reflector) == {"a": "1", "b": "1"}
    eventually(lambda: reflector.stats().watch_errors.get("Unreachable", 0) > 1, "it keeps trying")
    plane.start_apiserver()
    marked.put("c")
    marked.remove("a")
    marked.expect(reflector, b="1", c="1")
    eventually(lambda: set(marked.changed) == {"a", "c"}, "b did not change")


def test_history_that_the_real_server_has_forgotten_means_one_new_list(
    plane: ControlPlane, marked: Marked
) -> None:
    with FaultProxy(plane, "admin", ADMINS) as proxy:
        reflector = marked.synced(proxy.client())
        lists = reflector.stats().relists
        proxy.answer = lambda _: refusal(503, "ServiceUnavailable")
        proxy.cut()
        for value in range(20):
            marked.put("b", str(value))
        marked.remove("a")
        plane.compact_history()
        # A new process has no events in memory either.
        plane.stop_apiserver()
        plane.start_apiserver()
        marked.put("c")
        proxy.answer = lambda _: None
        marked.expect(reflector, b="19", c="1")
        stats = reflector.stats()
        assert stats.watch_errors["Gone"] == 1
        assert stats.relists == {**lists, "expired": 1}
        eventually(lambda: set(marked.changed) == {"a", "b", "c"}, "each change reported")
        reflector.stop()


def test_a_frozen_api_server_leaves_the_copy_and_is_found_again(
    plane: ControlPlane, marked: Marked
) -> None:
    marked.needs_early_bookmarks()
    reflector = marked.synced(marked.admin, replace(QUICK, silence=0.5))
    plane.child("kube-apiserver").pause()
    try:
        eventually(lambda: reflector.stats().watch_errors.get("Silent", 0) > 0, "silence is seen")
        assert marked.seen(reflector) == {"a": "1", "b": "1"}
    finally:
        plane.child("kube-apiserver").resume()
    marked.put("c")
    marked.expect(reflector, a="1", b="1", c="1")
