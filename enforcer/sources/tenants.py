"""The tenant file of an agent, if it has one: how it is doing, for both supplies.

Without any good file nothing is ready. An agent must not remove the wall because of a typing error.
"""

from __future__ import annotations

from pathlib import Path

from enforcer.sources.supply import InputState
from generators.tenants.last_good import LastGood
from generators.tenants.model import TenantConfig
from generators.tenants.watched import WatchedTenants


class AgentTenants:
    """`read` looks at the file; `config` is the last good one, `error` the current problem."""

    def __init__(self, path: Path | None, kept: LastGood | None = None) -> None:
        self.path = path
        self._file = None if path is None else WatchedTenants(path, kept)

    @property
    def config(self) -> TenantConfig | None:
        """The last good one."""
        newest = None if self._file is None else self._file.newest
        return None if newest is None else newest[0]

    @property
    def digest(self) -> str | None:
        """Of what was last looked at, good or bad."""
        return None if self._file is None else self._file.digest

    @property
    def error(self) -> str:
        """The error of the file on disk."""
        wrong = None if self._file is None else self._file.error
        return "" if wrong is None else str(wrong)

    @property
    def settled(self) -> bool:
        """Whether a good file has been read, or none is used."""
        return self._file is None or self.config is not None

    def read(self) -> bool:
        """Look at the file; whether there is another good one than before."""
        if self._file is None:
            return False
        before = self._file.newest
        self._file.check()
        return self._file.newest is not before

    def source(self) -> InputState:
        """How it is doing."""
        config, error = self.config, self.error
        return InputState(
            kind="config",
            synced=config is not None,
            connected=not error,
            objects=len(config.tenants) if config is not None else 0,
            unreadable={str(self.path): error} if error else {},
        )
