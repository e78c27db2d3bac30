"""Reads one line of flow JSON for filters and printers.

A line comes from the agent, or from a file of any origin, so nothing is assumed but that it is a
JSON object. What Hubble's shape has no word for is read from `judgement` if present, else derived
from names and labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from enforcer.datapath.flows import DropReason
from enforcer.observe.names import MatchType
from enforcer.observe.requests import EVENT_L7
from enforcer.observe.shape import (
    EVENT_DROP,
    EVENT_POLICY_VERDICT,
    JUDGEMENT,
    POLICY_DENY,
    RESERVED,
    RULE_LABEL,
    SOURCE_LABEL,
    TENANT_LABEL,
)
from generators.documents.json import items, mapping, mappings, shown
from generators.http import policy_rule_of

Json = Mapping[str, object]


class End(StrEnum):
    """The two ends of a flow."""

    SOURCE = "source"
    DESTINATION = "destination"


class EventKind(StrEnum):
    """Kinds of events that we make."""

    DROP = "drop"
    POLICY_VERDICT = "policy-verdict"
    L7 = "l7"


EVENTS = {
    EVENT_DROP: EventKind.DROP,
    EVENT_POLICY_VERDICT: EventKind.POLICY_VERDICT,
    EVENT_L7: EventKind.L7,
}
_BY_TENANT = frozenset({"Tenant", "Namespace"})


def number(value: Json, *path: str) -> int:
    """The number below a path; JSON of protocol buffers writes long ones as text."""
    found = shown(value, *path)
    return int(found) if found.lstrip("-").isdecimal() else 0


def event(line: Json) -> EventKind | None:
    """What kind of event a flow is."""
    return EVENTS.get(number(line, "flow", "event_type", "type"))


def is_reply(line: Json) -> bool | None:
    """Whether it is a reply; None if unknown."""
    found = mapping(line, "flow").get("is_reply")
    return found if isinstance(found, bool) else None


def address(line: Json, end: End) -> str:
    """The IP address of an end."""
    return shown(line, "flow", "IP", end)


def port(line: Json, end: End) -> str:
    """The port of an end; empty for protocols without ports."""
    for ports in mapping(line, "flow", "l4").values():
        if isinstance(ports, dict) and f"{end}_port" in ports:
            return str(ports[f"{end}_port"])
    return ""


def protocol(line: Json) -> str:
    """TCP, UDP, SCTP, ICMPv4, ICMPv6; empty for others."""
    return next(iter(mapping(line, "flow", "l4")), "")


def http(line: Json) -> Json:
    """The HTTP request that a flow is about; empty where it is none."""
    return mapping(line, "flow", "l7", "http")


def tcp_flags(line: Json) -> tuple[str, ...]:
    """The TCP flags that are set, in the order of the flow."""
    flags = mapping(line, "flow", "l4", "TCP", "flags")
    return tuple(name for name, is_set in flags.items() if is_set is True)


def pod(line: Json, end: End) -> str:
    """`namespace/pod`; empty where the end is none."""
    name = shown(line, "flow", end, "pod_name")
    return f"{shown(line, 'flow', end, 'namespace')}/{name}" if name else ""


def workloads(line: Json, end: End) -> Sequence[Json]:
    """What runs the pod of an end: kind and name."""
    return mappings(mapping(line, "flow", end).get("workloads"))


def service(line: Json, end: End) -> tuple[str, str]:
    """Namespace and name of the Service of an end; empty where it has none."""
    found = mapping(line, "flow", f"{end}_service")
    return shown(found, "namespace"), shown(found, "name")


def labels(line: Json, end: End) -> tuple[str, ...]:
    """Labels as `source:key=value`."""
    return tuple(str(label) for label in items(line, "flow", end, "labels"))


def tenant(line: Json, end: End) -> str:
    """The tenant of an end; empty where it has none."""
    found = (
        label.removeprefix(TENANT_LABEL) for label in labels(line, end) if TENANT_LABEL in label
    )
    return next(found, "")


def identity(line: Json, end: End) -> str:
    """The number of an identity, the name of a reserved one, `unknown` without any."""
    found = shown(line, "flow", end, "identity")
    return RESERVED.get(int(found) if found.isdecimal() else -1, found or "unknown")


def local(line: Json) -> End:
    """The end that is a pod of the reporting node."""
    inward = shown(line, "flow", "traffic_direction") == "INGRESS"
    return End.DESTINATION if inward else End.SOURCE


def remote(line: Json) -> End:
    """The other end."""
    return End.SOURCE if local(line) is End.DESTINATION else End.DESTINATION


def references(line: Json) -> Iterator[Json]:
    """The policies and tenants that let in or refused."""
    for side in ("ingress", "egress"):
        for did in ("denied", "allowed"):
            yield from mappings(mapping(line, "flow").get(f"{side}_{did}_by"))


def reason(line: Json) -> str:
    """Why: the name of a DropReason, or of a ForwardReason if the agent gives one."""
    told = shown(line, JUDGEMENT, "reason")
    name = shown(line, "flow", "drop_reason_desc")
    if told or name != POLICY_DENY[0]:
        return told or name
    kinds = {shown(reference, "kind") for reference in references(line)}
    return DropReason.TENANT_WALL.name if kinds & _BY_TENANT else name


def match(line: Json) -> MatchType:
    """How the rule that let in fits."""
    found = number(line, "flow", "policy_match_type")
    return MatchType(found) if found <= max(MatchType) else MatchType.NONE


def rule(line: Json) -> str:
    """The one rule that decided; empty where none did."""
    told = shown(line, JUDGEMENT, "rule")
    if told:
        return told
    return next((found for item in references(line) if (found := _label(item, RULE_LABEL))), "")


def deciders(line: Json) -> Iterator[tuple[str, str]]:
    """Name and file line of the rule that decided, or of each policy that isolates."""
    found = {_name(item): _label(item, SOURCE_LABEL) for item in references(line)}
    decided = rule(line)
    if decided:
        yield decided, found.get(decided) or found.get(policy_rule_of(decided), "")
        return
    for name in items(line, JUDGEMENT, "policies") or found:
        yield str(name), found.get(str(name), "")


def _name(reference: Json) -> str:
    named = _label(reference, RULE_LABEL)
    return named or "/".join(
        part for part in (shown(reference, "namespace"), shown(reference, "name")) if part
    )


def _label(reference: Json, prefix: str) -> str:
    return _first(map(str, items(reference, "labels")), prefix)


def _first(found: Iterable[str], prefix: str) -> str:
    return next((label.removeprefix(prefix) for label in found if label.startswith(prefix)), "")
