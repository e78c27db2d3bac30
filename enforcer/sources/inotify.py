"""Reports changes of files below some folders, by inotify through ctypes.

Where the kernel refuses to watch (its limit of instances or watches is used up by anything on
the machine) or a folder is missing, the folder is looked at once a second instead.
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_CLOEXEC, IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
CHANGES = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
ROOM = 1 << 16
LOOK_MILLISECONDS = 1000


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
        self._unwatched: tuple[Path, ...] = ()
        self._thread: threading.Thread | None = None

    def start(self, changed: Callable[[], None]) -> None:
        """Watch in a thread."""
        self._events = self._libc.inotify_init1(IN_CLOEXEC | IN_NONBLOCK)
        self._stop, self._stopping = os.pipe2(os.O_CLOEXEC)
        self._add_all()
        seen = _glance(self._unwatched)
        self._thread = threading.Thread(
            target=self._run, args=(changed, seen), name="inotify", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        if self._thread is None:
            return
        os.close(self._stopping)
        self._thread.join()
        os.close(self._stop)
        if self._events >= 0:
            os.close(self._events)
        self._thread = None

    def _add_all(self) -> None:
        below = (
            Path(place, name)
            for folder in self._deep
            for place, names, _ in os.walk(folder)
            for name in names
        )
        self._unwatched = tuple(
            folder
            for folder in (*self._deep, *self._flat, *below)
            if self._libc.inotify_add_watch(self._events, os.fsencode(folder), CHANGES) < 0
        )

    def _run(self, changed: Callable[[], None], seen: frozenset[tuple[object, ...]]) -> None:
        waiting = select.poll()
        waiting.register(self._stop, select.POLLIN)
        if self._events >= 0:
            waiting.register(self._events, select.POLLIN)
        while True:
            ready = dict(waiting.poll(LOOK_MILLISECONDS if self._unwatched else None))
            if self._stop in ready:
                return
            if self._events in ready:
                os.read(self._events, ROOM)
            before, seen = seen, _glance(self._unwatched)
            if self._events in ready or seen != before:
                self._add_all()
                seen = _glance(self._unwatched)
                changed()


def _glance(folders: Iterable[Path]) -> frozenset[tuple[object, ...]]:
    """What these folders hold now: a change of a file in them changes it."""
    return frozenset(entry for folder in folders for entry in _entries(folder))


def _entries(folder: Path) -> Iterator[tuple[object, ...]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                yield entry.path, found.st_ino, found.st_size, found.st_mtime_ns
    except OSError:
        yield str(folder), "unreadable"
