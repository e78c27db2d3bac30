"""Lines of flow JSON as the agent prints them, for tests of filters and printers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

Line = dict[str, object]

WEB: Mapping[str, object] = {
    "ID": 12,
    "identity": 15194,
    "namespace": "red-dev",
    "labels": ["k8s:app=web", "k8s:tier=front", "tenant:name=red"],
    "pod_name": "web-0",
}
API: Mapping[str, object] = {
    "ID": 211,
    "identity": 15435,
    "namespace": "blue-dev",
    "labels": ["k8s:app=api", "tenant:name=blue"],
    "pod_name": "api-7c9",
}
SYN: Mapping[str, object] = {
    "TCP": {"source_port": 60556, "destination_port": 8082, "flags": {"SYN": True}}
}


def line(
    verdict: str = "DROPPED",
    reason: str = "POLICY_DENIED",
    *,
    direction: str = "INGRESS",
    l4: Mapping[str, object] | None = None,
    second: int = 0,
    reply: bool | None = False,
    source: Mapping[str, object] | None = None,
    speakers: list[Mapping[str, object]] | None = None,
    family: int = 4,
    match: int = 0,
    source_workload: Mapping[str, object] | None = None,
    destination_service: Mapping[str, object] | None = None,
    interface: Mapping[str, object] | None = None,
) -> Line:
    """A TCP SYN from red-dev/web-0, or from `source`, to blue-dev/api-7c9."""
    time = f"2026-01-05T10:00:{second:02}.123456789Z"
    addresses = ("10.0.1.7", "10.0.1.185") if family == 4 else ("fd00::7", "fd00::185")
    did = "allowed" if verdict == "FORWARDED" else "denied"
    flow: Line = {
        "time": time,
        "uuid": "48357586-0000-4000-8000-000000000000",
        "verdict": verdict,
        "IP": dict(
            zip(("source", "destination", "ipVersion"), (*addresses, f"IPv{family}"), strict=True)
        ),
        "l4": l4 or SYN,
        "source": WEB if source is None else source,
        "destination": API,
        "Type": "L3_L4",
        "node_name": "node1",
        "event_type": {"type": 1 if verdict == "DROPPED" else 5, "sub_type": 0},
        "traffic_direction": direction,
        "Summary": "TCP Flags: SYN",
    }
    if reply is not None:
        flow["is_reply"] = reply
    if verdict != "FORWARDED":
        flow["drop_reason_desc"] = reason
    if speakers:
        flow[f"{direction.lower()}_{did}_by"] = speakers
    if match:
        flow["policy_match_type"] = match
    if source_workload:
        flow["source"] = {**cast(Line, flow["source"]), "workloads": [source_workload]}
    if destination_service:
        flow["destination_service"] = destination_service
    if interface:
        flow["interface"] = interface
    return {"flow": flow, "node_name": "node1", "time": time}


def policy(name: str, rule: str = "", origin: str = "") -> Mapping[str, object]:
    """A reference to a policy of blue-dev."""
    labels = [f"ringfence:rule=blue-dev/{name}#{rule}"] if rule else []
    labels += [f"ringfence:source={origin}"] if origin else []
    return {"name": name, "namespace": "blue-dev", "kind": "NetworkPolicy", "labels": labels}


WALL: Mapping[str, object] = {
    "name": "blue",
    "kind": "Tenant",
    "labels": ["ringfence:rule=tenant/blue#wall", "ringfence:source=tenants.yaml:14"],
}
WORLD: Mapping[str, object] = {"identity": 2, "labels": ["reserved:world"]}
