"""The agent's answers as text: endpoint table, status, and flows as a line each.

Called by cli.py with decoded JSON; shapes are those of Cilium's and Hubble's command lines, with
the tenant added and the deciding rule at the end. What may surprise: answers come from another
process, so nothing is taken for granted but that they are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

Json = Mapping[str, object]

GAP = "   "
HEAD = (
    ("ENDPOINT", ""),
    ("POLICY (ingress)", "ENFORCEMENT"),
    ("POLICY (egress)", "ENFORCEMENT"),
    ("IDENTITY", ""),
    ("NAMESPACE", ""),
    ("POD", ""),
    ("TENANT", ""),
    ("LABELS (source:key[=value])", ""),
    ("IPv6", ""),
    ("IPv4", ""),
    ("STATUS", ""),
)
LABELS = 7
RESERVED = {"1": "host", "2": "world", "6": "remote-node"}


def pretty(value: object) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2)


def mappings(value: object) -> Sequence[Json]:
    """The JSON objects of a list; nothing where it is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def endpoint_table(endpoints: Sequence[Json], *, headers: bool) -> str:
    """A table of endpoints, with one further line for each further label."""
    rows: list[Sequence[str]] = [*zip(*HEAD, strict=True)] if headers else []
    for item in endpoints:
        first, *more = [str(label) for label in _list(item, "labels")] or [""]
        rows.append(
            [
                _text(item, "id"),
                _text(item, "policy", "ingress"),
                _text(item, "policy", "egress"),
                _text(item, "identity"),
                _text(item, "namespace"),
                _text(item, "pod"),
                _text(item, "tenant"),
                first,
                _text(item, "ipv6"),
                _text(item, "ipv4"),
                _text(item, "status"),
            ]
        )
        rows += [["" if i != LABELS else label for i in range(len(HEAD))] for label in more]
    return _columns(rows)


def healthy(status: Json) -> bool:
    """Whether everything that should be enforced is, by good inputs."""
    return bool(status.get("ready")) and not status.get("errors") and not status.get("notEnforced")


def status_text(status: Json) -> str:
    """One screen: what is enforced, what is not, how full the maps are."""
    rows: list[Sequence[str]] = [
        ["Node", _text(status, "node")],
        ["Enforcement", "OK" if healthy(status) else _trouble(status)],
        ["Tenant wall", _text(status, "mode") or "off (no tenant file)"],
        ["Endpoints", f"{_text(status, 'endpoints')} ready"],
        ["Attached", _pairs(status.get("attached")) or "nothing"],
        ["Policy revision", _text(status, "revision")],
        ["Flows", _pairs(status.get("flows"))],
        ["Pins", _text(status, "pinDir")],
    ]
    for name, fill in sorted(_mapping(status, "maps").items()):
        if isinstance(fill, dict):
            rows.append([f"Map {name}", f"{fill.get('entries')} of {fill.get('capacity')}"])
    for source, error in sorted(_mapping(status, "errors").items()):
        rows.append([f"Error: {source}", str(error)])
    for pod in mappings(status.get("notEnforced")):
        rows.append(
            ["Not enforced", f"{pod.get('namespace')}/{pod.get('pod')}: {pod.get('reason')}"]
        )
    return _columns(rows).rstrip("\n")


def is_drop(line: Json) -> bool:
    """Whether a flow was dropped."""
    return _text(line, "flow", "verdict") == "DROPPED"


def monitor_line(line: Json) -> str:
    """A flow as `cilium monitor` prints it, and who decided."""
    number = _text(line, "flow", "uuid").replace("-", "")[:8]
    inward = _text(line, "flow", "traffic_direction") == "INGRESS"
    local, remote = ("destination", "source") if inward else ("source", "destination")
    endpoint = _text(line, "flow", local, "ID")
    path = f"{_address(line, 'source')} -> {_address(line, 'destination')} {_protocol(line)}"
    if is_drop(line):
        return (
            f"xx drop ({_reason(line)}) flow 0x{number} {'to' if inward else 'from'} endpoint "
            f"{endpoint}, , identity {_identity(line, 'source')}->{_identity(line, 'destination')}"
            f": {path}{_decider(line)}"
        )
    action = "audit" if _text(line, "flow", "verdict") == "AUDIT" else "allow"
    return (
        f"Policy verdict log: flow 0x{number} local EP ID {endpoint}, remote ID "
        f"{_identity(line, remote)}, {'ingress' if inward else 'egress'}, action {action}, "
        f"match {_reason(line)}, {path}{_decider(line)}"
    )


