"""The files that change under a running webhook: tenant file and serving certificate.

Both are read again when their bytes change, taken only when they are sound, and the last good one
stays otherwise. The watcher thread of the worker asks once a second; the server also asks for the
certificate at each new connection. Readers take `.config` or `.context` once and work with that
value: the swap is one assignment.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from generators.checks import Check, bridged, good
from generators.errors import InputError, Problem
from generators.tenants.last_good import LastGood
from generators.tenants.model import TenantConfig
from generators.tenants.watched import Changed, WatchedTenants

KEPT_FILES = 4
"""How many sound tenant files are remembered, the one in force included."""


class TenantFile:
    """The newest sound tenant file, and the few before it."""

    def __init__(self, path: Path, last_good: LastGood | None = None) -> None:
        """Load the file, or the last good one while it is broken; raises InvalidConfig or
        InputError with every problem in it where there is none.
        """
        self._file = WatchedTenants(path, last_good)
        first = self._file.check()
        if self._file.newest is None:
            raise self._file.error or AssertionError("a file is good, or has an error")
        self.newest = self._file.newest
        """The file and its bytes, together."""
        self.loaded_at = time.time()
        self._untold = first if self._file.error is not None else None
        self._kept: tuple[TenantConfig, ...] = (self.config,)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._file.path

    @property
    def problem(self) -> str | None:
        """The error of the file on disk; None while it is in force."""
        return None if self._file.error is None else str(self._file.error)

    @property
    def config(self) -> TenantConfig:
        """The newest sound file."""
        return self.newest[0]

    @property
    def health(self) -> Check:
        """Whether the file on disk is in force, or the last good one."""
        if self.problem:
            return bridged(f"config refused, {self.config.digest} stays in force", self.problem)
        return good("config ok", self.config.digest)

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all files that are remembered, the newest first."""
        return tuple(config.digest for config in self._kept)

    def under(self, digest: str) -> TenantConfig | None:
        """The file of that digest, as long as it is remembered; the newest for an empty digest."""
        if not digest:
            return self.config
        return next((config for config in self._kept if config.digest == digest), None)

    def check(self) -> Changed | None:
        """Take the file if it changed and is sound; else keep the last good one and say why."""
        changed = self._file.check() or self._untold
        self._untold = None
        found = self._file.newest
        if found is not None and found is not self.newest:
            self.newest = found
            others = [kept for kept in self._kept if kept.digest != self.config.digest]
            self._kept = (self.config, *others[: KEPT_FILES - 1])
            self.loaded_at = time.time()
        return changed


Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One certificate with its key, ready to serve."""

    context: ssl.SSLContext
    not_after: datetime
    signature: Signature


class ServingCertificate:
    """The TLS certificate in force; one SSLContext for all connections."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Load the pair; raises InputError when it cannot be served.

        With `client_ca` (PEM) clients need a certificate that it signed.
        """
        self.certificate, self.key, self.client_ca = certificate, key, client_ca
        self.problem: str | None = None
        self._lock = threading.Lock()
        try:
            self._pair = self._load()
        except (OSError, ValueError) as error:
            raise InputError([self._problem(error)]) from error
        self._seen: Signature | None = self._pair.signature

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._pair.context

    @property
    def not_after(self) -> datetime:
        """When the certificate that is served expires."""
        return self._pair.not_after

    @property
    def expired(self) -> bool:
        """Whether clients refuse the certificate that is served."""
        return self._pair.not_after <= datetime.now(UTC)

    def check(self) -> Changed | None:
        """Take the pair on disk if it changed and fits together; otherwise keep serving the old
        one."""
        with self._lock:
            try:
                signature = self._signature()
                if signature == self._seen:
                    return None
                pair = self._load()
            except (OSError, ValueError) as error:
                self._seen = None  # half written, or one file not swapped yet: look again
                return self._refuse(str(self._problem(error)))
            self._seen = signature
            if pair.not_after <= datetime.now(UTC) and not self.expired:
                return self._refuse(f"{self.certificate}: the new certificate has already expired")
            self._pair, self.problem = pair, None
        until = pair.not_after.isoformat()
        return Changed("certificate_loaded", str(self.certificate), f"valid until {until}", False)

    def _load(self) -> Pair:
        """The pair as it is on disk. `load_cert_chain` refuses a key of another certificate."""
        signature = self._signature()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password given, OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(self.certificate, self.key, password="")
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.client_ca)
        leaf = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        if signature != self._signature():
            raise ValueError("the files changed while they were read; reading them again")
        return Pair(context, leaf.not_valid_after_utc, signature)

    def _signature(self) -> Signature:
        files = (self.certificate, self.key, *(() if self.client_ca is None else (self.client_ca,)))
        stats = (path.stat() for path in files)
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _problem(self, error: Exception) -> Problem:
        missing = isinstance(error, FileNotFoundError) and error.filename
        what = f"{missing} is missing" if missing else f"certificate and key do not load: {error}"
        fix = f"both must be PEM, and {self.key} the key of this certificate"
        if self.client_ca is not None:
            fix += f"; {self.client_ca} must hold certificates of client CAs (PEM)"
        return Problem(str(self.certificate), 1, "", what, fix)

    def _refuse(self, problem: str) -> Changed | None:
        known, self.problem = problem == self.problem, problem
        return (
            None if known else Changed("certificate_refused", str(self.certificate), problem, True)
        )


def watch(*checks: Callable[[], Changed | None], interval: float = 1.0) -> None:
    """Run every check once per `interval`, in a daemon thread."""

    def run() -> None:
        while True:
            for check in checks:
                check()
            time.sleep(interval)

    threading.Thread(target=run, name="watch-files", daemon=True).start()
