"""The reflector against a real API server, with every fault that a watch meets in its life.

Each test follows ConfigMaps of one mark, so that tests share the control plane.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from generators.kube.client import Client
from generators.kube.config import ServiceAccount, Source
from tests.generators.kube.following import QUICK, Marked
from tests.generators.kube.proxy import FaultProxy, refusal
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.cluster


@pytest.fixture
def marked(admin: Client, unique_name: Callable[[str], str]) -> Iterator[Marked]:
    made = Marked(admin, unique_name("mark"))
    made.put("a")
    made.put("b")
    yield made
    for reflector in made.reflectors:
        reflector.stop()


def watches(proxy: FaultProxy) -> list[str]:
    return [target for target in proxy.targets if "watch=true" in target]


# --- the normal course ---------------------------------------------------------------------------


def test_the_first_state_is_streamed_and_every_key_reported(
    marked: Marked, proxy: FaultProxy, streams: bool
) -> None:
    reflector = marked.follow(proxy.client())
    assert reflector.wait_synced(20)
    marked.expect(reflector, a="1", b="1")
    eventually(lambda: sorted(marked.changed) == ["a", "b"], "both keys reported")
    assert "sendInitialEvents=true" in proxy.targets[0]
    if streams:
        assert len(proxy.targets) == 1
        assert reflector.stats().relists == {"start": 1}
    else:
        assert "limit=500" in proxy.targets[1]
        assert reflector.stats().relists == {"fallback": 1}
        assert reflector.stats().watch_errors == {"Invalid": 1}


def test_changes_arrive_as_keys_and_values(marked: Marked, admin: Client) -> None:
    reflector = marked.synced(admin)
    marked.put("c", "new")
    marked.put("a", "2")
    marked.remove("b")
    marked.expect(reflector, a="2", c="new")
    eventually(lambda: marked.changed == ["c", "a", "b"], "three changes in order")


def test_an_object_that_leaves_the_selection_is_gone(marked: Marked, admin: Client) -> None:
    reflector = marked.synced(admin)
    marked.put("b", "1", mark="elsewhere")
    marked.expect(reflector, a="1")


def test_a_change_that_the_values_do_not_show_wakes_nobody(marked: Marked, admin: Client) -> None:
    reflector = marked.synced(admin)
    marked.put("a", "1", irrelevant="label")
    marked.put("b", "2")
    marked.expect(reflector, a="1", b="2")
    assert marked.changed == ["b"]


def test_one_unreadable_object_is_named_and_harms_no_other(marked: Marked, admin: Client) -> None:
    marked.put("odd", "unreadable")
    reflector = marked.synced(admin)
    marked.put("a", "unreadable")
    marked.put("b", "2")
    marked.expect(reflector, a="1", b="2")
    unreadable = reflector.stats().unreadable
    assert {key.name.removeprefix(f"{marked.mark}-") for key in unreadable} == {"odd", "a"}
    marked.put("a", "3")
    marked.remove("odd")
    marked.expect(reflector, a="3", b="2")
    eventually(lambda: not reflector.stats().unreadable, "nothing unreadable is left")


def test_all_keys_come_again_when_a_resync_is_due(marked: Marked, admin: Client) -> None:
    marked.synced(admin, replace(QUICK, resync=(0, 0)))
    marked.put("c")
    eventually(lambda: {"a", "b", "c"} <= set(marked.changed), "unchanged keys too")


def test_stop_ends_a_watch_on_which_nothing_happens(marked: Marked, admin: Client) -> None:
    reflector = marked.synced(admin)
    reflector.stop(timeout=patience(20))
    assert not [t for t in threading.enumerate() if t.name == "reflect-configmaps"]
    marked.put("a", "late")
    assert marked.seen(reflector) == {"a": "1", "b": "1"}


# --- faults --------------------------------------------------------------------------------------


def test_after_a_cut_it_goes_on_from_where_it_was(marked: Marked, proxy: FaultProxy) -> None:
    reflector = marked.synced(proxy.client())
    lists = reflector.stats().relists
    proxy.answer = lambda _: refusal(503, "ServiceUnavailable")
    proxy.cut()
    marked.put("c")
    marked.remove("a")
    assert marked.seen(reflector) == {"a": "1", "b": "1"}, "the last state stays"
    assert reflector.synced
    proxy.answer = lambda _: None
    marked.expect(reflector, b="1", c="1")
    eventually(lambda: marked.changed == ["c", "a"], "what was missed, and only that")
    assert reflector.stats().relists == lists, "no new list"
    assert "resourceVersion=" in watches(proxy)[-1]


def test_a_half_open_connection_is_noticed_by_its_silence(
    marked: Marked, proxy: FaultProxy
) -> None:
    marked.needs_early_bookmarks()
    reflector = marked.synced(proxy.client(), replace(QUICK, silence=0.5))
    lists = reflector.stats().relists
    proxy.freeze()
    marked.put("c")
    marked.expect(reflector, a="1", b="1", c="1")
    proxy.freeze()
    marked.remove("a")
    marked.expect(reflector, b="1", c="1")
    stats = reflector.stats()
    assert stats.watch_errors["Silent"] >= 2
    assert stats.relists == lists, "nothing is listed anew for that"


def test_a_watch_that_the_server_ends_in_good_order_begins_again_at_once(
    marked: Marked, proxy: FaultProxy
) -> None:
    reflector = marked.synced(proxy.client(), replace(QUICK, watch=(1, 1)))
    before, errors = len(watches(proxy)), reflector.stats().watch_errors
    eventually(lambda: len(watches(proxy)) > before + 1, "watches end and begin again")
    marked.put("c")
    marked.expect(reflector, a="1", b="1", c="1")
    assert reflector.stats().watch_errors == errors, "that is no error"


def _noting(sizes: list[int], size: int, target: str) -> str:
    sizes.append(size)
    return target


def _gone_as_status() -> bytes:
    return refusal(410, "Expired")


def _gone_as_event() -> bytes:
    event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    body = json.dumps(event) + "\n"
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "gone",
    [pytest.param(_gone_as_status, id="HTTP status"), pytest.param(_gone_as_event, id="event")],
)
def test_forgotten_history_means_a_new_list_that_replaces_the_copy_at_once(
    marked: Marked, proxy: FaultProxy, gone: Callable[[], bytes]
) -> None:
    reflector = marked.synced(proxy.client())
    proxy.answer = lambda target: gone() if "resourceVersion=" in target else None
    marked.put("c")
    marked.expect(reflector, a="1", b="1", c="1")
    marked.changed.clear()
    sizes: list[int] = []
    proxy.rewrite = lambda target: _noting(sizes, len(reflector.store), target)
    marked.remove("a")
    marked.expect(reflector, b="1", c="1")
    proxy.cut()
    marked.put("b", "2")
    marked.remove("c")
    marked.expect(reflector, b="2")
    eventually(lambda: reflector.stats().relists.get("expired", 0) >= 1, "a new list")
    eventually(lambda: set(marked.changed) == {"a", "b", "c"}, "a deletion for what is gone")
    assert 0 not in sizes, "never empty in between"


def test_a_new_list_without_differences_reports_nothing(marked: Marked, proxy: FaultProxy) -> None:
    reflector = marked.synced(proxy.client())
    proxy.answer = lambda target: _gone_as_status() if "resourceVersion=" in target else None
    proxy.cut()
    eventually(lambda: reflector.stats().relists.get("expired", 0) >= 1, "a new list")
    assert marked.changed == []


def _refuse_stream(target: str) -> str:
    # The real server refuses the remaining parameter, as one without the feature refuses both.
    return target.replace("sendInitialEvents=true&", "").replace("&sendInitialEvents=true", "")


def _no_bookmarks(target: str) -> str:
    # Without them there is no end mark either: the stream just never says that it is complete.
    ignored = _refuse_stream(target).replace("&resourceVersionMatch=NotOlderThan", "")
    return ignored.replace("allowWatchBookmarks=true", "allowWatchBookmarks=false")


@pytest.mark.parametrize("rewrite", [_refuse_stream, _no_bookmarks])
def test_a_server_without_streamed_lists_is_asked_for_pages(
    marked: Marked, proxy: FaultProxy, rewrite: Callable[[str], str]
) -> None:
    proxy.rewrite = rewrite
    reflector = marked.follow(proxy.client(), replace(QUICK, initial_silence=0.5))
    assert reflector.wait_synced(20)
    assert reflector.stats().relists == {"fallback": 1}
    assert any("limit=500" in target for target in proxy.targets)
    marked.put("c")
    marked.remove("a")
    marked.expect(reflector, b="1", c="1")


def test_without_bookmarks_a_quiet_watch_is_not_taken_for_a_dead_one(
    marked: Marked, proxy: FaultProxy
) -> None:
    proxy.rewrite = _no_bookmarks
    quick = replace(QUICK, initial_silence=0.5, silence=0.2, watch=(2, 2), grace=30.0)
    reflector = marked.synced(proxy.client(), quick)
    errors = dict(reflector.stats().watch_errors)
    before = len(watches(proxy))
    eventually(lambda: len(watches(proxy)) >= before + 2, "two watches ended by the server")
    assert dict(reflector.stats().watch_errors) == errors


def test_a_list_whose_continue_token_expires_is_begun_again(
    marked: Marked, proxy: FaultProxy
) -> None:
    for index in range(501):
        marked.put(f"many-{index}")
    refused: list[str] = []

    def expire_once(target: str) -> bytes | None:
        if "continue=" in target and not refused:
            refused.append(target)
            return refusal(410, "Expired")
        return None

    proxy.rewrite, proxy.answer = _refuse_stream, expire_once
    reflector = marked.follow(proxy.client())
    assert reflector.wait_synced(20)
    assert refused
    assert len(reflector.store) == 503


def test_an_overloaded_server_is_left_alone_for_as_long_as_it_asks(
    marked: Marked, proxy: FaultProxy
) -> None:
    refused: list[str] = []

    def overloaded_once(target: str) -> bytes | None:
        if refused:
            return None
        refused.append(target)
        return refusal(429, "TooManyRequests", "Retry-After: 1\r\n")

    proxy.answer = overloaded_once
    reflector = marked.follow(proxy.client())
    assert reflector.wait_synced(20)
    assert reflector.stats().watch_errors["Overloaded"] == 1


def test_lost_permission_is_loud_and_leaves_the_copy(
    api: ControlPlane, marked: Marked, unique_name: Callable[[str], str]
) -> None:
    user = unique_name("reader")
    binding = ("clusterrolebinding", user, "--clusterrole=view", f"--user={user}")
    api.kubectl("create", *binding)
    with FaultProxy(api, user) as proxy:
        reflector = marked.synced(proxy.client())
        api.kubectl("delete", *binding[:2])
        proxy.cut()
        eventually(lambda: reflector.stats().forbidden, "the refusal is in the stats")
        assert reflector.stats().watch_errors["Forbidden"] >= 1
        assert marked.seen(reflector) == {"a": "1", "b": "1"}
        marked.put("c")
        api.kubectl("create", *binding)
        marked.expect(reflector, a="1", b="1", c="1")
        assert not reflector.stats().forbidden
        reflector.stop()


def test_a_refused_token_is_read_again(
    api: ControlPlane,
    marked: Marked,
    connect: Callable[[Source], Client],
    unique_name: Callable[[str], str],
    tmp_path: Path,
) -> None:
    name = unique_name("agent")
    api.kubectl("create", "serviceaccount", name, "-n", "default")
    api.kubectl(
        *("create", "clusterrolebinding", name, "--clusterrole=view"),
        f"--serviceaccount=default:{name}",
    )
    (tmp_path / "ca.crt").write_bytes(api.ca)
    (tmp_path / "token").write_text("expired")
    client = connect(ServiceAccount("127.0.0.1", str(api.port), tmp_path))
    reflector = marked.follow(client)
    eventually(lambda: reflector.stats().watch_errors.get("Unauthorized", 0) > 0, "refused")
    assert not reflector.synced
    (tmp_path / "token").write_text(api.kubectl("create", "token", name, "-n", "default"))
    assert reflector.wait_synced(20)
    marked.expect(reflector, a="1", b="1")
    reflector.stop()
