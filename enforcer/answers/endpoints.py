"""The endpoints of this node: all of them, one with all that is known, and how each is doing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.agent.state import NodeState
from enforcer.answers.request import Json, endpoint_of
from enforcer.datapath.flows import reason_of
from enforcer.datapath.maps import Statistic
from enforcer.observe.names import Directory
from enforcer.policy.tables import AddressEntry, Dir, EndpointEntry, EndpointFlag
from generators.objects import Pod
from generators.reachability.verdicts import VERDICTS
from generators.tenants.model import Mode

ISOLATED: Mapping[Dir, EndpointFlag] = {
    Dir.INGRESS: EndpointFlag.ISOLATED_INGRESS,
    Dir.EGRESS: EndpointFlag.ISOLATED_EGRESS,
}


def endpoint_list(state: NodeState) -> list[Json]:
    """The endpoints in force, by id."""
    found = [
        _endpoint(state, ifindex, entry, pod)
        for ifindex, entry in state.tables.endpoints.items()
        if (pod := state.pods.get(ifindex)) is not None
    ]
    return sorted(found, key=lambda e: str(e["id"]).zfill(10))


def not_enforced(state: NodeState) -> list[Json]:
    """The local pods that are not enforced, and why."""
    found: list[Json] = []
    for key, reason in sorted(state.unenforced.items()):
        namespace, _, name = key.partition("/")
        found.append({"namespace": namespace, "pod": name, "reason": reason})
    return found


def adopting(state: NodeState, adoption: Mapping[int, float]) -> list[Json]:
    """The pods from before the first agent whose segments from the middle of a TCP connection may
    be answers, by name, and for how many seconds more.
    """
    known = [(state.pods[i], seconds) for i, seconds in adoption.items() if i in state.pods]
    return [
        {"namespace": pod.namespace, "pod": pod.name, "secondsLeft": round(seconds, 1)}
        for pod, seconds in sorted(known, key=lambda pair: pair[0].key)
    ]


def endpoint_get(
    state: NodeState,
    name: str,
    node: str,
    counted: Iterable[Statistic],
    adoption: Mapping[int, float],
) -> Json:
    """One endpoint: what isolates it, which revision it has, and its exact counts."""
    ifindex, entry, pod = endpoint_of(state, name)
    directory = Directory(state, node)
    isolating = {
        direction.name.lower(): _speakers(directory, directory.isolating(entry.group, direction))
        for direction in Dir
    }
    wall = directory.isolating(entry.wall, Dir.INGRESS) if entry.wall else ()
    return {
        **_endpoint(state, ifindex, entry, pod),
        "addresses": [*entry.ip4, *entry.ip6],
        "flags": [flag.name for flag in EndpointFlag if flag in entry.flags],
        "adoptionSecondsLeft": round(adoption.get(ifindex, 0.0), 1),
        "revision": _revisions(state),
        "isolatedBy": isolating,
        "tenantWall": _speakers(directory, wall),
        "counters": [
            _counter(state, directory, item) for item in counted if item.endpoint == entry.endpoint
        ],
    }


def endpoint_health(state: NodeState, name: str) -> Json:
    """Whether everything about an endpoint is as it should be, part by part."""
    if name in state.unenforced:
        parts = {"datapath": state.unenforced[name], "attached": "unknown", "policy": "unknown"}
        return {"endpoint": name, "healthy": False, **parts}
    ifindex, entry, pod = endpoint_of(state, name)
    revision = _revisions(state)
    parts = {
        "datapath": state.unenforced.get(pod.key, "OK"),
        "attached": state.attached.get(ifindex, "not attached"),
        "policy": "OK" if revision["desired"] == revision["realized"] else "behind: see errors",
    }
    healthy = parts["datapath"] == "OK" and ifindex in state.attached and parts["policy"] == "OK"
    return {
        "endpoint": pod.key,
        "id": entry.endpoint,
        "healthy": healthy,
        **parts,
        "revision": revision,
    }


def _revisions(state: NodeState) -> Mapping[str, int]:
    """Wanted and in force; they differ while the maps cannot take a change."""
    return {
        "desired": state.revision + ("datapath" in state.errors),
        "realized": state.revision,
    }


def _speakers(directory: Directory, names: Iterable[str]) -> list[Json]:
    return [{"name": s.name, "source": s.origin or None} for s in map(directory.speaker, names)]


def _counter(state: NodeState, directory: Directory, item: Statistic) -> Json:
    names = directory.isolating(item.group, item.direction) if item.group else ()
    return {
        "direction": item.direction.name,
        "verdict": VERDICTS[item.verdict].value,
        "reason": reason_of(item.reason).name,
        "rule": state.tables.rules.get(item.rule) if item.rule else None,
        "by": list(names),
        "packets": item.packets,
        "bytes": item.octets,
    }


def _endpoint(state: NodeState, ifindex: int, entry: EndpointEntry, pod: Pod) -> Json:
    address = next(iter((*entry.ip4, *entry.ip6)), "")
    labels = [f"k8s:{key}={value}" for key, value in sorted(pod.labels.items())]
    return {
        "id": entry.endpoint,
        "namespace": pod.namespace,
        "pod": pod.name,
        "tenant": state.tenants.get(pod.namespace),
        "identity": state.tables.addresses.get(address, AddressEntry(0)).identity,
        "policy": {
            "ingress": _enforcement(entry, Dir.INGRESS, state.mode),
            "egress": _enforcement(entry, Dir.EGRESS, None),
        },
        "labels": [*labels, f"k8s:io.kubernetes.pod.namespace={pod.namespace}"],
        "ipv6": next(iter(entry.ip6), None),
        "ipv4": next(iter(entry.ip4), None),
        "status": "not-ready" if pod.key in state.unenforced else "ready",
        "ifindex": ifindex,
        "attached": state.attached.get(ifindex),
        "group": entry.group,
        "wall": entry.wall,
        "generation": entry.generation,
    }


def _enforcement(entry: EndpointEntry, direction: Dir, wall: Mode | None) -> str:
    """Enabled, Disabled, or Disabled (Audit) where all that would be dropped is only reported."""
    isolated = ISOLATED[direction] in entry.flags
    walled = wall is not None and EndpointFlag.WALL in entry.flags
    if not isolated and not walled:
        return "Disabled"
    reports = EndpointFlag.AUDIT in entry.flags
    if direction is Dir.INGRESS:
        reports = reports or EndpointFlag.AUDIT_INGRESS in entry.flags
    if reports:
        return "Disabled (Audit)"
    if isolated:
        return "Enabled"
    return "Disabled (Audit)" if EndpointFlag.WALL_AUDIT in entry.flags else "Enabled"
