"""Which pods a node enforces, and how manifests say where they are."""

from __future__ import annotations

from generators.objects import Pod

INTERFACE_ANNOTATION = "ringfence.io/interface"
"""On a pod in a manifest: the name of its host-side veth in the agent's network namespace."""


def is_local(pod: Pod, node: str) -> bool:
    """Whether this node enforces the pod."""
    return pod.node == node and not pod.host_network and not pod.terminal
