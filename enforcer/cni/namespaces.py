"""Which namespaces may start pods only under enforcement, and the file that says so without us.

The agent's process keeps the file beside the node's CNI configuration, where it survives the agent
and a reboot; the shim reads it when no agent answers. What may surprise: strict is who has a wall
that drops, as the compiler sees it, and while tenants are strict a namespace that nobody has heard
of counts as one.

    # ...
    * strict
    kube-system open
    test01-shop strict
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from enforcer.state import Board, State
from enforcer.tables import EndpointFlag
from enforcer.walls import Home, wall_flags
from generators.errors import RingfenceError
from generators.logs import event
from generators.objects import Namespace
from generators.tenants.load import load_tenants
from generators.tenants.model import Mode, TenantConfig

log = logging.getLogger("ringfence.enforcer")

FILE = "ringfence-namespaces"
OTHERS = "*"
HEADER = """\
# What the ringfence CNI plugin does with pods of a namespace while no agent answers on this node:
# strict ones are refused, open ones start. Kept by the agent.
"""
SETTLE_SECONDS = 1.0
"""Changes that follow each other are written down together."""


class Start(StrEnum):
    """How pods of a namespace start when nobody can enforce them."""

    STRICT = "strict"
    OPEN = "open"


def start_of(
    name: str, namespace: Namespace | None, tenant: str | None, config: TenantConfig | None
) -> Start:
    """Strict: behind a wall that drops."""
    flags = wall_flags(Home.of(name, namespace, tenant, config), config)
    walled = EndpointFlag.WALL in flags and EndpointFlag.WALL_AUDIT not in flags
    return Start.STRICT if walled else Start.OPEN


def render(others: Start, starts: Mapping[str, Start]) -> str:
    """The file."""
    lines = [f"{OTHERS} {others}", *(f"{name} {start}" for name, start in sorted(starts.items()))]
    return HEADER + "\n".join(lines) + "\n"


@dataclass(slots=True)
class Strictness:
    """Answers for one namespace at a time, from what the agent last published."""

    board: Board
    config_path: Path | None
    _seen: str | None = field(default=None, init=False)
    _config: TenantConfig | None = field(default=None, init=False)

    def is_strict(self, name: str) -> bool:
        """Whether pods of a namespace may only start under enforcement."""
        state = self.board.state
        if name not in state.namespaces and name not in state.tenants:
            return self.others() is Start.STRICT
        return self._start_of(name, state) is Start.STRICT

    def page(self) -> str | None:
        """What the file should say; None while too little is known to say anything new."""
        state = self.board.state
        if not state.ready:
            return None
        names = {*state.namespaces, *state.tenants}
        return render(self.others(), {n: self._start_of(n, state) for n in names})

    def config(self, state: State) -> TenantConfig | None:
        """The last good tenant file."""
        path = self.config_path
        if path is not None and (self._config is None or state.seen_config != self._seen):
            with suppress(RingfenceError):  # the agent tells; the last good one holds
                self._config = load_tenants(path)
            self._seen = state.seen_config
        return self._config

    def others(self) -> Start:
        """For namespaces that nothing is known of; a file that was never good is no permission."""
        config = self.config(self.board.state)
        if config is None:
            return Start.OPEN if self.config_path is None else Start.STRICT
        return Start.STRICT if config.mode is Mode.STRICT else Start.OPEN

    def _start_of(self, name: str, state: State) -> Start:
        config = self.config(state)
        return start_of(name, state.namespaces.get(name), state.tenants.get(name), config)


class Keeper:
    """Writes the file whenever the answers change; a thread of the agent's process."""

    def __init__(self, path: Path, strictness: Strictness) -> None:
        self._path = path
        self._strictness = strictness
        self._written = ""

    def begin(self) -> None:
        """Before anything is known: what an earlier agent wrote holds, else the file's default."""
        if self._path.exists():
            self._written = self._path.read_text(errors="replace")
            return
        self._write(render(self._strictness.others(), {}))

    def run(self, stop: threading.Event) -> None:
        """Keep the file until told to stop."""
        board = self._strictness.board
        seen: State | None = None
        while not stop.wait(SETTLE_SECONDS):
            if board.state is not seen:
                seen = board.state
                self.keep()

    def keep(self) -> None:
        """Write the file if it says something else."""
        page = self._strictness.page()
        if page is not None and page != self._written:
            self._write(page)

    def _write(self, page: str) -> None:
        unfinished = self._path.with_suffix(".new")
        try:
            unfinished.write_text(page)
            unfinished.replace(self._path)
        except OSError as error:
            event(log, "namespaces_not_written", logging.ERROR, error=str(error))
            return
        self._written = page
