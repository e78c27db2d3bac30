"""Memory that the C library holds back in a process that runs for weeks.

glibc gives threads arenas of their own, eight for each core, and no other thread uses what a burst
leaves free in one: an agent of 19 threads grew by 20 MB in ninety minutes that way, with no more
objects than at the start. Without glibc both functions do nothing.
"""

from __future__ import annotations

import ctypes

__all__ = ["give_back", "share_arenas"]

M_ARENA_MAX = -8
"""malloc.h"""
ARENAS = 2


def share_arenas() -> None:
    """Have all threads take memory from the same few places; before any of them starts."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory to the machine."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
