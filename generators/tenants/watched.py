"""A tenant file that may change while a process runs: used by webhook, controller and agent.

Read again when its bytes change, taken only if it is sound; otherwise the last good one stays, also
on disk, so that a process that starts while the file is broken can use it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from generators.errors import InputError, InvalidConfig
from generators.tenants.last_good import LastGood
from generators.tenants.load import parse_tenants, tenant_bytes
from generators.tenants.model import TenantConfig


@dataclass(frozen=True, slots=True)
class Changed:
    """What one look at a file brought: taken, or why it was refused. For the log."""

    event: str
    file: str
    detail: str
    refused: bool


class WatchedTenants:
    """`check` looks at the file; `newest` is the last good one, `error` the current problem.

    Compared by content, not by time stamp: a ConfigMap swaps symlinks, an editor may write twice
    within one tick of the clock, and reading a few kilobytes a second costs nothing.
    """

    def __init__(self, path: Path, last_good: LastGood | None = None) -> None:
        self.path = path
        self.newest: tuple[TenantConfig, bytes] | None = None
        """The file and its bytes, together."""
        self.error: InputError | InvalidConfig | None = None
        self.digest: str | None = None
        """Of what was last looked at, good or bad; empty where it could not be read."""
        self._last_good = last_good

    def check(self) -> Changed | None:
        """Take the file if it changed and is sound; else keep the last good one and say why."""
        try:
            data = tenant_bytes(self.path)
        except InputError as error:
            return self._refuse("", error)
        digest = hashlib.sha256(data).hexdigest()
        if digest == self.digest:
            return None
        try:
            config = parse_tenants(data, str(self.path))
        except (InvalidConfig, InputError) as error:
            return self._refuse(digest, error)
        self.digest, self.newest, self.error = digest, (config, data), None
        if self._last_good is not None:
            self._last_good.keep(data)
        return Changed("tenant_file_loaded", str(self.path), digest, refused=False)

    def _refuse(self, digest: str, error: InputError | InvalidConfig) -> Changed | None:
        known = digest == self.digest and str(error) == str(self.error)
        self.digest, self.error = digest, error
        if self.newest is None and self._last_good is not None:
            self.newest = self._last_good.read()
        return None if known else Changed("tenant_file_refused", str(self.path), str(error), True)
