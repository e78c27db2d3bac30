"""Maintains our admission objects in the API server, and the certificates behind them.

The controller's registrar thread calls `step` while leading, and `files` always. Order within a
step: certificates into the Secret, their CAs into both webhook configurations, then the policies.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from generators.documents.json import mappings
from generators.kube.client import Client
from generators.kube.resources import SECRETS
from generators.process.logs import event
from webhook.controller.handover import Handover
from webhook.kept import SECRET_NAME, KeptObject
from webhook.policies.registrar import PolicyRegistrar
from webhook.policies.webhooks import NO_POLICIES
from webhook.registration import configuration
from webhook.registration.admission_policies import policies
from webhook.registration.certificates import write_files
from webhook.registration.configuration import Registrar, WantedRegistration, WebhookTarget
from webhook.registration.epoch import Epoch
from webhook.registration.guard import AdmissionGuard, TenantFileWish
from webhook.registration.issued import NotIssued, Overlap, read_issued
from webhook.registration.replicas import ReplicaQuestion, ask
from webhook.registration.rotation import (
    KeptSecret,
    Lifetimes,
    ServedCertificate,
    fingerprint,
    next_step,
    read,
)
from webhook.reload import TenantFile

LOG = logging.getLogger("ringfence.controller")
IDLE_SECONDS = 10.0
"""Everything is looked at again that often, whatever the watches say."""


@dataclass(frozen=True, slots=True)
class Where:
    """The command line's settings for the webhook."""

    target: WebhookTarget
    namespace: str
    directory: Path | None
    lifetimes: Lifetimes
    issued_secret: str = ""
    """The Secret in which another tool maintains the certificates; empty when we make them."""


