"""What processes of a node write, neither the machine sees nor another node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.api.real import view
from lab.processes import Process
from tests.testbed.waiting import ending, eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(60)]

FILES = ("/proc/sys/kernel/panic", "/etc/hostname", "/var/lib/ringfence-view-test")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        made = []
        for name in ("one", "other"):
            root, ready = tmp_path / name / "root", tmp_path / name / "ready"
            root.mkdir(parents=True)
            words = [str(root), str(ready), f"{tmp_path / name}:{tmp_path / name}"]
            command = [sys.executable, "-m", "lab.api.real.view", *words]
            process = stack.enter_context(ending(subprocess.Popen(command)))
            eventually(ready.exists, f"the view of {name}", 20)
            made.append(Process(name, process.pid, 0, ""))
        yield made


def _runs(node: Process, text: str, path: str) -> str:
    command = view.inside(node, "/bin/sh", "-c", text, "sh", path)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", FILES)
def test_a_node_has_its_own(nodes: list[Process], path: str) -> None:
    file = Path(path)
    before = file.read_text() if file.exists() else None
    try:
        for seconds, node in enumerate(nodes, start=11):
            _runs(node, f'echo {seconds} > "$1"', path)
        assert [_runs(node, 'cat "$1"', path) for node in nodes] == ["11\n", "12\n"]
        assert (file.read_text() if file.exists() else None) == before
    finally:
        if before is not None and file.read_text() != before:
            file.write_text(before)
