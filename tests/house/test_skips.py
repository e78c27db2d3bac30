"""A kernel test that did not run is never taken for one that passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

@pytest.mark.bpf
def test_that_finds_something_missing():
    pytest.skip("no such kernel")
"""


@pytest.mark.parametrize(
    ("ci", "exit_code", "closing"),
    [("", 0, "1 skipped"), ("true", 1, "1 failed")],
    ids=["here", "ci"],
)
def test_skip_of_a_kernel_test_is_reported_here_and_fails_in_ci(
    checkout: Path, tmp_path: Path, ci: str, exit_code: int, closing: str
) -> None:
    (tmp_path / "test_kernel.py").write_text(SKIPPING)
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(checkout / "pyproject.toml"),
            *plugins,
            str(tmp_path),
        ],
        cwd=checkout,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == exit_code, finished.stdout
    assert closing in finished.stdout
    assert "no such kernel" in finished.stdout or os.geteuid() != 0
