"""Test runs leave nothing behind, and clear away what killed ones left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from enforcer import loader, testrun

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]


def test_the_pins_of_a_killed_run_go_with_the_next_and_those_of_a_live_one_stay() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with testrun.loaded():
        left = loader.BPF_FS / f"{testrun.PINS}{ended.pid}-test"
        live = loader.BPF_FS / f"{testrun.PINS}{os.getpid()}-test"
        left.mkdir()
        live.mkdir()
    try:
        with testrun.loaded():
            assert not left.exists()
            assert live.exists()
    finally:
        live.rmdir()
    assert not list(loader.BPF_FS.glob(f"{testrun.PINS}{os.getpid()}-*"))