class AdmissionKeeper:
    """One thread calls it."""

    def __init__(
        self,
        client: Client,
        guard: AdmissionGuard,
        registrar: Registrar,
        where: Where,
        controller: str,
        renewed: Callable[[str], None],
        policies: PolicyRegistrar | None = None,
    ) -> None:
        self._client = client
        self._guard = guard
        self._registrar = registrar
        self._where = where
        name = where.issued_secret or SECRET_NAME
        self._secret = KeptObject(client, SECRETS, where.namespace, name, "kubernetes.io/tls")
        self._controller = controller
        self._renewed = renewed
        self._policies = policies
        self._known = False
        judged = policies is not None and policies.judged
        self._for_policies = replace(NO_POLICIES, judged=judged)
        self._registered: dict[str, float] = {}
        self._filed = b""
        self._overlap = Overlap()
        self.kept: ServedCertificate | None = None
        self.validating: WantedRegistration | None = None

    def step(self, tenants: TenantFile, handover: Handover) -> float:
        """Bring everything to what it should be; seconds until the next step is due."""
        kept = self._adopt() if self._where.issued_secret else self._rotate()
        settled = self._look_at_policies()
        self.validating = self._wanted(kept)[0]
        due = self._guard.step(self._wish(kept, tenants, handover))
        mutating = self._wanted(kept, self._guard.registered)[1]
        if not settled:
            mutating = self._as_live(mutating)
        self._registrar.assert_all((mutating, *policies(handover.config, self._controller)))
        if settled and self._policies is not None:
            self._policies.registered(self._for_policies)
        now = time.monotonic()
        known = {fingerprint(authority) for authority in kept.authorities}
        self._registered = {f: self._registered.get(f, now) for f in known}
        return min(due, IDLE_SECONDS, self._where.lifetimes.leaf / 6)

    def _wish(
        self, kept: ServedCertificate, tenants: TenantFile, handover: Handover
    ) -> TenantFileWish:
        config, data = tenants.newest
        where, bundle = self._where, kept.bundle
        return TenantFileWish(
            config,
            data,
            lambda file, closed: self._wanted(kept, file, closed)[0],
            lambda file: ask(
                self._client, ReplicaQuestion(where.target, bundle, file, config.label_key)
            ),
            lambda: handover.to(config),
        )

    def resume(self) -> Epoch | None:
        """Leading begins: take over what another leader left; the epoch that still holds."""
        kept = self._read()
        self.validating = None if kept is None else self._wanted(kept)[0]
        self._registered = {}
        probe = (
            self.validating
            or configuration.webhooks(
                self._where.target, b"", self._controller, self._where.namespace
            )[0]
        )
        return self._guard.resume(probe)

    def files(self) -> None:
        """Write the files when the Secret has changed; every replica has its own."""
        directory = self._where.directory
        kept = self._read()
        if kept is None:
            return
        self.kept = kept
        whole = kept.bundle + kept.leaf.certificate + kept.leaf.key
        if directory is not None and (whole != self._filed or not _complete(directory)):
            write_files(directory, kept.bundle, kept.leaf)
            self._filed = whole

    def _wanted(
        self, kept: ServedCertificate, file: str = "", closed: bool = False
    ) -> tuple[WantedRegistration, WantedRegistration]:
        where = self._where
        return configuration.webhooks(
            where.target,
            kept.bundle,
            self._controller,
            where.namespace,
            self._for_policies,
            file,
            closed,
        )

    def _look_at_policies(self) -> bool:
        """Whether it is known what policies want to see; what they wanted last stays until then."""
        found = NO_POLICIES if self._policies is None else self._policies.wanted()
        if found is None:
            return self._known
        self._for_policies, self._known = found, True
        return True

    def _as_live(self, mutating: WantedRegistration) -> WantedRegistration:
        """While policies are not known yet, those of the last leader stay registered."""
        live = configuration.fetch(self._client, mutating)
        kept = [] if live is None else mappings(live, "webhooks")
        theirs = [dict(each) for each in kept if configuration.is_for_policies(each)]
        ours = [dict(each) for each in mappings(mutating.document, "webhooks")]
        return replace(mutating, document=mutating.document | {"webhooks": [*ours, *theirs]})

    def _read(self) -> ServedCertificate | None:
        if not self._where.issued_secret:
            return read(self._secret.read().data)
        try:
            return self._issued()
        except NotIssued:
            return None

    def _adopt(self) -> ServedCertificate:
        """Take the certificates of another tool; NotIssued until they exist."""
        self.kept = self._issued()
        self.files()
        return self.kept

    def _issued(self) -> ServedCertificate:
        """What their Secret holds, with the CAs that left it a moment ago."""
        where = self._where
        name = f"{where.namespace}/{where.issued_secret}"
        found = read_issued(self._secret.read().data, where.target.hosts, datetime.now(UTC), name)
        grace = where.lifetimes.propagate
        self._overlap = self._overlap.seen(found.authorities, time.monotonic(), grace)
        return replace(found, authorities=self._overlap.authorities)

    def _rotate(self) -> KeptSecret:
        where = self._where
        live = self._secret.read()
        data = live.data
        if self.kept is not None and not data.get("ca.crt"):
            # Webhooks still serve what was lost, and must stay trusted.
            data = {**data, "ca.crt": base64.b64encode(self.kept.bundle).decode("ascii")}
        step = next_step(
            data, where.target.hosts, datetime.now(UTC), where.lifetimes, self._trusted
        )
        if step.why:
            self._secret.write(step.kept.data(), live)
            event(LOG, "certificates_renewed", why=step.why)
            self._renewed(step.why)
        self.kept = step.kept
        self.files()
        return step.kept

    def _trusted(self, authority: str) -> bool:
        """By this process's steady clock: a jump of the wall clock must not shorten the wait."""
        since = self._registered.get(authority)
        return since is not None and time.monotonic() - since >= self._where.lifetimes.propagate


def _complete(directory: Path) -> bool:
    return all((directory / name).exists() for name in ("tls.crt", "tls.key", "ca.crt"))
