"""The objects of a directory of manifests, watched; for nodes without Kubernetes, and the lab.

The agent takes changes from it as from an API server. Manifests and tenant file are independent, a
bad tenant file does not hold back new pods; a directory without any file is not an input at all,
because an agent that believed it would forget every endpoint; and only files whose content changed
are parsed again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.policy.changes import NOTHING, InputChange, Inputs, between
from enforcer.sources.inotify import FolderWatch
from enforcer.sources.supply import Health, InputState, SeenDigests, Taken
from enforcer.sources.tenants import AgentTenants
from generators.cluster import Cluster, from_record
from generators.errors import InputError, Problem, RingfenceError
from generators.manifests import Documents, merge, read_bytes
from generators.manifests.files import Files
from generators.tenants.model import TenantConfig

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
ATTEMPTS = 5
"""Reads of a directory that keeps changing under our eyes."""


Stamp = tuple[str, int, int, int]
"""Path, inode, size and time of change: enough to see a file replaced by rename."""


def manifests_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over names (below the directory) and contents of manifests, in name order."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A file's objects, as long as its content is this."""

    digest: str
    documents: Documents


class ManifestSupply:
    """See `Supply`."""

    def __init__(self, directory: Path, tenants: AgentTenants) -> None:
        self._directory = directory
        self._tenants = tenants
        beside = [tenants.path.parent] if tenants.path is not None else []
        self._watch = FolderWatch([directory], beside)
        self._stamps: frozenset[Stamp] | None = None
        self._parsed: dict[str, _Parsed] = {}
        self._seen: str | None = None
        self._error = ""
        self._documents: Documents | None = None
        self._given = NOTHING
        self._basis: tuple[Documents | None, TenantConfig | None] = (None, None)
        self._noticed: float | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """See `Supply`."""

        def changed() -> None:
            self._noticed = self._noticed or time.monotonic()
            wake()

        self._watch.start(changed)

    def stop(self) -> None:
        """See `Supply`."""
        self._watch.stop()

    def take(self) -> Taken:
        """See `Supply`; a look at the folder costs little while nothing in it changes."""
        since, self._noticed = self._noticed, None
        self._tenants.read()
        self._read()
        basis = (self._documents, self._tenants.config)
        if self._documents is None or not self._tenants.settled or basis == self._basis:
            return Taken()
        try:
            cluster = from_record(self._documents, self._tenants.config)
        except RingfenceError as error:
            self._error = str(error)
            return Taken()
        self._basis = basis
        return Taken(self._turn_into(cluster), since)

    def health(self) -> Health:
        """See `Supply`."""
        told = (("manifests", self._error), ("config", self._tenants.error))
        errors = {kind: error for kind, error in told if error}
        return Health(SeenDigests(self._seen, self._tenants.digest), errors)

    def sources(self) -> Mapping[str, Callable[[], InputState]]:
        """See `Supply`."""
        found: dict[str, Callable[[], InputState]] = {"manifests": self._source}
        if self._tenants.path is not None:
            found["config"] = self._tenants.source
        return found

    def _source(self) -> InputState:
        known = self._given.cluster
        return InputState(
            kind="manifests",
            synced=self._documents is not None,
            connected=not self._error,
            objects=len(known.pods) + len(known.policies) + len(known.namespaces),
            unreadable={str(self._directory): self._error} if self._error else {},
        )

    def _turn_into(self, cluster: Cluster) -> tuple[InputChange, ...]:
        wanted = Inputs(cluster, {})
        changes = tuple(between(self._given, wanted))
        self._given = wanted
        return changes

    def _read(self) -> None:
        """Look at the files; bad ones are reported, and their last good version kept."""
        try:
            stamps = frozenset(map(_stamp, self._files()))
            if stamps == self._stamps:
                return
            for _ in range(ATTEMPTS):
                before = manifests_digest(self._contents())
                if before == self._seen or self._take_over(before):
                    self._stamps = stamps
                    return
            raise self._unreadable("it changes faster than it can be read")
        except OSError as error:
            self._error = str(self._unreadable(str(error)))
        except InputError as error:
            self._error = str(error)

    def _take_over(self, digest: str) -> bool:
        """Parse the files with that digest; False where they changed meanwhile."""
        error, documents = "", None
        try:
            documents = self._parse()
        except InputError as refused:
            error = str(refused)
        if manifests_digest(self._contents()) != digest:
            return False
        self._seen, self._error = digest, error
        self._documents = documents or self._documents
        return True

    def _parse(self) -> Documents | None:
        """All objects; None where there is no file."""
        files = Files()
        problems: list[Problem] = []
        parsed: dict[str, _Parsed] = {}
        for name, data in files.contents(str(self._directory)):
            digest = hashlib.sha256(data).hexdigest()
            known = self._parsed.get(name)
            if known is None or known.digest != digest:
                try:
                    known = _Parsed(digest, read_bytes(data, name))
                except InputError as error:
                    problems.extend(error.problems)
                    continue
            parsed[name] = known
        self._parsed.update(parsed)
        if files.problems or problems:
            raise InputError([*files.problems, *problems])
        self._parsed = parsed
        return merge([file.documents for file in parsed.values()]) if parsed else None

    def _unreadable(self, why: str) -> InputError:
        what = f"the manifests cannot be read: {why}"
        return InputError([Problem(str(self._directory), 1, "", what, "check the directory")])

    def _files(self) -> list[Path]:
        found = (p for p in self._directory.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        return sorted(found)

    def _contents(self) -> Mapping[str, bytes]:
        return {str(p.relative_to(self._directory)): p.read_bytes() for p in self._files()}


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
