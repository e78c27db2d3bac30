"""Flows as text: the lines of `cilium monitor` and `hubble observe`, and what decided.

The last parenthesis is ours. It names the rule that decided with the line of the file that it comes
from, the policies that isolate, or at least the endpoint and its tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from enforcer.observe import fields
from enforcer.observe.fields import End, EventKind, Json
from enforcer.observe.names import MatchType
from generators.documents.json import shown

SHOWN = {
    "FORWARDED": "ALLOWED",
    "DROPPED": "DENIED",
    "AUDIT": "AUDITED",
    "REDIRECTED": "REDIRECTED",
}
"""Verdicts on policy-verdict events."""
ACTIONS = {"AUDIT": "audit", "REDIRECTED": "redirect"}
MATCHES = {
    MatchType.NONE: "none",
    MatchType.L3_ONLY: "L3-Only",
    MatchType.L3_L4: "L3-L4",
    MatchType.L4_ONLY: "L4-Only",
    MatchType.ALL: "all",
    MatchType.L3_PROTO: "L3-Proto",
    MatchType.PROTO_ONLY: "Proto-Only",
}
HEADS = ("TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY")
SEPARATOR = "------------"


class TimeFormat(StrEnum):
    """How much of a time is printed."""

    RFC3339_NANO = "RFC3339Nano"
    RFC3339 = "RFC3339"
    STAMP_MILLI = "StampMilli"


@dataclass(frozen=True, slots=True)
class LineStyle:
    """What a line shows."""

    node: bool = True
    policies: bool = True
    numeric: bool = False
    time: TimeFormat = TimeFormat.RFC3339_NANO


def is_loss(line: Json) -> bool:
    """Whether it reports lost events."""
    return "lost_events" in line


def loss(line: Json) -> str:
    """Lost events, in words."""
    source, count = (shown(line, "lost_events", k) for k in ("source", "num_events_lost"))
    return f"EVENTS LOST: {source} {count}"


def monitor(line: Json, style: LineStyle = LineStyle()) -> str:
    """A flow as `cilium monitor` prints it, and who decided."""
    if is_loss(line):
        return loss(line)
    hashed = shown(line, "flow", "uuid").replace("-", "")[:8]
    inward = fields.local(line) is End.DESTINATION
    endpoint = shown(line, "flow", fields.local(line), "ID") or "0"
    path = f"{_socket(line, End.SOURCE)} -> {_socket(line, End.DESTINATION)} {_protocol(line)}"
    ended = decider(line) if style.policies else ""
    if fields.event(line) is EventKind.DROP:
        ends = "->".join(_identity(line, end, style) for end in End)
        return (
            f"xx drop ({words(fields.reason(line))}) flow 0x{hashed} {'to' if inward else 'from'} "
            f"endpoint {endpoint}, , identity {ends}: {path}{ended}"
        )
    if fields.event(line) is EventKind.L7:
        return (
            f"-> Request http from {endpoint} ({_identity(line, End.SOURCE, style)}->"
            f"{_identity(line, End.DESTINATION, style)}), verdict "
            f"{shown(line, 'flow', 'verdict').capitalize()} "
            f"{shown(line, 'flow', 'Summary')}{ended}"
        )
    action = ACTIONS.get(shown(line, "flow", "verdict"), "allow")
    return (
        f"Policy verdict log: flow 0x{hashed} local EP ID {endpoint}, remote ID "
        f"{_identity(line, fields.remote(line), style)}, proto {_number(line)}, "
        f"{'ingress' if inward else 'egress'}, action {action}, auth: disabled, "
        f"match {MATCHES[fields.match(line)]}, {path}{ended}"
    )


def compact(line: Json, style: LineStyle = LineStyle()) -> str:
    """A flow as `hubble observe -o compact` prints it, and who decided."""
    node = f" [{shown(line, 'node_name')}]" if style.node else ""
    if is_loss(line):
        return f"{_time(line, style)}{node}: {loss(line)}"
    reply = fields.is_reply(line)
    ends = [f"{_host(line, end, style)} ({_known_as(line, end, style)})" for end in End]
    first, last = reversed(ends) if reply else ends
    arrow = "<>" if reply is None else "<-" if reply else "->"
    return (
        f"{_time(line, style)}{node}: {first} {arrow} {last} {kind(line)} {verdict(line)} "
        f"({shown(line, 'flow', 'Summary')}){decider(line) if style.policies else ''}"
    )


def cells(line: Json, style: LineStyle) -> Sequence[str]:
    """The row of a table, under HEADS (and NODE)."""
    node = [shown(line, "node_name")] if style.node else []
    if is_loss(line):
        return [_time(line, style), *node, "", "", loss(line), "", ""]
    summary = shown(line, "flow", "Summary") + (decider(line) if style.policies else "")
    ends = [_host(line, end, style) for end in End]
    return [_time(line, style), *node, *ends, kind(line), verdict(line), summary]


def heads(style: LineStyle) -> Sequence[str]:
    """The names of the columns."""
    return [HEADS[0], *(["NODE"] if style.node else []), *HEADS[1:]]


def block(line: Json, style: LineStyle) -> str:
    """A flow as lines of `KEY: value`."""
    pairs = zip(heads(style), cells(line, style), strict=True)
    return "\n".join(f"{head:>11}: {cell}" for head, cell in pairs)


def kind(line: Json) -> str:
    """The TYPE column."""
    if fields.event(line) is EventKind.DROP:
        return words(fields.reason(line))
    if fields.event(line) is EventKind.L7:
        return "http-request"
    direction = shown(line, "flow", "traffic_direction")
    return f"policy-verdict:{MATCHES[fields.match(line)]} {direction}"


def verdict(line: Json) -> str:
    """The VERDICT column."""
    found = shown(line, "flow", "verdict")
    return SHOWN.get(found, found) if fields.event(line) is EventKind.POLICY_VERDICT else found


def words(name: str) -> str:
    """POLICY_DENIED as people say it."""
    return name.replace("_", " ").capitalize()


def decider(line: Json) -> str:
    """Who decided, in parentheses."""
    named = [f"{name} at {origin}" if origin else name for name, origin in fields.deciders(line)]
    if fields.rule(line):
        return f" (rule {named[0]})"
    refused = shown(line, "flow", "verdict") in ("DROPPED", "AUDIT")
    if not refused:
        return ""
    if named and fields.reason(line).startswith(("POLICY", "UNKNOWN", "L7")):
        return f" (isolated by {', '.join(named)})"
    near = fields.local(line)
    tenant = fields.tenant(line, near)
    owner = fields.pod(line, near) or f"id {shown(line, 'flow', near, 'ID') or 'unknown'}"
    return f" (endpoint {owner}{f', tenant {tenant}' if tenant else ''})"


def _time(line: Json, style: LineStyle) -> str:
    """Hubble's formats; a time is text that begins with the date and ends with the fraction."""
    moment = shown(line, "time")
    if style.time is TimeFormat.RFC3339_NANO:
        return moment
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    if style.time is TimeFormat.RFC3339:
        return f"{whole}Z"
    from datetime import datetime

    try:
        at = datetime.fromisoformat(whole)
    except ValueError:
        return moment
    return f"{at:%b} {at.day:>2} {at:%H:%M:%S}.{fraction[:3]:0<3}"


