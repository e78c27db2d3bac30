"""What becomes of one HTTP request, after `explain.py` said what becomes of its packets.

`ringfence trace --http` prints it. Each side whose policies judge requests is asked, the source's
first, as the request meets them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from generators.documents.writing import to_yaml
from generators.http import Request, RuleSet, request_of
from generators.objects import Direction
from generators.reachability.ends import BadQuestion
from generators.reachability.verdicts import Cell, Verdict

TRANSPORT = "TCP"
_LINE = re.compile(r"(\S+) (\S+)")


@dataclass(frozen=True, slots=True)
class HttpRuleNote:
    """One HTTP rule that judges: whether it matched, and why not."""

    rule: str
    says: str
    miss: str = ""


@dataclass(frozen=True, slots=True)
class HttpStage:
    """One side that judges the request: the rule that lets it pass, None where it is refused."""

    direction: Direction
    rule: str | None
    notes: tuple[HttpRuleNote, ...]
    to_allow: str = ""


@dataclass(frozen=True, slots=True)
class HttpTrace:
    """A request, the sides that judge it up to the one that refuses it, and what comes of it."""

    request: Request
    stages: tuple[HttpStage, ...]
    verdict: Verdict
    why: str


def parse_request(
    text: str, headers: Iterable[str] = (), host: str = "", protocol: str = TRANSPORT
) -> Request:
    """`METHOD PATH` and headers `Name: value` as users write them."""
    if protocol != TRANSPORT:
        raise BadQuestion(f"HTTP runs over {TRANSPORT}: write PORT/{TRANSPORT}")
    found = _LINE.fullmatch(text.strip())
    if found is None or not found[2].startswith(("/", "*")):
        raise BadQuestion(f'"{text}" is no request; write METHOD PATH, for example "GET /index"')
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise BadQuestion(f'"{header}" is no header; write "Name: value"')
        pairs.append((name.strip(), value.strip()))
    return request_of(found[1], found[2], host, pairs)


def judge(cell: Cell, request: Request) -> HttpTrace:
    """How a request fares on the connections that a cell is about."""
    if cell.verdict is Verdict.DROPPED:
        return HttpTrace(request, (), Verdict.DROPPED, "no connection carries it, see above")
    stages: list[HttpStage] = []
    for direction, side in ((Direction.EGRESS, cell.egress), (Direction.INGRESS, cell.ingress)):
        if side.http is None:
            continue
        stages.append(_stage(direction, side.http, request))
        if stages[-1].rule is None:
            why = request.unclear or f"no HTTP rule of {direction.lower()} matches"
            answer = "400" if request.unclear else "403 Access denied"
            return HttpTrace(request, tuple(stages), Verdict.DROPPED, f"{answer}: {why}")
    names = " and ".join(stage.rule for stage in stages if stage.rule)
    why = f"let pass by {names}" if names else "no rule looks at requests here"
    return HttpTrace(request, tuple(stages), Verdict.FORWARDED, why)


def _stage(direction: Direction, http: RuleSet, request: Request) -> HttpStage:
    notes = tuple(
        HttpRuleNote(name, str(rule), request.unclear or rule.misses(request))
        for name, rule in http.rules
    )
    rule = http.matching(request)
    return HttpStage(direction, rule, notes, _to_allow(http, request) if rule is None else "")


def _to_allow(http: RuleSet, request: Request) -> str:
    if request.unclear:
        return "nothing to add: no rule lets it pass"
    path = re.escape(request.path).replace(r"\-", "-")
    item = to_yaml([{"http": [{"method": request.method, "path": path}]}]).rstrip()
    return f"to allow it, add to the rules of toPorts of {http.rule}:\n{item}"


def lines(found: HttpTrace) -> Iterator[str]:
    """The stage for people."""
    request = found.request
    at = f" at host {request.host}" if request.host else ""
    yield f"HTTP {request.method} {request.path}{at}"
    for stage in found.stages:
        yield f"  judged at {stage.direction.lower()}"
        for note in stage.notes:
            sign = f"no match: {note.miss}" if note.miss else f"matches: {note.says}"
            yield f"    {note.rule} {sign}"
    yield f"Request: {found.verdict.value} ({found.why})"
    for stage in found.stages:
        if stage.to_allow:
            yield ""
            yield stage.to_allow


def document(found: HttpTrace) -> dict[str, object]:
    """The same as plain values."""
    request = found.request
    return {
        "method": request.method,
        "path": request.path,
        "host": request.host,
        "headers": [f"{name}: {value}" for name, value in request.headers],
        "verdict": found.verdict.value,
        "why": found.why,
        "stages": [
            {
                "direction": stage.direction.value,
                "rule": stage.rule,
                "rules": [
                    {"rule": note.rule, "matched": not note.miss, "why": note.miss or note.says}
                    for note in stage.notes
                ],
            }
            for stage in found.stages
        ],
    }
