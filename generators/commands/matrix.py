"""`ringfence matrix`: who reaches whom, answered by one of the engines."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from generators.commands.inputs import config_option, files_option, load_cluster
from generators.output import Output, on_terminal, output_option, structured, warn


@click.command()
@config_option
@files_option
@click.option("--port", "ports", multiple=True, metavar="PORT/PROTO", help="Ask only these.")
@click.option("--engine", default="evaluate", show_default=True, help="evaluate, maps or kernel.")
@click.option("--from", "source", metavar="NS/POD", help="Only from this pod or address.")
@click.option("--to", "destination", metavar="NS/POD", help="Only to this pod or address.")
@click.option("--external", "externals", multiple=True, metavar="ADDR", help="An address outside.")
@output_option
def matrix(
    config_file: Path | None,
    files: tuple[str, ...],
    ports: tuple[str, ...],
    engine: str,
    source: str | None,
    destination: str | None,
    externals: tuple[str, ...],
    output: Output,
) -> None:
    """Print for each pair of pods, port and address family whether a connection passes."""
    from generators import matrix as matrices

    cluster = load_cluster(config_file, files)
    wanted = [matrices.PortProtocol.parse(text) for text in ports]
    asked = matrices.questions(cluster, wanted, externals, source, destination)
    if not asked:
        warn(["no cells: no pair of pods with addresses, or no port is declared (give --port)"])
    cells = matrices.answer(engine, cluster, asked)
    if Output(output) is not Output.TABLE:
        click.echo(structured(matrices.matrix_document(engine, cells), Output(output)), nl=False)
        return
    from generators.grid import Style, grid_text

    style = Style.COLOUR if on_terminal() else Style.PLAIN
    click.echo(grid_text(cells, style, sys.stdout.encoding), nl=False)
