"""The report as one HTML page: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

Json = Mapping[str, object]

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}"
    "th,td{border:1px solid #8888;padding:.2rem .6rem;text-align:left;vertical-align:top}"
    ".no{font-weight:bold;color:#b00}small{color:#666}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}.no{color:#f66}}"
)


def page(report: Json) -> str:
    """The whole document."""
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "title").text = "Tenant isolation"
    SubElement(head, "style").text = STYLE
    body = SubElement(html, "body")
    SubElement(body, "h1").text = "Tenant isolation"
    _verdict(body, report)
    _section(body, report, "tenants", "Tenants and why namespaces are theirs")
    rows = (
        (tenant["tenant"], space["namespace"], space["pods"], space["because"])
        for tenant in _listed(report, "tenants")
        for space in _listed(tenant, "namespaces")
    )
    _table(body, ("Tenant", "Namespace", "Pods", "Because"), rows)
    _section(body, report, "matrix", "Who may enter whom")
    _matrix(body, report)
    _section(body, report, "nodes", "What the kernels of the nodes hold")
    nodes = ((n["node"], _word(n), n["why"]) for n in _listed(report, "nodes"))
    _table(body, ("Node", "Apart", "How it was asked"), nodes)
    _counterexamples(body, report)
    _exceptions(body, report)
    SubElement(body, "h2").text = "What was not checked"
    listed = SubElement(body, "ul")
    for text in _texts(report, "notChecked"):
        SubElement(listed, "li").text = text
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _verdict(body: Element, report: Json) -> None:
    verdict = _mapping(report, "verdict")
    said = "Tenants are apart" if verdict["apart"] else "Tenants are not apart"
    if not verdict["agrees"]:
        said += ", but policies, entries and maps do not all say the same"
    sound = verdict["apart"] and verdict["agrees"]
    line = SubElement(body, "p", {} if sound else {"class": "no"})
    line.text = (
        f"{said}: {verdict['tenants']} tenants, {verdict['openPairs']} open pairs, "
        f"{verdict['grants']} grants, {verdict['quarantined']} namespaces in quarantine, "
        f"{verdict['nodesProven']} of {verdict['nodes']} kernels proven, "
        f"{verdict['classes']:,} classes of packets decided."
    )
    file = _mapping(report, "tenantFile")
    SubElement(body, "p").text = (
        f"{report['date']}, Ringfence {report['version']}, objects of {report['source']}; "
        f"tenant file SHA-256 {file['digest']}, mode {file['mode']}."
    )
    _served(body, report, "verdict")


def _matrix(body: Element, report: Json) -> None:
    pairs = _listed(report, "matrix")
    cells = {(pair["source"], pair["destination"]): pair for pair in pairs}
    owners = list(dict.fromkeys(str(pair["destination"]) for pair in pairs))
    table = SubElement(body, "table")
    head = SubElement(table, "tr")
    for text in ("From, to", *owners):
        SubElement(head, "th", scope="col").text = text
    for source in (*owners, None):
        row = SubElement(table, "tr")
        SubElement(row, "th", scope="row").text = source or "no tenant, beside shared components"
        for owner in owners:
            pair = cells.get((source, owner))
            cell = SubElement(row, "td")
            if pair is None:
                cell.text = "own"
            elif pair["open"]:
                cell.set("class", "no")
                cell.text = "OPEN"
            else:
                cell.text = ", ".join(_texts(pair, "permitted")) or "kept out"


def _counterexamples(body: Element, report: Json) -> None:
    found = _listed(_mapping(report, "proof"), "counterexamples")
    if not found:
        return
    SubElement(body, "h2").text = "Packets that should not pass, or are disputed"
    rows = (
        (e["kind"], e["source"], e["destination"], e["port"], e["protocol"], e["because"])
        for e in found
    )
    _table(body, ("", "Source", "Destination", "Port", "Protocol", "Because"), rows)


def _exceptions(body: Element, report: Json) -> None:
    SubElement(body, "h2").text = "Exceptions"
    rows = []
    for key, value in _mapping(report, "exceptions").items():
        entries = value if isinstance(value, list) else [value] if value else []
        rows += [(key, _plain(entry)) for entry in entries]
    _table(body, ("Kind", "What"), rows)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _section(body: Element, report: Json, key: str, title: str) -> None:
    SubElement(body, "h2").text = title
    _served(body, report, key)


def _served(body: Element, report: Json, key: str) -> None:
    names = _texts(_mapping(report, "standards"), key)
    if names:
        SubElement(SubElement(body, "p"), "small").text = f"Evidence for {'; '.join(names)}"


def _table(body: Element, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = SubElement(body, "table")
    head = SubElement(table, "tr")
    for text in heads:
        SubElement(head, "th", scope="col").text = text
    for row in rows:
        line = SubElement(table, "tr")
        for value in row:
            SubElement(line, "td").text = str(value)


def _word(node: Json) -> str:
    if not node["asked"]:
        return "not asked"
    if not node["agrees"]:
        return "DISPUTED" if node["apart"] else "NO"
    return "yes" if node["apart"] else "NO"


def _listed(found: Json, key: str) -> Sequence[Json]:
    value = found.get(key)
    return value if isinstance(value, list) else []


def _texts(found: Json, key: str) -> Sequence[str]:
    value = found.get(key)
    return [str(each) for each in value] if isinstance(value, list) else []


def _mapping(found: Json, key: str) -> Json:
    value = found.get(key)
    return value if isinstance(value, Mapping) else {}
