"""Which labs this machine has: what `lab ls` prints, read from their ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from generators.output import columns
from lab import created, machine, names
from lab.backing import backing_of
from lab.created import BackingKind, CreatedThings

_KINDS = {
    BackingKind.FILES: "files",
    BackingKind.OWN_API: "api-server",
    BackingKind.JOINED_API: "kubeconfig",
}
_HEAD = ("NAME", "STATUS", "OBJECTS", "NODES", "PROCESSES", "KUBECONFIG")

Lab = Mapping[str, object]


def listed() -> list[Lab]:
    """Every lab that left a ledger, by name; also one whose processes have died."""
    machine.check_root()
    root = names.RUN_ROOT
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [lab for name in found if (lab := _lab_called(name)) is not None]


def _lab_called(name: str) -> Lab | None:
    try:
        ledger = created.load(names.places(name))
    except created.BrokenLedger:
        unknown = {key.lower(): None for key in _HEAD}
        return {**unknown, "name": name, "status": "of another version"}
    return None if ledger is None else _lab(ledger)


def _lab(ledger: CreatedThings) -> Lab:
    state = ledger.state
    alive = sum(process.alive for process in state.processes)
    kubeconfig = backing_of(state).kubeconfig(ledger)
    return {
        "name": state.name,
        "status": state.phase.value if alive else "stopped",
        "objects": _KINDS[state.backing],
        "nodes": max(state.nodes, 1),
        "processes": alive,
        "kubeconfig": None if kubeconfig is None else str(kubeconfig),
    }


def table(labs: Iterable[Lab]) -> str:
    """The same in columns."""
    rows = [
        ["-" if (value := lab[key.lower()]) is None else str(value) for key in _HEAD]
        for lab in labs
    ]
    return columns([list(_HEAD), *rows]) if rows else "no labs; `ringfence lab up` starts one\n"
