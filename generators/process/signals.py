"""Signals that end our processes."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable

__all__ = ["on_end"]


def on_end(stop: Callable[[], object]) -> None:
    """Have SIGTERM and SIGINT call `stop`, however the process was started; from the main thread.

    `stop` runs in a thread of its own: a handler runs between two instructions of the main thread,
    which may hold the very lock that `stop` wants (that of a threading.Event is enough), and then
    waits for itself. Of what a handler may call, `SimpleQueue.put` is documented to be safe there.
    """
    told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait() -> None:
        while True:
            told.get()
            stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.put(number))
