"""The tenant file of an agent, read again when it changes; the last good one stays.

Both supplies have one. What may surprise: the last good one is kept on disk, too, so an agent that
restarts while the file is broken goes on with it. Where there is none nothing is ready: an agent
must not take the wall away because somebody mistyped a line.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from enforcer.state import Source
from generators.errors import RingfenceError
from generators.tenants.document import MAX_BYTES
from generators.tenants.last_good import LastGood
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig


class TenantFile:
    """`read` looks at the file; `config` is the last good one, `error` what is wrong now."""

    def __init__(self, path: Path | None, kept: LastGood | None = None) -> None:
        self.path = path
        self._kept = kept
        self.config: TenantConfig | None = None
        self.digest: str | None = None
        """Of what was last looked at, good or bad."""
        self.error = ""

    @property
    def settled(self) -> bool:
        """Whether a good file has been read, or none is used."""
        return self.path is None or self.config is not None

    def read(self) -> bool:
        """Look at the file; whether there is another good one than before."""
        if self.path is None:
            return False
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            self.digest = ""
            self.error = f"{self.path}:1: cannot be read: {error.strerror}; check it"
            return self._fall_back()
        digest = hashlib.sha256(data).hexdigest()
        if digest == self.digest:
            return False
        try:
            self.config = parse_tenants(data, str(self.path))
        except RingfenceError as error:
            self.digest, self.error = digest, str(error)
            return self._fall_back()
        self.digest, self.error = digest, ""
        if self._kept is not None:
            self._kept.keep(data)
        return True

    def _fall_back(self) -> bool:
        """At the start, what an agent before us found good; whether there is such a file."""
        if self.config is not None or self._kept is None:
            return False
        found = self._kept.read()
        self.config = None if found is None else found[0]
        return found is not None

    def source(self) -> Source:
        """How it is doing."""
        return Source(
            kind="config",
            synced=self.config is not None,
            connected=not self.error,
            objects=len(self.config.tenants) if self.config is not None else 0,
            unreadable={str(self.path): self.error} if self.error else {},
        )
