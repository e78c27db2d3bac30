"""`lab ls`: every lab that left a ledger, whatever became of its processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import machine, names, status
from lab.created import BackingKind, CreatedThings, Phase, State
from lab.names import Places
from lab.processes import boot_id


@pytest.fixture(autouse=True)
def run_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "RUN_ROOT", tmp_path)
    monkeypatch.setattr(machine, "check_root", lambda: None)
    return tmp_path


def begun(name: str, backing: BackingKind, nodes: int = 0) -> None:
    state = State(name=name, phase=Phase.UP, boot=boot_id(), backing=backing, nodes=nodes)
    CreatedThings(Places(name), state).update(state)


def test_a_machine_without_labs_says_how_to_get_one() -> None:
    assert status.list_table(status.listed()) == "no labs; `ringfence lab up` starts one\n"


def test_labs_are_listed_by_name_with_what_keeps_their_objects(run_root: Path) -> None:
    begun("second", BackingKind.OWN_API, 2)
    begun("first", BackingKind.FILES)
    (run_root / "older").mkdir()
    (run_root / "older" / "ledger.json").write_text("{}")
    found = status.listed()
    assert [(lab["name"], lab["objects"], lab["nodes"]) for lab in found] == [
        ("first", "files", 1),
        ("second", "api-server", 2),
    ]
    assert {lab["status"] for lab in found} == {"stopped"}, "none of their processes runs"
    assert found[1]["kubeconfig"] == str(run_root / "second" / "kubeconfig")
    assert status.list_table(found).splitlines()[1].split() == [
        "first",
        "stopped",
        "files",
        "1",
        "0",
        "-",
    ]
