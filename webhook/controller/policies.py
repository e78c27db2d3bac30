"""What a controller does about Kyverno policies: all of it with `--policies`, nothing without.

Made and driven by the controller. Rules behind requests are `background/work.py`; what is in force
and what the API server sends for it are `policies/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from generators.checks import Check
from generators.kube.client import Client
from generators.kube.discovery import Discovery
from generators.kube.events import Recorder
from generators.kube.reflector import ReflectorStats
from generators.objects import Namespace
from webhook import rbac
from webhook.background.work import BackgroundDeps, PolicyWork
from webhook.background.writer import Protection
from webhook.definitions import MissingKinds
from webhook.policies.book import PolicyBook
from webhook.policies.crds import documents
from webhook.policies.metrics import PoliciesInForce
from webhook.policies.registrar import PolicyRegistrar
from webhook.policies.standing_back import StandingBack


@dataclass(frozen=True, slots=True)
class PolicyDeps:
    """What the controller brings along."""

    client: Client
    fenced: Client
    namespace: str
    tenancy: Callable[[], Protection]
    leads: Callable[[], bool]
    changed: Callable[[], None]
    """Called when other policies are there."""
    registry: CollectorRegistry


class PolicyParts:
    """`begin` once this identity is known, `start`, `step` and `turn` from the loop, `stop`."""

    def __init__(
        self, around: PolicyDeps, sources: tuple[str, ...], *, install: bool, registered: bool
    ) -> None:
        """`install`: make both kinds where they are missing; `registered`: a webhook answers."""
        self._around = around
        self._kinds = MissingKinds(around.fenced, documents()) if install else None
        self.registrar: PolicyRegistrar | None = None
        self._book: PolicyBook | None = None
        self._work: PolicyWork | None = None
        self._standing_back: StandingBack | None = None
        if sources:
            limits = around.tenancy().limits
            book = self._book = PolicyBook(sources, around.client, limits, around.changed)
            around.registry.register(PoliciesInForce(book, lambda: book.current))
            if registered:
                self.registrar = PolicyRegistrar(book, Discovery(around.client))

    @property
    def rights(self) -> tuple[rbac.RbacRule, ...]:
        """What a controller may do besides."""
        return rbac.POLICY_KINDS if self._kinds is not None else ()

    def begin(self, recorder: Recorder, home: Callable[[], Namespace | None]) -> None:
        """What writes; `home` is the namespace where Events go."""
        if self._book is None:
            return
        around = self._around
        deps = BackgroundDeps(
            around.client,
            around.fenced,
            around.namespace,
            self._book,
            around.tenancy,
            recorder,
            around.leads,
            lambda: self.registrar.problem() if self.registrar is not None else "",
        )
        self._work = PolicyWork(deps, around.registry)
        self._standing_back = StandingBack(self._book, recorder, home)

    def start(self) -> None:
        """Begin to follow the cluster."""
        if self._work is not None:
            self._work.start()

    def stop(self) -> None:
        """End all threads; what is under way is finished."""
        if self._work is not None:
            self._work.stop()

    def lead(self) -> None:
        """Leading begins: take over where the last leader stopped."""
        if self._work is not None:
            self._work.lead()

    def follow(self) -> None:
        """Leading has ended."""
        if self._work is not None:
            self._work.follow()

    def limit(self) -> None:
        """Another tenant file is in force."""
        if self._book is not None:
            self._book.limit(self._around.tenancy().limits)

    def step(self) -> bool:
        """What a leader does, in each turn; whether the API server has to be told something."""
        if self._kinds is not None:
            self._kinds.step()
        if self._standing_back is not None:
            self._standing_back.step()
        return self.registrar is not None and self.registrar.stale

    def turn(self) -> None:
        """What every replica does, in each turn; it never raises for what the cluster refuses."""
        if self._work is not None:
            self._work.catch_errors()

    def summary(self) -> str:
        """What is in force, in a line."""
        return self._book.summary() if self._book is not None else ""

    @property
    def alive(self) -> bool:
        """Whether no worker has died."""
        return self._work is None or self._work.alive

    def stats(self) -> tuple[ReflectorStats, ...]:
        """Of everything that is followed for policies."""
        return self._work.reflector_stats() if self._work is not None else ()

    def checks(self) -> list[Check]:
        """For /readyz."""
        checks = self._work.checks() if self._work is not None else []
        return checks + (self.registrar.checks() if self.registrar is not None else [])
