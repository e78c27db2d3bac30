"""Network namespaces by descriptor: make one, and be in one for a while.

Calls are per thread, and Python has them only from 3.12 on, hence ctypes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
CURRENT = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def fresh() -> int:
    """A new network namespace; it is there as long as this descriptor, or a process in it."""
    with _returning():
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        return _open(CURRENT)


def of_process(pid: int) -> int:
    """The namespace of a process, as a descriptor; OSError where there is no such process."""
    return _open(f"/proc/{pid}/ns/net")


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """Let this thread be in a network namespace for a while."""
    with _returning():
        _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")
        yield


@contextmanager
def _returning() -> Iterator[None]:
    home = _open(CURRENT)
    try:
        yield
    finally:
        try:
            _check(_libc.setns(home, CLONE_NEWNET), "setns back")
        finally:
            os.close(home)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
