"""Endpoints: which pods this node enforces, and behind which interface each of them is.

Called by the agent at each change and by the compiler. What may surprise: a pod without a known
interface is not an error but a fact to report, it appears in `ringfence status`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from generators.objects import Pod

INTERFACE_ANNOTATION = "ringfence.io/interface"
"""On a pod: the name of its host-side veth in the agent's network namespace."""


def is_local(pod: Pod, node: str) -> bool:
    """Whether this node enforces the pod."""
    return pod.node == node and not pod.host_network and not pod.terminal


@dataclass(frozen=True, slots=True)
class Found:
    """Local pods (`namespace/pod`) with their interface, and those without, with the reason."""

    interfaces: Mapping[str, int]
    missing: Mapping[str, str]


def find_interfaces(pods: Iterable[Pod], node: str, ifindex: Callable[[str], int | None]) -> Found:
    """Look up the interface of each local pod; `ifindex` gives None where there is none."""
    interfaces: dict[str, int] = {}
    missing: dict[str, str] = {}
    for pod in sorted((p for p in pods if is_local(p, node)), key=lambda p: p.key):
        name = pod.annotations.get(INTERFACE_ANNOTATION, "")
        if not name:
            missing[pod.key] = f"no interface known: no annotation {INTERFACE_ANNOTATION}"
            continue
        index = ifindex(name)
        if index is None:
            missing[pod.key] = f"no interface {name} in the agent's network namespace"
        elif index in interfaces.values():
            other = next(key for key, i in interfaces.items() if i == index)
            missing[pod.key] = f"interface {name} is already that of {other}"
        else:
            interfaces[pod.key] = index
    return Found(interfaces, missing)
