"""Waiting for what happens elsewhere: a condition with a deadline, never a sleep and a hope."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_SECONDS = 0.02


def eventually(holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Return as soon as it holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not after {seconds:.0f} s: {what}"
        time.sleep(POLL_SECONDS)
