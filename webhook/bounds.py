"""What a review may hold, seen before it is decoded, and how many large ones are worked on.

Eight megabytes of `[],` are two hundred of objects, and the collector walks them all. The bound is
on elements: a 3 MiB object, old and new, of short keys and values has 260,000. Depth is bounded by
orjson, which refuses 1,024 levels.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MOST_ELEMENTS = 400_000
"""Members of lists and objects, and the lists and objects; about 60 MB when decoded."""
LARGE = 256 * 1024
"""Bytes of a body from which on reviews take turns."""

_turn = threading.Lock()


def elements(body: bytes, most: int = MOST_ELEMENTS) -> int:
    """How many elements JSON holds, at most; exact where that seems more than it may hold."""
    rough = _marks(body)
    if rough <= most:
        return rough
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = bare.count(b'"') // 2
    if strings > 2 * most + 1:
        return strings // 2  # a member has two at most: its key and its value
    return _marks(b"".join(bare.split(b'"')[::2]))


def _marks(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


@contextmanager
def taking_turns(size: int) -> Iterator[None]:
    """A large review is alone in its block, and what it decodes is not walked meanwhile."""
    if size < LARGE:
        yield
        return
    with _turn:
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
