"""Whether a tenant label passed our webhook: how the controller learns what the webhook decided.

The webhook may write nothing but the label, so the label is the decision, if it was made while the
validating webhook was in force, and a forgery otherwise. epoch.py says what that means; here it is
begun, followed and stored, and survives restarts of the controller:

    broken ──► settling: refuses for a while ──► inventory, written down ──► in force
       ▲                                                                       │   │
       └──────── somebody else edited or deleted the configuration ────────────┘   │
    in force under the next file ◄── settling ◄── changing: every replica has read it

Our own edits (a new CA, another tenant file) are announced in the written epoch before they are
made. The next tenant file is another path; where it has another key for the tenant label, the
webhook refuses under that path until the file is in force.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from generators.documents.json import Document, meta_of
from generators.kube.client import Client
from generators.kube.resources import CONFIG_MAPS
from generators.objects import Namespace
from generators.process.logs import event
from generators.tenants.model import TenantConfig
from generators.tenants.packed import GUARD_NAME, packed
from webhook.kept import KeptObject
from webhook.registration import configuration
from webhook.registration.configuration import Registrar, WantedRegistration
from webhook.registration.epoch import Epoch, Unproven, digest, former_keys, generation_of
from webhook.registration.probing import LABEL_PASSED, refusal
from webhook.registration.replicas import Replica

LOG = logging.getLogger("ringfence.controller")
CHANGE_SECONDS = 0.5
"""How often replicas are asked while a tenant file waits for them."""


class GuardState(StrEnum):
    """What is known about admission."""

    OFF = "off"
    """No webhook is registered by this controller: labels prove nothing."""
    BROKEN = "broken"
    SETTLING = "settling"
    IN_FORCE = "in-force"
    CHANGING = "changing"
    """In force by the former tenant file; the next one waits."""


class Vouched(Enum):
    """What admission can vouch for at a namespace."""

    LABEL = "label"
    GRANTS = "grants"


class AnotherFile(Exception):
    """The question was asked by a tenant file that is not the one in force."""


@dataclass(frozen=True, slots=True)
class GuardTiming:
    """How long the probe must be rejected before admission is trusted, and a webhook may lag."""

    settle_seconds: float = 5.0
    replica_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class TenantFileWish:
    """The tenant file that should be in force, and how it gets there."""

    config: TenantConfig
    data: bytes
    register: Callable[[str, bool], WantedRegistration]
    """The validating configuration for a file's digest; True: closed."""
    replicas: Callable[[str], list[Replica]]
    """What each replica of the webhook reports about the file with that digest."""
    hand_over: Callable[[], AbstractContextManager[Unproven]]
    """Inside: work is paused, and what the file before decided is recorded; gives what is
    unproven. Left without an error: the file is in force."""


