"""The last good tenant file on disk, for a process that starts while the file itself is broken."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from generators.errors import RingfenceError
from generators.process.files import write_atomically
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig

NAME = "tenants-last-good.yaml"


@dataclass(frozen=True, slots=True)
class LastGood:
    """One file in a directory that lives as long as the process is started again and again."""

    directory: Path

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return self.directory / NAME

    def keep(self, data: bytes) -> None:
        """Best effort: without it a restart waits for a good file."""
        with suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, data)

    def read(self) -> tuple[TenantConfig, bytes] | None:
        """The file and its bytes; None where nothing good is kept."""
        with suppress(OSError, RingfenceError):
            data = self.path.read_bytes()
            return parse_tenants(data, str(self.path)), data
        return None
