"""Threads take memory from the same few places."""

from __future__ import annotations

import subprocess
import sys

from tests.testbed.waiting import patience

THREADS = """\
import ctypes, re, sys, threading
from generators.process import memory

if sys.argv[1] == "shared":
    memory.share_arenas()
began, end = threading.Barrier(17), threading.Event()

def take():
    block = ctypes.create_string_buffer(0), [ctypes.CDLL(None).malloc(1000)]
    began.wait()
    end.wait()

for _ in range(16):
    threading.Thread(target=take).start()
began.wait()
starts = [int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "rw-p" in line]
print(sum(start % (64 << 20) == 0 for start in starts))
end.set()
"""


def arenas(how: str) -> int:
    """Arenas of a process of seventeen threads, beside its heap."""
    command = [sys.executable, "-c", THREADS, how]
    done = subprocess.run(command, capture_output=True, timeout=patience(20), check=True)
    return int(done.stdout)


def test_threads_share_two_arenas() -> None:
    assert arenas("shared") <= 1 < arenas("each its own")
