"""`ringfence monitor` and `ringfence observe`: what happens to packets, as it happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.commands.flow_options import FilteredCommand, taken
from enforcer.commands.options import UsageError, run_dir_option
from generators.documents.json import shown
from generators.errors import InputError, Problem
from generators.output import structured, warn

if TYPE_CHECKING:
    from enforcer.observe.fields import Json
    from enforcer.observe.lines import LineStyle

DEFAULT_LAST = 20
AS_JSON, AS_YAML = ("json", "jsonpb"), "yaml"
_WRITTEN = "write it with `ringfence observe -o json`"
REMEMBERED = 4096
"""As many as the agent keeps."""


@click.command()
@run_dir_option
@click.option(
    "-t",
    "--type",
    "types",
    multiple=True,
    metavar="TYPE,...",
    help="Only these events: drop, policy-verdict.",
)
@click.option(
    "--related-to",
    multiple=True,
    metavar="ENDPOINT",
    help="Only events of these endpoints: id or NAMESPACE/POD.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also print times, node and what decided.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print lines of JSON.")
@click.option("--last", default=0, help="Start with the last N events.", metavar="N")
@click.option("--no-follow", is_flag=True, help="End after the last N events.")
@click.option("-n", "--numeric", is_flag=True, help="Print numbers of identities instead of names.")
def monitor(
    run_dir: Path,
    types: tuple[str, ...],
    related_to: tuple[str, ...],
    verbose: bool,
    as_json: bool,
    last: int,
    no_follow: bool,
    numeric: bool,
) -> None:
    """Print events as they happen, a line each; drops end with who refused and where it is written.

    -v begins each line with time and node.
    """
    from enforcer.observe import filters, lines

    conditions = []
    if types:
        named = [part for item in types for part in item.split(",")]
        conditions.append(filters.condition("type", named, negated=False))
        warn_of_traces(named)
    style = lines.LineStyle(numeric=numeric)
    for line in _stream(run_dir, last, follow=not no_follow):
        if not filters.wanted(line, conditions) or not _related(line, related_to):
            continue
        if as_json:
            click.echo(_json(line))
        else:
            told = lines.monitor(line, style)
            stamp = f"{line.get('time')} [{line.get('node_name')}] " if verbose else ""
            click.echo(f"{stamp}{told}")


@click.command(cls=FilteredCommand)
@run_dir_option
@click.option("--last", type=click.IntRange(0), metavar="N", help="The last N flows (default 20).")
@click.option("--first", type=click.IntRange(1), metavar="N", help="The first N flows.")
@click.option("--all", "everything", is_flag=True, help="Every flow that is remembered.")
@click.option("-f", "--follow", is_flag=True, help="Continue with new flows.")
@click.option("--since", metavar="TIME", help="From a time, or an age such as 5m.")
@click.option("--until", metavar="TIME", help="Up to a time, or an age.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["compact", "dict", "json", "jsonpb", "table", "yaml"]),
    default="compact",
    show_default=True,
    help="json and jsonpb are what `hubble observe --input-file -` reads.",
)
@click.option(
    "--field-mask",
    multiple=True,
    metavar="FIELD,...",
    help="Only these fields of each flow, as JSON or YAML: time,verdict,source.pod_name.",
)
@click.option("--print-node-name/--no-node-name", default=True, help="Print the node.")
@click.option("--print-policy-names/--no-policy-names", default=True, help="Print what decided.")
@click.option("--numeric", is_flag=True, help="Print addresses and numbers instead of names.")
@click.option(
    "--time-format",
    type=click.Choice(["RFC3339Nano", "RFC3339", "StampMilli"]),
    default="RFC3339Nano",
    show_default=True,
    help="How times are printed.",
)
@click.option("--input-file", metavar="FILE", help="Read flows from a file, or - for stdin.")
@click.option("--no-headers", is_flag=True, help="Omit the table's header.")
@click.pass_context
def observe(
    context: click.Context,
    /,
    run_dir: Path,
    last: int | None,
    first: int | None,
    everything: bool,
    follow: bool,
    since: str | None,
    until: str | None,
    output: str,
    field_mask: tuple[str, ...],
    print_node_name: bool,
    print_policy_names: bool,
    numeric: bool,
    time_format: str,
    input_file: str | None,
    no_headers: bool,
    **_filters: object,
) -> None:
    """Print flows: those of this node's agent, or of a file.

    A filter given twice means either value; different filters must all hold; --not negates the
    filter after it.
    """
    from enforcer.observe import lines
    from enforcer.observe.filters import wanted
    from enforcer.observe.mask import mask, masked
    from enforcer.observe.ranges import FlowRange, cut, moment

    conditions = taken(context)
    warn_of_traces(context.params["type"])
    if (last is not None) + (first is not None) + everything > 1:
        raise UsageError("--last, --first and --all exclude each other")
    if field_mask and output not in (*AS_JSON, AS_YAML):
        raise UsageError(f"--field-mask leaves too little for -o {output}; use -o json or -o yaml")
    fields = mask(field_mask)
    whole = everything or follow or first is not None or since is not None or input_file is not None
    now = datetime.now(UTC)
    chosen = FlowRange(
        last=last if whole or last is not None else DEFAULT_LAST,
        first=first,
        since=moment(since, now) if since else None,
        until=moment(until, now) if until else None,
    )
    style = lines.LineStyle(
        print_node_name, print_policy_names, numeric, lines.TimeFormat(time_format)
    )
    if input_file is not None:
        found = _read(input_file)
    elif follow:
        found, chosen = _stream(run_dir, last or 0, follow=True), replace(chosen, last=None)
    else:
        found = _stream(run_dir, REMEMBERED, follow=False)
    kept = cut(found, chosen, lambda line: wanted(line, conditions))
    if fields:
        kept = (masked(line, fields) for line in kept)
    for text in _printed(kept, output, style, heads=not no_headers, follow=follow):
        click.echo(text)


def _printed(
    found: Iterable[Json], output: str, style: LineStyle, *, heads: bool, follow: bool
) -> Iterator[str]:
    from enforcer.commands.show import columns
    from enforcer.observe import lines

    if output == "table" and not follow:
        rows = [lines.heads(style)] if heads else []
        yield from columns([*rows, *(lines.cells(line, style) for line in found)]).splitlines()
        return
    if output == "table" and heads:
        yield "   ".join(lines.heads(style))
    for number, line in enumerate(found):
        if output in AS_JSON:
            yield _json(line)
        elif output == AS_YAML:
            yield f"---\n{_yaml(line)}"
        elif output == "dict":
            yield from ([lines.SEPARATOR] if number else [])
            yield lines.block(line, style)
        elif output == "table":
            yield "   ".join(lines.cells(line, style))
        else:
            yield lines.compact(line, style)


def _stream(run_dir: Path, last: int, *, follow: bool) -> Iterator[Json]:
    from enforcer.answers import control

    request = {"command": "flows", "last": last, "follow": follow}
    yield from control.stream(run_dir, request)


def _read(name: str) -> Iterator[Json]:
    """Lines of JSON from a file or from standard input."""
    import json

    with click.open_file(name) as file:
        for count, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line: object = json.loads(text)
            except ValueError as error:
                problem = Problem(name, count, "", f"not JSON: {error}", _WRITTEN)
                raise InputError([problem]) from error
            if not isinstance(line, dict):
                raise InputError([Problem(name, count, "", "no flow", _WRITTEN)])
            yield line


def _json(line: Json) -> str:
    import json

    from enforcer.observe.shape import published

    return json.dumps(published(line), separators=(",", ":"))


def _yaml(line: Json) -> str:
    from enforcer.observe.shape import published

    return structured(published(line), "yaml").rstrip("\n")


def _related(line: Json, endpoints: Sequence[str]) -> bool:
    from enforcer.observe import fields

    return not endpoints or any(
        wanted in (shown(line, "flow", end, "ID"), fields.pod(line, end))
        for wanted in endpoints
        for end in fields.End
    )


def warn_of_traces(types: Iterable[str]) -> None:
    """Words of the field that mean nothing here are not ignored in silence."""
    if any(name.partition(":")[0] == "trace" for name in types):
        warn(["no trace events are made; policy-verdict shows each new connection"])
