"""A process ends when it is told to, wherever its main thread is at that moment."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.testbed.waiting import patience

TOLD_WITH_THE_LOCK_IN_HAND = """\
import os, sys, threading
from generators.process.signals import on_end

lock, ended = threading.Lock(), threading.Event()

def stop():
    with lock:
        ended.set()

on_end(stop)
with lock:
    os.kill(os.getpid(), int(sys.argv[1]))
ended.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_that_is_told_while_it_holds_a_lock_that_ending_needs(number: int) -> None:
    command = [sys.executable, "-c", TOLD_WITH_THE_LOCK_IN_HAND, str(int(number))]
    done = subprocess.run(command, timeout=patience(20), check=False)
    assert done.returncode == 0
