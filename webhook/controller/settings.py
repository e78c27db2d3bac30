"""What a controller is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from generators.kube.lease import LeaseTiming
from generators.tenants.last_good import LastGood
from webhook.registration.configuration import WebhookTarget
from webhook.registration.guard import GuardTiming
from webhook.registration.rotation import Lifetimes


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Fixed for the life of the process."""

    tenant_file: Path
    namespace: str
    identity: str
    target: WebhookTarget | None = None
    certificate_directory: Path | None = None
    timing: GuardTiming = field(default_factory=GuardTiming)
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    lease: LeaseTiming = field(default_factory=LeaseTiming)
    issued_secret: str = ""
    """The Secret in which another tool maintains the webhook's certificates."""
    policies: tuple[str, ...] = ()
    """Files and folders of Kyverno policies, or the word `cluster`; empty = carry out none."""
    allowed_kinds: tuple[str, ...] = ()
    """What policies may write beside the kinds that they always may."""
    install_policy_kinds: bool = False
    """Make ClusterPolicy and Policy where they are missing."""
    cilium_policies: bool = False
    """Write whether Cilium's policies are valid into their status."""
    install_cilium_kinds: bool = False
    """Make their kinds where they are missing."""
    walls: bool = False
    """Keep the tenant wall as ClusterNetworkPolicies, too."""
    last_good: LastGood | None = None
    """Where the last good tenant file is kept for the next start."""
