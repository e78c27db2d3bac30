"""What a running webhook knows: settings, the files in force, whether it is draining, its metrics.

Made by the server before it forks and handed to the application factory; tests make their own.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from generators.tenants.last_good import LastGood
from webhook.policies.desk import PolicyDesk, PolicySettings
from webhook.reload import ServingCertificate, TenantFile
from webhook.serving.metrics import Metrics
from webhook.settings import WebhookSettings


class Draining:
    """A flag that the master process sets and its workers read: one byte of shared memory."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def begin(self) -> None:
        """Readiness fails from now on, and connections are closed after their answer."""
        self._byte[0] = 1

    @property
    def begun(self) -> bool:
        """Whether SIGTERM has come."""
        return self._byte[0] == 1


@dataclass(frozen=True, slots=True)
class WebhookState:
    """Shared by all threads of a worker; what changes in it is swapped whole."""

    settings: WebhookSettings
    tenants: TenantFile
    certificate: ServingCertificate
    draining: Draining
    metrics: Metrics
    policies: PolicyDesk | None = None
    """None without `--policies`."""


def load_state(settings: WebhookSettings) -> WebhookState:
    """Read the files; InvalidConfig or InputError when one of them cannot be served with."""
    kept = None if settings.state_dir is None else LastGood(settings.state_dir)
    tenants = TenantFile(settings.tenant_file, kept)
    certificate = ServingCertificate(settings.certificate, settings.key, settings.client_ca)
    metrics = Metrics(tenants, certificate)
    desk = _desk(settings, tenants)
    if desk is not None:
        desk.metrics.register(metrics.registry)
    return WebhookState(settings, tenants, certificate, Draining(), metrics, desk)


def _desk(settings: WebhookSettings, tenants: TenantFile) -> PolicyDesk | None:
    if not settings.policies:
        return None
    given = PolicySettings(settings.policies, settings.kubeconfig)
    return PolicyDesk(given, tenants, settings.controller)
