"""Files that a process replaces as a whole, and those that it keeps for the process after it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file such that a reader, or a crash, sees the old or the new one whole."""
    # Processes may share a directory.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


class StateFile:
    """What an agent keeps for the next one; a problem is logged as `NAME_not_saved`, once."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        self._failed = ""

    def write(self, data: bytes) -> bool:
        """Whether the file could be replaced; the agent goes on in any case."""
        try:
            write_atomically(self.path, data)
        except OSError as error:
            if str(error) != self._failed:
                event(log, f"{self._name}_not_saved", logging.ERROR, error=str(error))
            self._failed = str(error)
            return False
        self._failed = ""
        return True
