"""What the command line of the webhook says, as one value. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_CONTROLLER = "system:serviceaccount:ringfence-system:ringfence-controller"
"""Who writes generated objects, and the labels of namespaces that existed before."""

LEASE_NAME = "ringfence-controller"
"""Whoever holds it writes."""

FIELD_MANAGER = "ringfence"
"""Who Ringfence is to the API server's field ownership."""

DRAIN_SECONDS = 3.0
REQUEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
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
    kubeconfig: str | None = None
    allowed_kinds: tuple[str, ...] = ()
    """Kinds that policies may write beside those that they always may."""
