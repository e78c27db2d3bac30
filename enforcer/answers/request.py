"""What answers share: how a request names an endpoint, and refusals."""

from __future__ import annotations

from collections.abc import Mapping

from enforcer.agent.state import NodeState
from enforcer.answers.control import Request
from enforcer.policy.tables import EndpointEntry
from generators.errors import RingfenceError
from generators.objects import Pod

Json = Mapping[str, object]


class NotHere(RingfenceError):
    """What was asked for does not exist on this node."""


def seconds(request: Request, longest: float) -> float:
    """The `timeout` of the request."""
    value = request.get("timeout")
    return min(float(value), longest) if isinstance(value, int | float) else 0.0


def endpoint_of(state: NodeState, name: str) -> tuple[int, EndpointEntry, Pod]:
    """Interface, entry and pod behind an id or `namespace/pod`; NotHere without."""
    for ifindex, entry in state.tables.endpoints.items():
        pod = state.pods.get(ifindex)
        if pod is not None and name in (str(entry.endpoint), pod.key):
            return ifindex, entry, pod
    reason = state.unenforced.get(name)
    if reason is not None:
        raise NotHere(f"{name} is not enforced: {reason}")
    raise NotHere(f"no endpoint {name} on this node; see `ringfence endpoint list`")
