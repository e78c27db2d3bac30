"""tools/setup.sh is silent when nothing is missing; without root it says what is, and exits 3."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from tests.testbed.waiting import patience

ALWAYS = ("pyproject.toml", "tools/setup.sh")
STAMPS = {
    "ringfence-setup": ("requirements.lock", "requirements-build.lock"),
    "ringfence-setup-test": ("requirements-test.lock",),
}
INPUTS = (*ALWAYS, *chain.from_iterable(STAMPS.values()))


@pytest.fixture
def furnished(checkout: Path, tmp_path: Path) -> Path:
    """A copy of the files that setup reads, with an environment that counts as up to date."""
    for name in (*INPUTS, "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(checkout / name, tmp_path / name)
    command = tmp_path / ".venv/bin/ringfence"
    command.parent.mkdir(parents=True)
    command.touch(mode=0o755)
    for stamp, locks in STAMPS.items():
        digest = hashlib.sha256(f"{tmp_path}\n".encode())
        for name in (*ALWAYS, *locks):
            digest.update((tmp_path / name).read_bytes())
        (tmp_path / ".venv" / stamp).write_text(f"{digest.hexdigest()}  -\n")
    return tmp_path


def setup(folder: Path, scope: str, path: str = os.defpath) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "tools/setup.sh", scope],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def command(folder: Path, name: str, script: str) -> None:
    """A command of this name that shadows the machine's own."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_nothing_is_said_when_nothing_is_missing(furnished: Path) -> None:
    finished = setup(furnished, "python")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_without_root_it_names_the_missing_packages_and_exits_3(
    furnished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commands = tmp_path_factory.mktemp("commands")
    command(commands, "id", "echo 1000")
    command(commands, "dpkg-query", "exit 1")
    finished = setup(furnished, "all", path=f"{commands}:{os.defpath}")
    assert finished.returncode == 3
    assert "apt-get install --no-install-recommends python3 python3-venv" in finished.stderr
    assert "python3-bpfcc" in finished.stderr


def test_without_a_network_for_debian_s_packages_it_says_so_and_the_next_run_goes_on(
    furnished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commands = tmp_path_factory.mktemp("commands")
    command(commands, "id", "echo 0")
    command(commands, "dpkg-query", "exit 1")
    command(commands, "apt-get", "echo 'E: Failed to fetch: Temporary failure resolving'; exit 100")
    away = setup(furnished, "python", path=f"{commands}:{os.defpath}")
    assert away.returncode == 3
    assert "E: Failed to fetch" in away.stderr
    assert "apt-get failed, see above; check the network" in away.stderr
    assert away.stderr.splitlines()[-1].endswith("run this again): python3 python3-venv")
    command(commands, "apt-get", "exit 0")
    again = setup(furnished, "python", path=f"{commands}:{os.defpath}")
    assert again.returncode == 0, again.stderr


def test_several_at_once_are_all_content(furnished: Path) -> None:
    running = [
        subprocess.Popen([furnished / "tools/setup.sh", "python"], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=patience(60))[1] for process in running]
    assert (said, [process.returncode for process in running]) == ([b""] * 4, [0] * 4)


def test_make_help_names_every_target(furnished: Path) -> None:
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=furnished, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in listed.splitlines()} == {
        "help", "setup", "demo", "lint", "test", "test-slow", "kernels", "apiservers",
        "fuzz", "soak", "bench", "oracle", "oracle-cilium", "testbed", "lock", "clean",
        "docs", "release",
    }  # fmt: skip


def test_what_a_test_starts_keeps_its_bytecode_whatever_the_environment_says() -> None:
    asked = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == "False\n"
