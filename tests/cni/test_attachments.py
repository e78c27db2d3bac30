"""Attachments: the latest sandbox speaks for its pod, in whatever order calls come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.agent.attachments import FILE, Attachments
from enforcer.policy.changes import Attachment

DEVICES = {2: "veth2 aa", 3: "veth3 bb", 4: "veth4 cc"}


def attachment(container: str, ifindex: int, pod: str = "a", uid: str = "u") -> Attachment:
    return Attachment(container, "t1", pod, uid, ifindex, (f"10.0.0.{ifindex}",))


def opened(directory: Path, devices: dict[int, str] | None = None) -> Attachments:
    return Attachments(directory, (devices if devices is not None else DEVICES).get)


OLD, NEW = attachment("old", 2), attachment("new", 3)


@pytest.mark.parametrize(
    ("calls", "latest"),
    [
        pytest.param(["+old"], OLD, id="added"),
        pytest.param(["+old", "-old"], None, id="removed"),
        pytest.param(["+old", "+new"], NEW, id="the latest speaks"),
        pytest.param(["+old", "+new", "-old"], NEW, id="a late end of the old one"),
        pytest.param(["+old", "-old", "+new"], NEW, id="in order"),
        pytest.param(["+old", "+new", "-new"], OLD, id="the new one ends first"),
        pytest.param(["+new", "+old", "+new"], NEW, id="added again"),
        pytest.param(["-old"], None, id="never added"),
    ],
)
def test_the_latest_sandbox_speaks_for_its_pod(
    tmp_path: Path, calls: list[str], latest: Attachment | None
) -> None:
    held = opened(tmp_path)
    for call in calls:
        if call[0] == "+":
            held.put({"old": OLD, "new": NEW}[call[1:]])
        else:
            held.remove(call[1:])
    assert held.of("t1/a") == latest
    assert opened(tmp_path).of("t1/a") == latest, "and after a restart"


def test_an_interface_has_one_sandbox(tmp_path: Path) -> None:
    held = opened(tmp_path)
    held.put(OLD)
    held.put(attachment("other", OLD.ifindex, pod="b"))
    assert held.of("t1/a") is None
    assert [a.container for a in held.snapshot()] == ["other"]


@pytest.mark.parametrize(
    "devices", [{}, {2: "veth2 of somebody else"}], ids=["gone", "another device"]
)
def test_what_is_not_there_any_more_is_not_restored(
    tmp_path: Path, devices: dict[int, str]
) -> None:
    opened(tmp_path).put(OLD)
    assert opened(tmp_path, devices).snapshot() == ()
    assert opened(tmp_path).snapshot() == (), "nor later"


def test_garbage_collection_keeps_what_is_named(tmp_path: Path) -> None:
    held = opened(tmp_path)
    for each in (OLD, NEW, attachment("third", 4, pod="c")):
        held.put(each)
    assert held.retain(["new", "never heard of"]) == (OLD, attachment("third", 4, pod="c"))
    assert held.snapshot() == (NEW,)


def test_who_asked_for_it_is_called_after_each_change(tmp_path: Path) -> None:
    held, calls = opened(tmp_path), list[int]()
    held.subscribe(lambda: calls.append(len(held.snapshot())))
    held.put(OLD)
    held.put(NEW)
    held.remove("old")
    held.remove("old")
    assert calls == [1, 2, 1]


@pytest.mark.parametrize("text", ["", "[", "[1]", '[{"container": "c"}]', '{"a": 1}'])
def test_a_broken_file_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    held = opened(tmp_path)
    assert held.snapshot() == ()
    held.put(OLD)
    assert opened(tmp_path).snapshot() == (OLD,)


def test_a_disk_that_takes_nothing_does_not_stop_pods(tmp_path: Path) -> None:
    held = opened(tmp_path / "not there")
    held.put(OLD)
    assert held.of("t1/a") == OLD
