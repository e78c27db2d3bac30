"""The real `hubble observe`, on flows that are handed to it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from tests.testbed import build
from tests.testbed.waiting import patience

Hubble = Callable[..., list[str]]
"""Arguments -> the lines that it prints."""


def hubble_program() -> Path:
    """The program; a skip with the reason where it cannot be built."""
    try:
        return build.ensure(build.HUBBLE, lambda _: None) / "hubble"
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")


def observing(program: Path, flows: str) -> Hubble:
    """It reads these flows, a JSON a line, and has nothing to complain of."""

    def observe(*arguments: str) -> list[str]:
        done = subprocess.run(
            [program, "observe", "--input-file", "-", *arguments],
            input=flows,
            capture_output=True,
            text=True,
            timeout=patience(60),
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), "a warning, or worse"
        return done.stdout.splitlines()

    return observe
