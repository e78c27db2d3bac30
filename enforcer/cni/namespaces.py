"""Namespaces whose pods start only under enforcement, and the file that lists them without the
agent.

The agent's process keeps the file beside the node's CNI configuration, where it survives the agent
and a reboot; the shim reads it when no agent answers. Strict are namespaces with a wall that drops,
as the compiler sees it; while any tenant is strict, an unknown namespace counts as strict.

    # ...
    * strict
    kube-system open
    test01-shop strict
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from enforcer.agent.state import Board, NodeState
from enforcer.agent.supervise import Report, Supervised
from generators.tenants.model import Mode

FILE = "ringfence-namespaces"
OTHERS = "*"
HEADER = """\
# What the ringfence CNI plugin does with pods of a namespace while no agent answers on this node:
# strict ones are refused, open ones start. Kept by the agent.
"""
SETTLE_SECONDS = 1.0
"""Changes that follow each other are written down together."""
REST = 50
"""After a write, wait this many times its duration before the next."""


class Start(StrEnum):
    """How pods of a namespace start when no agent can enforce them."""

    STRICT = "strict"
    OPEN = "open"

    @classmethod
    def of(cls, closed: bool) -> Start:
        """Strict: behind a wall that drops."""
        return cls.STRICT if closed else cls.OPEN


def render(others: Start, walled: Mapping[str, bool]) -> str:
    """The file."""
    starts = (f"{name} {Start.of(closed)}" for name, closed in sorted(walled.items()))
    return HEADER + "\n".join([f"{OTHERS} {others}", *starts]) + "\n"


def parse(page: str) -> Mapping[str, Start]:
    """The content of a file, including `others`; invalid lines are ignored."""
    words = [line.split() for line in page.splitlines() if not line.startswith("#")]
    known = {str(start): start for start in Start}
    return {w[0]: known[w[1]] for w in words if len(w) == 2 and w[1] in known}


class Strictness:
    """Answers for one namespace at a time, from what the agent last published."""

    def __init__(self, board: Board, *, configured: bool) -> None:
        self._board = board
        self._configured = configured
        """There is a tenant file, whether it is good or not."""
        self._restored: Mapping[str, Start] = {}
        self._page = ""
        self._as_of: tuple[Start, int] | None = None
        """What the page was made from."""

    def restore(self, page: str) -> None:
        """What an earlier agent knew holds until this one knows better."""
        self._restored = parse(page)

    def is_strict(self, name: str) -> bool:
        """Whether pods of a namespace may only start under enforcement."""
        state = self._board.state
        if not state.ready and self._restored:
            return self._restored.get(name, self._restored.get(OTHERS)) is not Start.OPEN
        return state.walled.get(name, self._others(state) is Start.STRICT)

    def page(self) -> str | None:
        """What the file should say; None while too little is known to say anything new."""
        state = self._board.state
        if not state.ready:
            return None
        as_of = self._others(state), state.walls_turned
        if as_of != self._as_of:
            # Walls may be newer than their count, and gone by now: then it is made once more.
            known = {name: state.walled.get(name) for name in state.walled}
            walled = {name: closed for name, closed in known.items() if closed is not None}
            self._page, self._as_of = render(as_of[0], walled), as_of
        return self._page

    def first_page(self) -> str:
        """What it should say when nothing was ever known here."""
        return render(Start.of(self._configured), {})

    def _others(self, state: NodeState) -> Start:
        """For unknown namespaces; a file that was never good permits nothing."""
        if state.config is None:
            return Start.of(self._configured)
        return Start.of(state.config.mode is Mode.STRICT)


class NamespaceKeeper:
    """Writes the file whenever the answers change; a thread of the agent's process."""

    def __init__(self, path: Path, strictness: Strictness, board: Board, report: Report) -> None:
        self._path = path
        self._part = Supervised(
            "cni-namespaces",
            f"{path} cannot be written; it lists namespaces whose pods may start without the agent",
            report,
        )
        self._strictness = strictness
        self._board = board
        self._written = ""

    def start(self) -> None:
        """Before anything is known: what an earlier agent wrote holds."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self._written = self._path.read_text(errors="replace")
        if self._written:
            self._strictness.restore(self._written)
        else:
            self._part.attempt(lambda: self._write(self._strictness.first_page()))

    def run(self, stop: threading.Event) -> None:
        """Keep the file until stopped."""
        seen: NodeState | None = None
        pause = SETTLE_SECONDS
        while not stop.wait(pause):
            if self._board.state is not seen or self._part.failed:
                seen = self._board.state
                began = time.monotonic()
                self._part.attempt(self.keep)
                pause = max(SETTLE_SECONDS, REST * (time.monotonic() - began))

    def keep(self) -> None:
        """Write the file if it differs."""
        page = self._strictness.page()
        if page is None and not self._written:
            page = self._strictness.first_page()
        if page is not None and page != self._written:
            self._write(page)

    def _write(self, page: str) -> None:
        unfinished = self._path.with_name(f".{self._path.name}.new")
        unfinished.write_text(page)
        unfinished.replace(self._path)
        self._written = page
