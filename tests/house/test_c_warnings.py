"""C that gcc compiles has no warnings; on the machine of a user a newer gcc's are no errors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror")


@pytest.mark.parametrize(
    "source",
    ["enforcer/cni/ringfence-cni.c", "enforcer/datapath/recorder.c", "tests/cni/scan_harness.c"],
)
def test_gcc_has_nothing_to_say(checkout: Path, source: str) -> None:
    command = ["gcc", *WARNINGS, "-O2", f"-I{checkout}/enforcer/cni", "-c", "-o", "/dev/null"]
    try:
        done = subprocess.run([*command, checkout / source], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no gcc; make setup installs it")
    assert (done.returncode, done.stderr) == (0, b"")