def _identity(line: Json, end: End, style: LineStyle) -> str:
    if style.numeric:
        return shown(line, "flow", end, "identity") or "0"
    return fields.identity(line, end)


def _known_as(line: Json, end: End, style: LineStyle) -> str:
    found = _identity(line, end, style)
    if not found.isdecimal():
        return found
    tenant = fields.tenant(line, end)
    return f"ID:{found}, tenant {tenant}" if tenant else f"ID:{found}"


def _host(line: Json, end: End, style: LineStyle) -> str:
    """`namespace/pod:port`, a Service where no pod is known, else the address."""
    name = fields.pod(line, end) or "/".join(filter(None, fields.service(line, end)))
    if not name or style.numeric:
        return _socket(line, end)
    port = fields.port(line, end)
    return f"{name}:{port}" if port else name


def _socket(line: Json, end: End) -> str:
    address, port = fields.address(line, end), fields.port(line, end)
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _protocol(line: Json) -> str:
    name = fields.protocol(line)
    if not name:
        return shown(line, "flow", "Summary")
    return f"{name.lower()} {', '.join(fields.tcp_flags(line))}".strip()


def _number(line: Json) -> str:
    from enforcer.observe.shape import PROTOCOLS

    name = fields.protocol(line)
    found = next((n for n, known in PROTOCOLS.items() if known == name), None)
    return str(found) if found is not None else "unknown"
