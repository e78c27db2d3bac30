"""The agent's answers as text: endpoint table, status, and flows as a line each.

Called by cli.py with decoded JSON; shapes are those of Cilium's and Hubble's command lines, with
the tenant added and the deciding rule at the end. Answers come from another process, so nothing is
assumed but that they are JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from generators.documents.json import items, mapping, mappings, shown

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


def endpoint_table(endpoints: Sequence[Json], *, headers: bool) -> str:
    """A table of endpoints, with one further line for each further label."""
    rows: list[Sequence[str]] = [*zip(*HEAD, strict=True)] if headers else []
    for item in endpoints:
        first, *more = [str(label) for label in items(item, "labels")] or [""]
        rows.append(
            [
                shown(item, "id"),
                shown(item, "policy", "ingress"),
                shown(item, "policy", "egress"),
                shown(item, "identity"),
                shown(item, "namespace"),
                shown(item, "pod"),
                shown(item, "tenant"),
                first,
                shown(item, "ipv6"),
                shown(item, "ipv4"),
                shown(item, "status"),
            ]
        )
        rows += [["" if i != LABELS else label for i in range(len(HEAD))] for label in more]
    return columns(rows)


def healthy(status: Json) -> bool:
    """Whether everything that should be enforced is, by good inputs."""
    told = status.get("problems")
    if isinstance(told, list):
        return not told
    return bool(status.get("ready")) and not status.get("errors") and not status.get("notEnforced")


def status_text(status: Json, *, verbose: bool = False) -> str:
    """One screen: what is enforced, what is not and why, how full the maps are."""
    audit, sources = mapping(status, "audit"), mapping(status, "sources")
    drift = _pairs(audit.get("drift"))
    rows: list[Sequence[str]] = [
        ["Node", shown(status, "node")],
        ["Enforcement", "OK" if healthy(status) else _trouble(status)],
        ["Tenant wall", _wall(status)],
        ["Endpoints", f"{shown(status, 'endpoints')} ready"],
        ["Attached", _pairs(status.get("attached")) or "nothing"],
        ["Policy revision", shown(status, "revision")],
        ["Sources", _sources(sources)],
        ["Drift", drift or f"none, {shown(audit, 'corrections') or 0} corrected so far"],
        ["Flows", _pairs(status.get("flows"))],
        ["Pins", shown(status, "pinDir")],
    ]
    for name, fill in sorted(mapping(status, "maps").items()):
        if isinstance(fill, dict):
            rows.append([f"Map {name}", f"{fill.get('entries')} of {fill.get('capacity')}"])
            rows += _budgets(name, fill, verbose=verbose)
    if verbose:
        rows += [[f"Source {name}", _source(item)] for name, item in sorted(sources.items())]
    for source, error in sorted(mapping(status, "errors").items()):
        rows.append([f"Error: {source}", str(error)])
    held = items(status, "neighbours")
    rows += [["Held", f"{each}: may redirect packets, checked at the sender"] for each in held]
    rows += [["Without room", str(why)] for why in mapping(status, "withoutRoom").values()]
    for pod in mappings(status.get("notEnforced")):
        rows.append(
            ["Not enforced", f"{pod.get('namespace')}/{pod.get('pod')}: {pod.get('reason')}"]
        )
    for pod in mappings(status.get("adopting")):
        left = f"{pod.get('secondsLeft')} s left for connections from before the first agent"
        rows.append(["Adopting", f"{pod.get('namespace')}/{pod.get('pod')}: {left}"])
    return columns(rows)


def _budgets(name: str, fill: Json, *, verbose: bool) -> Iterable[Sequence[str]]:
    """Who uses what of a map; all of them, or those who are above their budget."""
    for tenant, use in sorted(mapping(fill, "tenants").items()):
        if isinstance(use, dict):
            used, budget = use.get("used"), use.get("budget")
            above = isinstance(used, int) and isinstance(budget, int) and used > budget
            if verbose or above or use.get("waiting"):
                who = f"tenant {tenant}" if tenant else "no tenant"
                yield [
                    f"Map {name}, {who}",
                    f"{used}, its budget is {budget} of {fill.get('room')}",
                ]


def _wall(status: Json) -> str:
    mode = shown(status, "mode")
    if mode and "record" in mapping(status, "errors"):
        return f"{mode}, but the record of tenants is not whole: see below"
    return mode or "off (no tenant file)"


def _sources(sources: Json) -> str:
    good = sum(
        1
        for item in sources.values()
        if isinstance(item, dict) and item.get("synced") and item.get("connected")
    )
    return f"{good} of {len(sources)} synced and connected"


def _source(item: object) -> str:
    if not isinstance(item, dict):
        return ""
    words = [name for name in ("synced", "connected", "forbidden") if item.get(name)]
    told = f"{', '.join(words) or 'never read'}; {item.get('objects')} objects"
    age = item.get("lastEventSeconds")
    return f"{told}; last event {age} s ago" if age is not None else told


def _trouble(status: Json) -> str:
    if not status.get("ready"):
        return "waiting for good inputs; the former state stays in force"
    return "degraded: the last good inputs are in force, see below"


def _pairs(value: object) -> str:
    found = value.items() if isinstance(value, dict) else ()
    return ", ".join(f"{name} {count}" for name, count in found)


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Lines of cells under each other."""
    listed = list(rows)
    widths = [max(map(len, column), default=0) for column in zip(*listed, strict=True)]
    lines = (
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in listed
    )
    return "".join(f"{line}\n" for line in lines)
