"""`ringfence trace`: one cell, with every stage and rule that spoke."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.inputs import (
    assumed_of,
    config_option,
    kubeconfig_option,
    load_cluster,
    objects_option,
    one_source,
    strict_option,
)
from generators.output import TABLE, output_option, structured

if TYPE_CHECKING:
    from generators.http import Request
    from generators.kube.config import ApiServer
    from generators.reachability.explain import EndNote, RuleNote, Trace
    from generators.reachability.requests import HttpTrace
    from generators.reachability.verdicts import Judgement

EXIT_NO = 1
_VERDICTS = ("FORWARDED", "DROPPED", "AUDIT", "REDIRECTED")


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.argument("port", metavar="PORT/PROTO")
@config_option
@objects_option
@kubeconfig_option
@click.option(
    "--family", type=click.Choice(["IPv4", "IPv6"]), help="Default: IPv4 if both have it."
)
@click.option("--http", metavar="'METHOD PATH'", help="Judge this HTTP request too.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Of the request.")
@click.option("--host", help="Of the request, as its client writes it.")
@click.option("--expect", type=click.Choice(_VERDICTS), help="Exit with 1 for another verdict.")
@strict_option
@output_option
@click.pass_context
def trace(
    context: click.Context,
    source: str,
    destination: str,
    port: str,
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    family: str | None,
    http: str | None,
    headers: tuple[str, ...],
    host: str | None,
    expect: str | None,
    strict: bool,
    output: str,
) -> None:
    """Explain whether SRC reaches DST.

    SRC and DST are pods (NAMESPACE/POD) or addresses, DST may also be a Service
    (svc/NAMESPACE/NAME or its ClusterIP). PORT/PROTO is 80/TCP, 53/UDP, 9/SCTP; protocols
    without ports are ICMP, and IP/47 for any other number. With --http the verdict is that of
    the request.
    """
    from generators.reachability.explain import trace as explain
    from generators.reachability.matrix import PortProtocol, single_question
    from generators.reachability.reference import Evaluator
    from generators.reachability.requests import judge
    from generators.reachability.verdicts import meets

    wanted = PortProtocol.parse(port)
    request = asked_request(http, headers, host, wanted.protocol)
    live = one_source(files, kubeconfig)
    cluster = load_cluster(config_file, files, live)
    question = single_question(cluster, source, destination, wanted, family)
    assumed = assumed_of(cluster, (question.source, question.destination), strict)
    found = explain(Evaluator(cluster), question)
    judged = judge(found.cell, request) if request is not None else None
    if output == TABLE:
        click.echo("\n".join(lines(found, judged)))
    else:
        answered = {**document(found, judged), "assumptions": list(assumed)}
        click.echo(structured(answered, output), nl=False)
    verdict = judged.verdict if judged is not None else found.cell.verdict
    if expect is not None and not meets(verdict, expect):
        click.echo(f"expected {expect}, found {verdict.value}", err=True)
        context.exit(EXIT_NO)


def asked_request(
    http: str | None, headers: Sequence[str], host: str | None, protocol: str
) -> Request | None:
    """The request of the options; None where none is asked about."""
    from generators.reachability.requests import parse_request

    if http is None:
        if headers or host:
            raise click.UsageError("--header and --host belong to --http 'METHOD PATH'")
        return None
    return parse_request(http, headers, host or "", protocol)


def lines(found: Trace, judged: HttpTrace | None = None) -> Iterator[str]:
    """A trace for people."""
    cell = found.cell
    from generators.reachability.protocols import port_text

    asked = port_text(cell.port, cell.protocol)
    yield f"{cell.source} -> {cell.destination} {asked} ({cell.family})"
    yield from _service_lines(found)
    yield ""
    for title, end in (("Source", found.source), ("Destination", found.destination)):
        yield from _end_lines(title, end)
    yield ""
    yield from _side_lines("Egress of the source", cell.egress, found.egress)
    yield ""
    yield f"Tenant wall of the destination: {found.wall}"
    yield from _side_lines("Ingress of the destination", cell.ingress, found.ingress)
    yield ""
    yield f"Verdict: {cell.verdict.value}"
    if judged is not None:
        from generators.reachability import requests

        yield ""
        yield from requests.lines(judged)
    for hint in found.to_allow:
        yield ""
        yield hint


def _service_lines(found: Trace) -> Iterator[str]:
    if not found.service:
        return
    yield ""
    yield f"Service {found.service}: judged by its backends; shown below is the worst one"
    for backend in found.backends:
        verdict = backend.cell.verdict.value
        yield f"  {verdict:<9} {backend.name} at {backend.address} port {backend.port}"


def _end_lines(title: str, end: EndNote) -> Iterator[str]:
    yield f"{title} {end.name}: {end.what}, address {end.address}"
    if end.pod_labels:
        yield f"  pod labels        {_pairs(end.pod_labels)}"
    if end.namespace_labels:
        yield f"  namespace labels  {_pairs(end.namespace_labels)}"
    if end.assignment:
        yield f"  tenant            {end.tenant or 'none'}: {end.assignment}"


def _pairs(labels: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels)


def _side_lines(title: str, judgement: Judgement, rules: tuple[RuleNote, ...]) -> Iterator[str]:
    yield f"{title}: {judgement.verdict.value} ({judgement.reason.value})"
    if judgement.policies:
        yield f"  isolated by {', '.join(judgement.policies)}"
    elif judgement.reason.value == "NOT_ISOLATED":
        yield "  no policy isolates it in this direction"
    for note in rules:
        sign = "matches" if note.matched else "no match"
        yield f"  {note.rule} ({note.origin}) {sign}: {note.why}"
    if judgement.rule is not None:
        yield f"  decided by {judgement.rule}"


def document(found: Trace, judged: HttpTrace | None = None) -> dict[str, object]:
    """A trace as plain values: a cell of the matrix and its stages."""
    from generators.reachability import requests
    from generators.reachability.matrix import cell_document

    http = {}
    if judged is not None:
        http = {"verdict": judged.verdict.value, "http": requests.document(judged)}
    return {
        **cell_document(found.cell),
        "stages": {
            "source": _end_document(found.source),
            "destination": _end_document(found.destination),
            "egress": [_note_document(note) for note in found.egress],
            "wall": found.wall,
            "ingress": [_note_document(note) for note in found.ingress],
        },
        **http,
        **({"service": _service_document(found)} if found.service else {}),
        "toAllow": list(found.to_allow),
    }


def _service_document(found: Trace) -> dict[str, object]:
    from generators.reachability.matrix import judgement_document

    return {
        "name": found.service,
        "backends": [
            {
                "name": backend.name,
                "address": backend.address,
                "port": backend.port,
                "verdict": backend.cell.verdict.value,
                "egress": judgement_document(backend.cell.egress),
                "ingress": judgement_document(backend.cell.ingress),
            }
            for backend in found.backends
        ],
    }


def _end_document(end: EndNote) -> dict[str, object]:
    return {
        "name": end.name,
        "what": end.what,
        "address": end.address,
        "tenant": end.tenant,
        "assignment": end.assignment,
        "namespaceLabels": dict(end.namespace_labels),
        "podLabels": dict(end.pod_labels),
    }


def _note_document(note: RuleNote) -> dict[str, object]:
    return {"rule": note.rule, "matched": note.matched, "why": note.why, "origin": note.origin}
