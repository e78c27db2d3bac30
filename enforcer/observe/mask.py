"""`--field-mask`: only some fields of each flow, named as Hubble names them.

Called by `observe` before a flow is printed as JSON or YAML. A path that our flows never have is
refused, and what is inside of a list cannot be named, as in protocol buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enforcer.observe.fields import Json
from enforcer.observe.filters import BadFilter
from enforcer.observe.shape import PROTOCOLS, TCP_FLAGS, Flow

Mask = Sequence[Sequence[str]]
"""Paths below `flow`; no part left means all that is there."""

_ENDPOINT = ("ID", "identity", "namespace", "labels", "pod_name", "workloads")
_SERVICE = ("name", "namespace")
_PORTS = ("source_port", "destination_port")


def _below(start: str, ends: Iterable[str]) -> Iterable[str]:
    return (f"{start}.{end}" for end in ends)


LEAVES = frozenset(
    (
        *("time", "uuid", "verdict", "drop_reason_desc", "Type", "node_name", "Summary"),
        *("traffic_direction", "is_reply", "policy_match_type"),
        *(f"{side}_{did}_by" for side in ("ingress", "egress") for did in ("allowed", "denied")),
        *_below("IP", ("source", "destination", "ipVersion")),
        *(
            path
            for name in PROTOCOLS.values()
            for path in _below(
                f"l4.{name}", ("type", "code") if name.startswith("ICMP") else _PORTS
            )
        ),
        *_below("l4.TCP.flags", TCP_FLAGS),
        *(path for end in ("source", "destination") for path in _below(end, _ENDPOINT)),
        *(path for end in ("source", "destination") for path in _below(f"{end}_service", _SERVICE)),
        *_below("event_type", ("type", "sub_type")),
        *_below("interface", ("index", "name")),
    )
)
"""Every field of a flow that has none below."""


def mask(values: Iterable[str]) -> Mask:
    """The mask of a flag's values; BadFilter where flows have no such field."""
    paths = [path.strip() for value in values for path in value.split(",")]
    for path in paths:
        if path not in LEAVES and not any(leaf.startswith(f"{path}.") for leaf in LEAVES):
            near = path.partition(".")[0]
            known = sorted(leaf for leaf in LEAVES if leaf.startswith(f"{near}."))
            known = known or sorted({leaf.partition(".")[0] for leaf in LEAVES})
            raise BadFilter("field-mask", path, f"flows have no such field; {', '.join(known)}")
    return [path.split(".") for path in paths]


def masked(line: Json, wanted: Mask) -> Flow:
    """A line with the wanted fields of its flow; losses as they are."""
    flow = line.get("flow")
    return {**line, "flow": _kept(flow, wanted)} if isinstance(flow, dict) else dict(line)


def _kept(value: Json, wanted: Mask) -> Flow:
    found: Flow = {}
    for key, item in value.items():
        below = [path[1:] for path in wanted if path[0] == key]
        if not below:
            continue
        if not all(below) or not isinstance(item, dict):
            found[key] = item
        elif kept := _kept(item, below):
            found[key] = kept
    return found