def compact_line(line: Json) -> str:
    """A flow as `hubble observe -o compact` prints it, and who decided."""
    direction = _text(line, "flow", "traffic_direction")
    verdict = _text(line, "flow", "verdict")
    kind = _reason(line) if is_drop(line) else f"policy-verdict:{_reason(line)} {direction}"
    ends = [f"{_name(line, end)} ({_known_as(line, end)})" for end in ("source", "destination")]
    summary = _text(line, "flow", "Summary")
    return (
        f"{_text(line, 'time')} [{_text(line, 'node_name')}]: {ends[0]} -> {ends[1]} "
        f"{kind} {verdict} ({summary}){_decider(line)}"
    )


def _trouble(status: Json) -> str:
    if not status.get("ready"):
        return "waiting for good inputs; what was in force before still is"
    return "degraded: the last good inputs are in force, see below"


def _reason(line: Json) -> str:
    return _text(line, "judgement", "reason").replace("_", " ").capitalize()


def _decider(line: Json) -> str:
    """The rule that decided, or the policies that isolate."""
    rule = _text(line, "judgement", "rule")
    policies = [str(policy) for policy in _list(_mapping(line, "judgement"), "policies")]
    if rule:
        return f" (rule {rule})"
    if is_drop(line) and policies:
        return f" (isolated by {', '.join(policies)})"
    return ""


def _identity(line: Json, end: str) -> str:
    number = _text(line, "flow", end, "identity")
    return RESERVED.get(number, number or "unknown")


def _known_as(line: Json, end: str) -> str:
    tenant = next(
        (
            str(label).removeprefix("tenant:name=")
            for label in _list(_mapping(line, "flow", end), "labels")
            if str(label).startswith("tenant:name=")
        ),
        "",
    )
    identity = _identity(line, end)
    if not identity.isdecimal():
        return identity
    return f"ID:{identity}, tenant {tenant}" if tenant else f"ID:{identity}"


def _name(line: Json, end: str) -> str:
    """`namespace/pod:port`, or the address where no pod is known."""
    pod = _text(line, "flow", end, "pod_name")
    if not pod:
        return _address(line, end)
    return f"{_text(line, 'flow', end, 'namespace')}/{pod}{_port(line, end)}"


def _address(line: Json, end: str) -> str:
    address = _text(line, "flow", "IP", end)
    port = _port(line, end)
    return f"[{address}]{port}" if ":" in address and port else f"{address}{port}"


def _port(line: Json, end: str) -> str:
    for ports in _mapping(line, "flow", "l4").values():
        if isinstance(ports, dict) and f"{end}_port" in ports:
            return f":{ports[f'{end}_port']}"
    return ""


def _protocol(line: Json) -> str:
    for name, detail in _mapping(line, "flow", "l4").items():
        flags = detail.get("flags") if isinstance(detail, dict) else None
        if isinstance(flags, dict):
            return f"{name.lower()} {', '.join(flags)}".strip()
        return name.lower()
    return _text(line, "flow", "Summary")


def _mapping(value: Json, *path: str) -> Json:
    found: object = value
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _list(value: Json, key: str) -> Sequence[object]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _text(value: Json, *path: str) -> str:
    found = _mapping(value, *path[:-1]).get(path[-1])
    return "" if found is None else str(found)


def _pairs(value: object) -> str:
    found = value.items() if isinstance(value, dict) else ()
    return ", ".join(f"{name} {count}" for name, count in found)


def _columns(rows: Iterable[Sequence[str]]) -> str:
    listed = list(rows)
    widths = [max(map(len, column), default=0) for column in zip(*listed, strict=True)]
    lines = (
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in listed
    )
    return "".join(f"{line}\n" for line in lines)
