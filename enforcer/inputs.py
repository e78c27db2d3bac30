"""The agent's inputs on disk: a directory of manifests and the tenant file, watched for changes.

The agent asks `Watch.read` in its loop. What may surprise: the two are independent, a bad tenant
file does not hold back new pods; and a directory without any file is no input at all, because an
agent that believed it would forget every endpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.control import manifests_digest
from generators.errors import InputError, Problem, RingfenceError
from generators.manifests import Documents, read
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
ATTEMPTS = 5
"""Reads of a directory that keeps changing under our eyes."""

Stamp = tuple[str, int, int, int]
"""Path, inode, size and time of change: enough to see a file replaced by rename."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of the directory; `error` instead, when it cannot be read as a whole."""

    digest: str = ""
    documents: Documents | None = None
    error: RingfenceError | None = None


@dataclass(frozen=True, slots=True)
class Tenants:
    """The tenant file; neither value nor error when none is used."""

    digest: str = ""
    config: TenantConfig | None = None
    error: RingfenceError | None = None


class Watch:
    """Notices that inputs have changed, and reads them."""

    def __init__(self, manifests: Path, config: Path | None) -> None:
        self._manifests = manifests
        self._config = config
        self._seen: frozenset[Stamp] | None = None

    def changed(self) -> bool:
        """Whether anything is different since the last time this was asked; true at first."""
        now = self._stamps()
        changed = now != self._seen
        self._seen = now
        return changed

    def manifests(self) -> Manifests:
        """The manifests as they are now."""
        digest = ""
        try:
            for _ in range(ATTEMPTS):
                before = self._contents()
                digest = manifests_digest(before)
                if not before:
                    return Manifests(digest)
                documents = read([str(self._manifests)])
                if manifests_digest(self._contents()) == digest:
                    return Manifests(digest, documents)
        except RingfenceError as error:
            return Manifests(digest, error=error)
        except OSError as error:
            return Manifests(digest, error=self._unreadable(str(error)))
        return Manifests(digest, error=self._unreadable("it changes faster than it can be read"))

    def tenants(self) -> Tenants:
        """The tenant file as it is now."""
        if self._config is None:
            return Tenants()
        try:
            config = load_tenants(self._config)
        except RingfenceError as error:
            return Tenants(_digest(self._config), error=error)
        return Tenants(config.digest, config)

    def _unreadable(self, why: str) -> InputError:
        what = f"the manifests cannot be read: {why}"
        return InputError([Problem(str(self._manifests), 1, "", what, "check the directory")])

    def _files(self) -> list[Path]:
        found = (p for p in self._manifests.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        return sorted(found)

    def _contents(self) -> Mapping[str, bytes]:
        return {str(p.relative_to(self._manifests)): p.read_bytes() for p in self._files()}

    def _stamps(self) -> frozenset[Stamp]:
        files = self._files() + ([self._config] if self._config is not None else [])
        return frozenset(stamp for p in files if (stamp := _stamp(p)) is not None)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns


def _digest(path: Path) -> str:
    """Of a file that is no valid tenant file, so that who waits for it learns the error."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
