"""`ringfence matrix`: who reaches whom, answered by one of the engines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
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
from generators.output import Output, on_terminal, output_option, progress, structured, warn

if TYPE_CHECKING:
    from generators.reachability.grid import Table
    from generators.reachability.verdicts import Cell

_PIECES = 1000
"""Cells that are printed at once."""


@click.command()
@config_option
@objects_option
@kubeconfig_option
@click.option(
    "--instead-of",
    "former_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Print only cells whose verdict this tenant file would change.",
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
@click.option("--from", "source", metavar="NS/POD", help="Only from this pod or address.")
@click.option(
    "--to",
    "destination",
    metavar="NS/POD",
    help="Only to this pod, address or Service (svc/NS/NAME).",
)
@click.option(
    "--external",
    "externals",
    multiple=True,
    metavar="ADDR",
    help="Also ask about this address outside the cluster.",
)
@strict_option
@output_option
def matrix(
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: str | None,
    former_file: Path | None,
    ports: tuple[str, ...],
    engine: str,
    source: str | None,
    destination: str | None,
    externals: tuple[str, ...],
    strict: bool,
    output: Output,
) -> None:
    """Print for each pair of pods, port and address family whether a connection passes."""
    from generators.reachability import matrix as matrices

    kubeconfig = one_source(files, kubeconfig)
    cluster = load_cluster(config_file, files, kubeconfig)
    wanted = [matrices.PortProtocol.parse(text) for text in ports]
    asked = matrices.questions(cluster, wanted, externals, source, destination)
    if not asked:
        warn(["no cells: no pair of pods with addresses, or no port is declared (give --port)"])
    assumed = assumed_of(cluster, (*asked.sources, *asked.destinations), strict)
    former = load_cluster(former_file, files, kubeconfig) if former_file is not None else None
    if former is None and engine == matrices.EVALUATE and Output(output) is Output.TABLE:
        from generators.reachability.classes import table

        _print_table(table(cluster, asked, progress))
        return
    cells = matrices.answer(engine, cluster, asked)
    if former is not None:
        cells = _changed(matrices.answer(engine, former, asked), cells)
    if Output(output) is Output.TABLE:
        from generators.reachability.grid import table_of

        _print_table(table_of(cells))
    elif Output(output) is Output.JSON:
        pieces = matrices.matrix_text(engine, assumed, progress(cells, len(asked)))
        while text := "".join(islice(pieces, _PIECES)):
            click.echo(text, nl=False)
    else:
        document = matrices.matrix_document(engine, assumed, cells)
        click.echo(structured(document, Output(output)), nl=False)


def _changed(before: Iterable[Cell], after: Iterable[Cell]) -> Iterator[Cell]:
    """The answers that differ; both are to the same questions."""
    return (new for old, new in zip(before, after, strict=True) if old.verdict != new.verdict)


def _print_table(table: Table) -> None:
    from generators.reachability.grid import Style, grid_text

    style = Style.COLOUR if on_terminal() else Style.PLAIN
    for text in grid_text(table, style, sys.stdout.encoding):
        click.echo(text, nl=False)
