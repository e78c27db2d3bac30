"""Child processes of the testbed: their output in files, their end tied to the parent's.

Used by `plane.py`. `setpriv --pdeathsig` makes the kernel kill a child when the *thread* that
started it ends, so a killed test run leaves nothing behind; start planes from a thread that
outlives them.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lab.api.plane import free_ports
from tests.testbed.waiting import kill

__all__ = ["Child", "free_ports"]


class Child:
    """One running program; stopped by its own pid, at once."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # An own session: Ctrl-C reaches the parent only, which ends its children in order.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the program itself: setpriv becomes it by exec."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has exited by itself or by a signal."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL: all data are throw-away, and etcd takes seconds for a polite end."""
        kill(self._process)

    def pause(self) -> None:
        """Stop its clock: connections stay open and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._process.send_signal(signal.SIGCONT)

    def last_words(self, lines: int = 15) -> str:
        """The end of its log, for error messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
