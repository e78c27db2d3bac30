"""The ledger: what is on disk is always whole, and one command at a time changes it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lab import created as ledgers
from lab import names
from lab.created import BrokenLedger, CreatedThings, Lock, Phase, State
from lab.names import Places, Wire
from lab.processes import Process, boot_id
from tests.testbed.waiting import patience

FULL = State(
    name="test",
    phase=Phase.UP,
    boot=boot_id(),
    netns=("ringfence.test", "ringfence.test.a.b"),
    wires=(Wire("ringfence.test.a.b", "rf0123", ("10.244.1.2", "fd00::2")),),
    processes=(Process("webhook", 4711, 99, "boot"),),
    pins="/sys/fs/bpf/ringfence/lab-test",
    config="/tenants.yaml",
    webhook="https://127.0.0.1:8443",
)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(names, "RUN_ROOT", tmp_path)
    return Places("test")


def test_a_state_comes_back_as_it_was_written(lab: Places) -> None:
    CreatedThings(lab, FULL).update(FULL)
    loaded = ledgers.load(lab)
    assert loaded is not None
    assert loaded.state == FULL


def test_there_is_no_ledger_before_the_first_state(lab: Places) -> None:
    assert ledgers.load(lab) is None


def test_what_was_up_before_the_machine_booted_is_remains(lab: Places) -> None:
    CreatedThings(lab, FULL).update(replace(FULL, boot="another"))
    loaded = ledgers.load(lab)
    assert loaded is not None
    assert loaded.state.phase is Phase.REMOVING


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x", "phase": "dancing"}'])
def test_a_ledger_that_we_did_not_write_is_an_error_and_no_traceback(
    lab: Places, text: str
) -> None:
    lab.run.mkdir()
    (lab.run / "state.json").write_text(text)
    with pytest.raises(BrokenLedger, match="remove by hand"):
        ledgers.load(lab)


def test_a_write_that_dies_leaves_the_old_state(
    lab: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = CreatedThings(lab, FULL)
    ledger.update(FULL)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        ledger.update(replace(FULL, phase=Phase.REMOVING))
    loaded = ledgers.load(lab)
    assert loaded is not None
    assert loaded.state == FULL
    assert ledger.state == FULL


def test_a_process_of_the_same_name_takes_the_old_ones_place(lab: Places) -> None:
    ledger = CreatedThings(lab, FULL)
    new = Process("webhook", 4712, 100, "boot")
    ledger.set_process(new)
    assert ledger.state.processes == (new,)
    assert ledger.state.process("webhook") == new
    assert ledger.state.process("enforcer") is None


def test_the_lock_lets_many_look_and_one_change(lab: Places) -> None:
    entered = threading.Event()

    def change() -> None:
        with ledgers.locked(lab, Lock.EXCLUSIVE):
            entered.set()

    with ledgers.locked(lab, Lock.SHARED), ledgers.locked(lab, Lock.SHARED):
        writer = threading.Thread(target=change)
        writer.start()
        assert not entered.wait(0.2)
    assert entered.wait(patience(10))
    writer.join(patience(10))


def test_who_waited_for_a_lock_that_went_with_its_lab_takes_the_new_one(lab: Places) -> None:
    waiting, inode = threading.Event(), []

    def wait_for_it() -> None:
        waiting.set()
        with ledgers.locked(lab, Lock.EXCLUSIVE):
            inode.append(lab.lock.stat().st_ino)

    with ledgers.locked(lab, Lock.EXCLUSIVE):
        waiter = threading.Thread(target=wait_for_it)
        waiter.start()
        assert waiting.wait(patience(10))
        lab.lock.unlink()
    waiter.join(patience(10))
    assert inode == [lab.lock.stat().st_ino]
