"""One leader among several processes, by a Lease of the API server.

The owner asks `leading` before each write. The answer turns to no by itself, without the API
server and by this machine's own steady clock, before another process may take over. Times in the
Lease are for people only: a rival is taken for dead when its Lease has not changed for a while as
we saw it, so clocks may differ or jump. A leader that stops hands over at once.
"""

from __future__ import annotations

import datetime
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from generators.checks import Check, bridged, failed, good
from generators.documents.json import Document, integer, mapping, resource_version_of, text
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.errors import Conflict, NotFound
from generators.kube.resources import LEASES

LOG = logging.getLogger(__name__)
MANAGER = "ringfence-leader"


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """In seconds; `renew_within` must be well below `duration`, the difference is the safety."""

    duration: float = 15.0
    renew_within: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A rival's Lease, and since when it has looked like that."""

    version: str
    since: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Who holds a Lease, as this candidate knows it."""

    holder: str
    ours: bool
    """Whether the holder is this candidate."""
    silent: float
    """Seconds since the API server confirmed it."""
    stale: bool
    """Whether that is longer than a Lease lasts."""

    def check(self) -> Check:
        """Of a candidate that does not lead. One that held the Lease last has lost it and is not a
        standby; news of another holder may be old."""
        silence = f"the API server has not answered about the Lease for {self.silent:.0f} s"
        if self.ours or not self.holder:
            return failed("no leader is known", silence if self.stale else "")
        if self.stale:
            return bridged(f"standby; {self.holder} led when last heard from, {silence}")
        return good(f"standby of {self.holder}")


class Leadership:
    """A candidate: `start` it, ask `leading`, `stop` it."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        changed: Callable[[bool], None] = lambda _: None,
        timing: LeaseTiming | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._changed = changed
        self._timing = timing or LeaseTiming()
        self._valid_until = 0.0
        self._led = False
        self._seen: _Seen | None = None
        self.holder = ""
        """The holder when the API server last answered."""
        self._heard = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{name}", daemon=True)

    @property
    def leading(self) -> bool:
        """Whether a write that begins now is ours to make."""
        return time.monotonic() < self._valid_until

    @property
    def standing(self) -> Standing:
        """What is known about the Lease now."""
        silent = time.monotonic() - self._heard
        stale = silent > self._timing.duration
        return Standing(self.holder, self.holder == self._identity, silent, stale)

    def start(self) -> None:
        """Begin to ask for the Lease."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Give it up; another candidate leads within its retry interval."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._valid_until = 0.0
        self._tell()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._attempt()
            except RingfenceError as error:
                # Nothing is lost yet: `leading` ends by itself when this goes on.
                LOG.warning("lease_not_renewed lease=%s error=%s", self._name, error)
            self._tell()
            self._stopping.wait(self._pause())
        if self.leading:
            self._release()

    def _pause(self) -> float:
        """Until the next attempt, but not past the moment at which leading ends."""
        spread = self._timing.retry * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
        left = self._valid_until - time.monotonic()
        return min(spread, left) if left > 0 else spread

    def _tell(self) -> None:
        leading = self.leading
        if leading is not self._led:
            self._led = leading
            LOG.info(
                "leader_changed lease=%s leading=%s holder=%s", self._name, leading, self.holder
            )
            self._changed(leading)

    def _attempt(self) -> None:
        began = time.monotonic()
        try:
            lease = self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            self._client.create(LEASES, self._document({}, transitions=0), manager=MANAGER)
            self._won(began)
            return
        spec = mapping(lease, "spec")
        self._heard = time.monotonic()
        self.holder = text(spec, "holderIdentity")
        ours = self.holder == self._identity
        if not ours and not self._abandoned(lease):
            self._valid_until = 0.0
            return
        transitions = (integer(spec, "leaseTransitions") or 0) + (not ours)
        try:
            renewed = self._document(lease, transitions)
            self._client.update(LEASES, renewed, manager=MANAGER)
        except Conflict:
            # Another candidate was faster; the next look tells who.
            self._valid_until = 0.0
            return
        self._won(began)

    def _won(self, began: float) -> None:
        # Counted from before the request: rivals count from after they have seen its effect.
        self._valid_until = began + self._timing.renew_within
        self._heard = time.monotonic()
        self.holder = self._identity
        self._seen = None

    def _abandoned(self, lease: Document) -> bool:
        """Whether the holder has let its Lease go, or let it lie for its whole duration."""
        if not self.holder:
            return True
        version, now = resource_version_of(lease), time.monotonic()
        if self._seen is None or self._seen.version != version:
            self._seen = _Seen(version, now)
        promised = integer(mapping(lease, "spec"), "leaseDurationSeconds")
        return now - self._seen.since > (promised or self._timing.duration)

    def _document(self, lease: Document, transitions: int) -> Document:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(mapping(lease, "spec"))
        if text(spec, "holderIdentity") != self._identity:
            spec["acquireTime"] = now
        spec |= {
            "holderIdentity": self._identity,
            # The API takes whole seconds; rounding up keeps rivals waiting longer, never shorter.
            "leaseDurationSeconds": int(self._timing.duration + 0.999),
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        meta = dict(mapping(lease, "metadata"))
        meta |= {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": meta,
            "spec": spec,
        }

    def _release(self) -> None:
        self._valid_until = 0.0
        try:
            lease = self._client.get(LEASES, self._name, self._namespace)
            spec = dict(mapping(lease, "spec"))
            if text(spec, "holderIdentity") == self._identity:
                spec |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._client.update(LEASES, lease | {"spec": spec}, manager=MANAGER)
        except RingfenceError as error:
            LOG.warning("lease_not_released lease=%s error=%s", self._name, error)
