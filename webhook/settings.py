"""The webhook's command line as one value. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

DEFAULT_CONTROLLER = "system:serviceaccount:ringfence-system:ringfence-controller"
"""Who writes generated objects, and the labels of namespaces that existed before."""

LEASE_NAME = "ringfence-controller"
"""Whoever holds it writes."""

FIELD_MANAGER = "ringfence"
"""Who Ringfence is to the API server's field ownership."""

TIMEOUT_SECONDS = 5
"""How long the API server waits for an answer; the controller registers it."""

CLOSED = "closed"
"""Last part of the path under which the webhook refuses while the tenant label's key changes."""

FILES_PAGE = "/tenant-files"
"""Path at the webhook's health port that lists the tenant files it has read, newest first."""

DRAIN_SECONDS = 3.0
REQUEST_SECONDS = float(TIMEOUT_SECONDS)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Fixed for the life of the process; the files that they name may change."""

    tenant_file: Path
    certificate: Path
    key: Path
    controller: str = DEFAULT_CONTROLLER
    drain_seconds: float = DRAIN_SECONDS
    """How long readiness fails while requests are still served, after SIGTERM."""
    request_seconds: float = REQUEST_SECONDS
    """How long a client may take to send one request."""
    policies: tuple[str, ...] = ()
    """Files and folders of Kyverno policies, and `cluster`."""
    kubeconfig: ApiServer = None
    """Kinds that policies may write beside those that they always may."""
    client_ca: Path | None = None
    """Who signs the certificates of clients; None: none is asked for."""
    client_names: tuple[str, ...] = ()
    """Common names of clients, of all that the CA signed."""
    allow_from: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of the API servers; without any, everybody may connect."""
    state_dir: Path | None = None
    """Where the last good tenant file is kept for the next start."""
