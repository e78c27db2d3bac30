"""Tells when files below some folders change, by inotify through ctypes.

The manifest supply and the tenant file are woken by it. What may surprise: it only says that
something happened; folders that the kernel cannot watch (or none is left to be had) simply never
wake anybody, and the agent looks at its inputs every second anyway.
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_CLOEXEC, IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
CHANGES = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
ROOM = 1 << 16


class FolderWatch:
    """`start` calls back after every change.

    Folders below those of `deep` are watched too, and found as they appear.
    """

    def __init__(self, deep: Sequence[Path] = (), flat: Sequence[Path] = ()) -> None:
        self._deep = tuple(deep)
        self._flat = tuple(flat)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = -1
        self._stop, self._stopping = -1, -1
        self._thread: threading.Thread | None = None

    def start(self, changed: Callable[[], None]) -> None:
        """Watch in a thread; without inotify nobody is ever called."""
        self._events = self._libc.inotify_init1(IN_CLOEXEC | IN_NONBLOCK)
        if self._events < 0:
            return
        self._stop, self._stopping = os.pipe2(os.O_CLOEXEC)
        self._add_all()
        self._thread = threading.Thread(
            target=self._run, args=(changed,), name="inotify", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        if self._thread is None:
            return
        os.close(self._stopping)
        self._thread.join()
        os.close(self._stop)
        os.close(self._events)
        self._thread = None

    def _add_all(self) -> None:
        below = [p for folder in self._deep for p in folder.rglob("*") if p.is_dir()]
        for folder in (*self._deep, *self._flat, *below):
            self._libc.inotify_add_watch(self._events, os.fsencode(folder), CHANGES)

    def _run(self, changed: Callable[[], None]) -> None:
        waiting = select.poll()
        waiting.register(self._events, select.POLLIN)
        waiting.register(self._stop, select.POLLIN)
        while True:
            if self._stop in dict(waiting.poll()):
                return
            os.read(self._events, ROOM)
            self._add_all()
            changed()
