"""`ringfence matrix`: who reaches whom, answered by one of the engines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
from generators.output import (
    TABLE,
    notes,
    on_terminal,
    output_option,
    progress,
    screen,
    structured,
    warn,
)

if TYPE_CHECKING:
    from generators.cluster import Cluster
    from generators.kube.config import ApiServer
    from generators.reachability.changes import Line, VerdictChange
    from generators.reachability.grid import VerdictTable
    from generators.reachability.levels import Distance
    from generators.reachability.matrix import Questions
    from generators.reachability.verdicts import Cell

EXIT_NO = 1
_PIECES = 1000
"""Cells that are printed at once."""
_LEVELS = ("tenant", "namespace", "workload", "pod")
_VERDICTS = ("FORWARDED", "DROPPED", "AUDIT", "REDIRECTED")
_BESIDE_A_GRID = 6
"""Lines of a screen for title, legend and prompt."""


@click.command()
@config_option
@objects_option
@kubeconfig_option
@click.option(
    "--instead-of",
    "former_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tenant file in force: print what changes, what opens first.",
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="PORT/PROTO",
    help="Ask only about these: 80/TCP, 53/UDP, 9/SCTP, ICMP, IP/47. Default: all declared ports.",
)
@click.option(
    "--engine",
    default="evaluate",
    show_default=True,
    help="Engine that answers: evaluate, maps or kernel.",
)
@click.option(
    "--by",
    type=click.Choice(_LEVELS),
    help="One line for all pods of a tenant, namespace or workload. Default: pods, or the nearest"
    " of these that fits the screen; JSON and YAML: pods.",
)
@click.option(
    "--from",
    "source",
    metavar="WHO",
    help="Only from there: tenant/T, NS, NS/deployment/NAME, NS/POD, labels (app=web or"
    " NS:app=web), an address.",
)
@click.option(
    "--to",
    "destination",
    metavar="WHO",
    help="Only to there: the same, or a Service (svc/NS/NAME).",
)
@click.option(
    "--external",
    "externals",
    multiple=True,
    metavar="ADDR",
    help="Also ask about this address outside the cluster.",
)
@click.option(
    "--expect",
    type=click.Choice(_VERDICTS),
    help="Exit with 1 if any answer is another, or there is none.",
)
@click.option(
    "--exit-code", is_flag=True, help="With --instead-of: exit with 1 where something changes."
)
@strict_option
@output_option
@click.pass_context
def matrix(
    context: click.Context,
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    former_file: Path | None,
    ports: tuple[str, ...],
    engine: str,
    by: str | None,
    source: str | None,
    destination: str | None,
    externals: tuple[str, ...],
    expect: str | None,
    exit_code: bool,
    strict: bool,
    output: str,
) -> None:
    """Print who reaches whom: for each pair of pods, port and address family."""
    from generators.reachability import matrix as matrices

    if exit_code and former_file is None:
        raise click.UsageError("--exit-code needs --instead-of FILE to compare with")
    if by and former_file is not None and output != TABLE:
        raise click.UsageError("--instead-of with -o json or yaml is about pods; leave out --by")
    live = one_source(files, kubeconfig)
    cluster = load_cluster(config_file, files, live)
    wanted = [matrices.PortProtocol.parse(text) for text in ports]
    asked = matrices.questions(cluster, wanted, externals, source, destination)
    if not asked:
        warn(["no cells: no pair of pods with addresses, or no port is declared (give --port)"])
    assumed = assumed_of(cluster, (*asked.sources, *asked.destinations), strict)
    ask = _Ask(engine, cluster, asked, by, output, assumed)
    if former_file is not None:
        former = load_cluster(former_file, files, live)
        if _compare(ask, former) and exit_code:
            context.exit(EXIT_NO)
    elif ask.output == TABLE:
        _print_grid(ask)
    else:
        _print_cells(ask)
    if expect is not None and not _as_expected(ask, expect):
        context.exit(EXIT_NO)


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is asked of which cluster, and how it is to be printed."""

    engine: str
    cluster: Cluster
    asked: Questions
    by: str | None
    output: str
    assumed: tuple[str, ...]

    def cells(self) -> Iterable[Cell]:
        from generators.reachability.matrix import answer

        return answer(self.engine, self.cluster, self.asked)

    def groups(self, level: Distance) -> Mapping[str, str]:
        from generators.reachability.levels import groups_of

        return groups_of(self.cluster, {**self.asked.sources, **self.asked.destinations}, level)


