"""The lab's processes: none is lost, and nobody else's is ever ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import processes
from lab.processes import Process
from tests.testbed.waiting import eventually

SLEEP = ("/bin/sleep", "600")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes that are ended after the test."""
    all_of_them: list[Process] = []

    def start(*command: str) -> Process:
        process = processes.start("it", command, tmp_path / "log", all_of_them.append)
        return process

    yield start
    processes.end(all_of_them, grace=1)


def test_a_process_is_written_down_before_it_does_anything(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    noted: list[Process] = []

    def remember(process: Process) -> None:
        time.sleep(0.2)
        assert not mark.exists()
        noted.append(process)

    process = processes.start("it", ("/usr/bin/touch", str(mark)), tmp_path / "log", remember)
    assert noted == [process]
    eventually(mark.exists)
    processes.end([process])


def test_nothing_runs_when_the_starter_dies_before_it_could_note_it(tmp_path: Path) -> None:
    mark, pid_file, log = tmp_path / "mark", tmp_path / "pid", tmp_path / "log"
    program = f"""
import os, pathlib
from lab import processes
def die(process):
    pathlib.Path({str(pid_file)!r}).write_text(str(process.pid))
    os.kill(os.getpid(), 9)
processes.start("it", ("/usr/bin/touch", {str(mark)!r}), pathlib.Path({str(log)!r}), die)
"""
    died = subprocess.run([sys.executable, "-c", program], check=False)
    assert died.returncode == -signal.SIGKILL
    child = int(pid_file.read_text())
    eventually(lambda: not Path(f"/proc/{child}").exists())
    assert not mark.exists()


def test_a_pid_that_was_used_again_is_not_ended(started: Callable[..., Process]) -> None:
    process = started(*SLEEP)
    for other in (replace(process, started=process.started - 1), replace(process, boot="other")):
        assert not other.alive
        processes.end([other], grace=0.1)
        assert process.alive


def test_what_ignores_the_polite_request_is_ended_all_the_same(
    started: Callable[..., Process], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    process = started("/bin/sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 1; done")
    eventually(ready.exists)
    processes.end([process], grace=0.1)
    assert not process.alive


def test_children_that_outlive_their_parent_are_ended_with_it(
    started: Callable[..., Process], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    process = started("/bin/sh", "-c", f"sleep 600 & echo $! > {child}; wait")
    eventually(lambda: child.exists() and child.read_text().endswith("\n"))
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not process.alive)
    left = int(child.read_text())
    assert Path(f"/proc/{left}").exists()
    processes.end([process])
    eventually(lambda: not Path(f"/proc/{left}").exists())


def test_a_zombie_is_not_alive(started: Callable[..., Process]) -> None:
    process = started("/bin/true")
    eventually(lambda: not process.alive)
    assert Path(f"/proc/{process.pid}").exists(), "we have not waited for it yet"
