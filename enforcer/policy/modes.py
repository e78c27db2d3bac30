"""The start modes of pods: all that the command line has to know of `start.py`."""

from __future__ import annotations

from enum import StrEnum


class StartMode(StrEnum):
    """What passes before the policy of a pod is known."""

    STRICT = "strict"
    """Nothing: the packets are dropped with reason 203."""
    TENANT_DEFAULT = "tenant-default"
    """What the tenant wall lets in: own tenant, shared components, consented grants."""
    OPEN = "open"
    """Everything but a forged source, counted by the programs as not isolated."""
