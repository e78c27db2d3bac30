"""`ringfence status`, `sysdump`: how the agent is doing, on a page or in a file."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import emit
from generators.output import output_option

EXIT_NO = 1


@click.command()
@run_dir_option
@click.option("-v", "--verbose", is_flag=True, help="Show every source and map.")
@output_option
def status(run_dir: Path, verbose: bool, output: str) -> None:
    """Say what the agent enforces, what it does not and why; exit 1 if anything is wrong."""
    from enforcer.commands import show

    answer = ask(run_dir, {"command": "status"})
    emit(output, answer, lambda: show.status_text(answer, verbose=verbose))
    if not show.healthy(answer):
        raise click.exceptions.Exit(EXIT_NO)


@click.command()
@run_dir_option
@click.option(
    "--output-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; default ringfence-sysdump-NODE.tar.gz.",
)
def sysdump(run_dir: Path, output_file: Path | None) -> None:
    """Write one archive for a bug report: every answer of the agent, no secrets."""
    from enforcer.answers.sysdump import collect

    path = collect(run_dir, output_file)
    click.echo(path)