def _table(ask: _Ask, cluster: Cluster) -> VerdictTable:
    """All answers of one engine as a grid draws them."""
    from generators.reachability.matrix import EVALUATE, answer

    if ask.engine == EVALUATE:
        from generators.reachability.classes import table

        return table(cluster, ask.asked, progress)
    from generators.reachability.grid import table_of

    return table_of(answer(ask.engine, cluster, ask.asked))


def _print_grid(ask: _Ask) -> None:
    from generators.reachability.grid import Style, columns_within, grid_text
    from generators.reachability.levels import Distance, fitting, folded

    width, height = screen()
    if ask.by is None:
        ends = len({**ask.asked.sources, **ask.asked.destinations})
        rows = max(height - _BESIDE_A_GRID, 1)
        level = fitting(ask.cluster, ask.asked, columns_within(width, min(ends, rows)), rows)
    else:
        level = Distance(ask.by)
    if ask.by is None and level is not Distance.POD:
        count = len(ask.asked.destinations)
        notes([f"by {level}, as {count} pods are too many to show at once; --by pod shows them"])
    table = folded(_table(ask, ask.cluster), ask.groups(level))
    style = Style.COLOUR if on_terminal() else Style.PLAIN
    for text in grid_text(table, style, sys.stdout.encoding, width):
        click.echo(text, nl=False)


def _print_cells(ask: _Ask) -> None:
    from generators.reachability import matrix as matrices
    from generators.reachability.levels import Distance, group_cells

    level = Distance(ask.by or Distance.POD)
    if level is not Distance.POD:
        cells = progress(ask.cells(), len(ask.asked))
        found = group_cells(cells, ask.groups(level))
        documents = [
            {
                **matrices.cell_document(each.cell),
                "counts": {verdict.value: each.counts[verdict] for verdict in sorted(each.counts)},
            }
            for each in found
        ]
        _print_documents(ask, documents)
    elif ask.output == "json":
        cells = progress(ask.cells(), len(ask.asked))
        pieces = matrices.matrix_text(ask.engine, ask.assumed, cells)
        while text := "".join(islice(pieces, _PIECES)):
            click.echo(text, nl=False)
    else:
        _print_documents(ask, [matrices.cell_document(cell) for cell in ask.cells()])


def _print_documents(ask: _Ask, documents: Sequence[Mapping[str, object]]) -> None:
    answer = {"engine": ask.engine, "assumptions": list(ask.assumed), "cells": documents}
    click.echo(structured(answer, ask.output), nl=False)


def _compare(ask: _Ask, former: Cluster) -> bool:
    """Print what is otherwise than in `former`; whether anything is."""
    from generators.reachability import changes
    from generators.reachability.matrix import answer

    found = tuple(changes.changes(_table(ask, former), _table(ask, ask.cluster)))
    cells = tuple(answer(ask.engine, ask.cluster, [change.question for change in found]))
    if ask.output == TABLE:
        for line in changes.text(_lines(ask, found, cells), len(ask.asked)):
            click.echo(line)
    else:
        pairs = zip(found, cells, strict=True)
        _print_documents(ask, [changes.document(*pair) for pair in pairs])
    return bool(found)


def _lines(ask: _Ask, found: Sequence[VerdictChange], cells: Sequence[Cell]) -> Iterable[Line]:
    """Of changed answers, at the level that is asked for, or the nearest that fits the screen."""
    from generators.reachability import changes
    from generators.reachability.levels import Distance

    _, height = screen()
    levels = [Distance(ask.by)] if ask.by is not None else list(Distance)
    if ask.cluster.config is None and ask.by is None:
        levels.remove(Distance.TENANT)
    by_level = {each: changes.lines(found, cells, ask.groups(each)) for each in levels}
    counted = {level: len(lines) for level, lines in by_level.items()}
    return by_level[changes.chosen_level(counted, height - _BESIDE_A_GRID)]


def _as_expected(ask: _Ask, expect: str) -> bool:
    """Whether every answer is the expected one; that a pod reaches itself is not counted."""
    from generators.reachability.protocols import port_text
    from generators.reachability.verdicts import Reason, decided_by, meets

    counted = [
        (cell, count)
        for cell, count in _table(ask, ask.cluster).counts()
        if cell.ingress.reason is not Reason.SELF
    ]
    total = sum(count for _, count in counted)
    others = [(cell, count) for cell, count in counted if not meets(cell.verdict, expect)]
    if total and not others:
        return True
    if not total:
        click.echo(f"expected {expect}, but nothing was asked", err=True)
        return False
    first, _ = min(others)
    click.echo(
        f"expected {expect}, but {sum(count for _, count in others)} of {total} are otherwise:"
        f" {first.source} -> {first.destination} {port_text(first.port, first.protocol)} is"
        f" {first.verdict.value} by {decided_by(first)}",
        err=True,
    )
    return False
