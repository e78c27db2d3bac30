"""`ringfence matrix`: who reaches whom, answered by one of the engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.inputs import (
    config_option,
    kubeconfig_option,
    load_cluster,
    objects_option,
    one_source,
)
from generators.output import Output, on_terminal, output_option, structured, warn

if TYPE_CHECKING:
    from generators.verdicts import Cell


@click.command()
@config_option
@objects_option
@kubeconfig_option
@click.option(
    "--instead-of",
    "former_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Print only cells whose verdict this tenant file would decide otherwise.",
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="PORT/PROTO",
    help="Ask only these: 80/TCP, 53/UDP, 9/SCTP, ICMP, IP/47. Default: all that pods declare.",
)
@click.option("--engine", default="evaluate", show_default=True, help="evaluate, maps or kernel.")
@click.option("--from", "source", metavar="NS/POD", help="Only from this pod or address.")
@click.option(
    "--to",
    "destination",
    metavar="NS/POD",
    help="Only to this pod, address or Service (svc/NS/NAME).",
)
@click.option("--external", "externals", multiple=True, metavar="ADDR", help="An address outside.")
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
    output: Output,
) -> None:
    """Print for each pair of pods, port and address family whether a connection passes."""
    from generators import matrix as matrices

    one_source(files, kubeconfig)
    cluster = load_cluster(config_file, files, kubeconfig)
    wanted = [matrices.PortProtocol.parse(text) for text in ports]
    asked = matrices.questions(cluster, wanted, externals, source, destination)
    if not asked:
        warn(["no cells: no pair of pods with addresses, or no port is declared (give --port)"])
    cells = matrices.answer(engine, cluster, asked)
    if former_file is not None:
        former = load_cluster(former_file, files, kubeconfig)
        before = {_asked(cell): cell.verdict for cell in matrices.answer(engine, former, asked)}
        cells = tuple(cell for cell in cells if cell.verdict != before[_asked(cell)])
    if Output(output) is not Output.TABLE:
        click.echo(structured(matrices.matrix_document(engine, cells), Output(output)), nl=False)
        return
    from generators.grid import Style, grid_text

    style = Style.COLOUR if on_terminal() else Style.PLAIN
    click.echo(grid_text(cells, style, sys.stdout.encoding), nl=False)


def _asked(cell: Cell) -> tuple[str, str, str, int, str]:
    return cell.source, cell.destination, cell.protocol, cell.port, cell.family
