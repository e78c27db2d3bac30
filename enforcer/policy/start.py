"""How a pod starts: what it may do between its first packet and the moment its policy is known.

The agent calls `provisional` for the endpoint of an attached interface whose pod it does not know
yet; the programs are on the interface by then. In every mode a pod whose policy is known but cannot
be written stays closed, and so does one whose namespace is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.policy.changes import Attachment
from enforcer.policy.modes import StartMode
from enforcer.policy.tables import EndpointEntry, EndpointFlag

NONE = EndpointFlag(0)


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known about the namespace of an unknown pod."""

    endpoint: int
    """The id that the endpoint is to have."""
    tenant: int = 0
    """Tenant id by the controller's record; 0 = none."""
    wall: int = 0
    """Group of the tenant wall; 0 = none."""
    flags: EndpointFlag = NONE
    """As `wall_flags` gives them, and what the group of the wall needs."""
    generation: int = 1


def provisional(
    attachment: Attachment, ground: Ground | None, mode: StartMode
) -> EndpointEntry | None:
    """The endpoint until the pod is known; None: closed. `ground` None: an unknown namespace."""
    if mode is StartMode.STRICT or ground is None:
        return None
    flags = EndpointFlag.READY
    walled = mode is StartMode.TENANT_DEFAULT
    if walled:
        flags |= ground.flags
    return EndpointEntry(
        endpoint=ground.endpoint,
        group=0,
        wall=ground.wall if walled else 0,
        tenant=ground.tenant,
        generation=ground.generation,
        flags=flags,
        ip4=tuple(ip for ip in attachment.ips if ":" not in ip),
        ip6=tuple(ip for ip in attachment.ips if ":" in ip),
    )