class AdmissionGuard:
    """Registers the validating webhook and vouches for labels. One thread steps, many ask."""

    def __init__(
        self, client: Client, namespace: str, registrar: Registrar, timing: GuardTiming
    ) -> None:
        self._client = client
        self._kept = KeptObject(client, CONFIG_MAPS, namespace, GUARD_NAME)
        self._registrar = registrar
        self._timing = timing
        self._lock = threading.Lock()
        self._epoch: Epoch | None = None
        self._written: Epoch | None = None
        self._candidate: tuple[str, int, str] | None = None
        self._refused_since = 0.0
        self._wished = ("", 0.0)
        self._told = ("", "")
        self._looked_at = float("-inf")
        self._covered = False
        self._exempt = frozenset(configuration.exempt(namespace))
        self.registered = ""
        """Digest of the tenant file by which the webhook is asked to decide."""
        self.state = GuardState.OFF
        self.probe = "not asked yet"
        """What the API server answered to the last attempt that must be refused."""
        self.behind: tuple[str, ...] = ()
        """Replicas of the webhook that have not read the file that is wanted."""

    # --- for workers ----------------------------------------------------------------------------

    def proven(
        self,
        want: WantedRegistration | None,
        namespace: Namespace,
        file: str,
        what: Vouched = Vouched.LABEL,
    ) -> bool:
        """Whether the label (or the grants) of a namespace, as seen, passed the webhook by tenant
        file `file`; AnotherFile while another one is in force.

        Asks the API server now: seeing the label first and the configuration afterwards cannot miss
        that admission was switched off before the label was set.
        """
        asked = time.monotonic()
        with self._lock:
            epoch = self._epoch
            if want is None or epoch is None:
                return False
            if epoch.file != file:
                raise AnotherFile
            older = epoch.unproven if what is Vouched.LABEL else epoch.unproven_grants
            if namespace.name in self._exempt or namespace.uid in older:
                return False
            # One answer serves all that wait: it was asked for after each of them had seen
            # its label.
            if self._looked_at <= asked:
                began = time.monotonic()
                live = configuration.fetch(self._client, want)
                self._looked_at, self._covered = began, epoch.covers(live) is not None
            return self._covered

    def corrected(self, uid: str) -> None:
        """The label was set right: from now on it changes by admission only."""
        with self._lock:
            if self._epoch is not None and uid in self._epoch.unproven:
                self._epoch = replace(self._epoch, unproven=self._epoch.unproven - {uid})

    def withdrawn(self, uid: str) -> None:
        """The grants of a namespace are gone: what it says next was let through."""
        with self._lock:
            if self._epoch is not None and uid in self._epoch.unproven_grants:
                left = self._epoch.unproven_grants - {uid}
                self._epoch = replace(self._epoch, unproven_grants=left)

    @property
    def epoch(self) -> Epoch | None:
        """The one that goes on; also while the next tenant file waits."""
        with self._lock:
            return self._epoch

    @property
    def unproven(self) -> int:
        """How many labels are older than the epoch and not settled yet."""
        epoch = self._epoch
        return 0 if epoch is None else len(epoch.unproven)

    # --- for the one that steps -----------------------------------------------------------------

    def resume(self, want: WantedRegistration | None) -> Epoch | None:
        """Leading begins: take up the epoch that is written down, if it has not been broken."""
        self._candidate = None
        self._set(None)
        self._written = None
        self.state = GuardState.OFF if want is None else GuardState.BROKEN
        if want is None:
            return None
        self._written = Epoch.parse(self._kept.read().data)
        if self._written is not None:
            self._set(self._written.covers(configuration.fetch(self._client, want)))
        if self._epoch is not None:
            self.state = GuardState.IN_FORCE
        return self._epoch

    def step(self, wish: TenantFileWish) -> float:
        """Assert the configuration and advance; seconds after which the next step is due."""
        file = wish.config.digest
        self._follow(configuration.fetch(self._client, wish.register(file, False)))
        epoch, replicas = self._epoch, wish.replicas(file)
        if epoch is not None and epoch.file == file:
            self.behind = _addresses(r for r in replicas if r.decided != file)
            self._assert(wish.register(file, False), file)
            return self._stay() if self._epoch is not None else 0.1
        self.behind = _addresses(r for r in replicas if r.newest != file)
        if epoch is not None and not self._everywhere(file):
            self._assert(wish.register(epoch.file, False), epoch.file)
            self.state = GuardState.CHANGING
            self._write()
            return CHANGE_SECONDS
        closed = epoch is not None and epoch.label_key != wish.config.label_key
        live = self._assert(wish.register(file, closed), file)
        return self._settle_down(live, wish)

    def _set(self, epoch: Epoch | None) -> None:
        with self._lock:
            self._epoch = epoch
            self._looked_at = float("-inf")

    def _follow(self, live: Document | None) -> None:
        """The configuration as it is: does the epoch go on?"""
        with self._lock:
            epoch = self._epoch
            # Workers may have corrected labels meanwhile; nobody else advances generations.
            self._epoch = None if epoch is None else epoch.covers(live)
            if self._epoch is not None or epoch is None:
                return
            self._looked_at = float("-inf")
        event(LOG, "admission_gap", logging.ERROR, uid=epoch.uid)
        self.state = GuardState.BROKEN

    def _assert(self, want: WantedRegistration, file: str) -> Document:
        """Have the configuration as wanted; our own edit is announced before it is made."""
        live, differing = self._registrar.needs(want)
        if differing:
            self._announce(want)
            live = self._registrar.write(want, live)
            self._follow(live)
        self.registered = file
        return live or {}

    def _announce(self, want: WantedRegistration) -> None:
        """Write down what our own edit will look like: a crash must not look like theirs."""
        with self._lock:
            if self._epoch is None:
                return
            self._epoch = replace(self._epoch, announced=digest(want.document))
        self._write()

    def _stay(self) -> float:
        self.state = GuardState.IN_FORCE
        self._keep()
        self._write()
        return float("inf")

    def _keep(self) -> None:
        """What is written down stays so while we run: a leader after us goes by it."""
        if self._written is not None and Epoch.parse(self._kept.read().data) != self._written:
            event(LOG, "guard_put_back", logging.WARNING, name=GUARD_NAME)
            self._written = None

    def _everywhere(self, file: str) -> bool:
        """Whether every replica has read the file, or has had its time."""
        if not self.behind:
            return True
        self.probe = f"{', '.join(self.behind)} have not read the tenant file yet"
        return self._overdue(file, "replicas_behind")

    def _overdue(self, file: str, what: str) -> bool:
        """Whether webhooks had long enough to read a tenant file; logged the first time."""
        now = time.monotonic()
        if self._wished[0] != file:
            self._wished = (file, now)
        late = now - self._wished[1] - self._timing.replica_seconds
        if late >= 0 and self._told != (what, file):
            self._told = (what, file)
            event(LOG, what, logging.ERROR, replicas=list(self.behind), problem=self.probe)
        return late >= 0

    def _settle_down(self, live: Document, wish: TenantFileWish) -> float:
        now = time.monotonic()
        candidate = (meta_of(live).uid, generation_of(live), wish.config.digest)
        refused = self._refuses(wish.config, candidate)
        if not refused or candidate != self._candidate:
            self._candidate, self._refused_since = candidate, now
        self.state = GuardState.SETTLING
        left = self._refused_since + self._timing.settle_seconds - now
        if not refused or left > 0:
            return max(0.1, min(left, 1.0))
        with wish.hand_over() as unproven:
            key, file = wish.config.label_key, wish.config.digest
            text = packed(wish.data)
            former = former_keys(self._epoch or self._written, wish.config)
            epoch = Epoch(
                *candidate[:2], key, file, "", unproven.labels, former, text, unproven.grants
            )
            self._write(epoch)
            self._set(epoch)
        self.state = GuardState.IN_FORCE
        self._assert(wish.register(file, False), file)
        event(LOG, "admission_in_force", uid=candidate[0], unproven=len(unproven.labels), file=file)
        return 0.0

    def _refuses(self, config: TenantConfig, candidate: tuple[str, int, str]) -> bool:
        """Whether the API server refuses what it must, without changing anything.

        Where a file follows another, a webhook that has read it must have refused, unless none has
        for too long: a webhook that has not read it refuses everything.
        """
        found = refusal(self._client, config.label_key)
        if found is None:
            self.probe = LABEL_PASSED
            return False
        self.probe = found.message
        if "webhook" not in found.message:
            return False
        if self._epoch is None or config.digest in found.files:
            return True
        return self._overdue(config.digest, "no_refusal_by_this_file")

    def _write(self, epoch: Epoch | None = None) -> None:
        epoch = epoch or self._epoch
        if epoch is None or epoch == self._written:
            return
        self._kept.write(epoch.data(), self._kept.read())
        self._written = epoch


def _addresses(replicas: Iterable[Replica]) -> tuple[str, ...]:
    return tuple(sorted({replica.address for replica in replicas}))


def problem(guard: AdmissionGuard) -> str:
    """What is wrong with admission at the moment; empty if nothing worth reporting."""
    if guard.state in (GuardState.OFF, GuardState.IN_FORCE):
        behind = ", ".join(guard.behind)
        return (
            f"admission: refused by {behind}, which have not read the tenant file" if behind else ""
        )
    return f"admission is {guard.state.value}: {guard.probe}"
