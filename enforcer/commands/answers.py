"""Questions to the agent of this node: endpoints, status, and what happens to packets."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option


@click.group()
def endpoint() -> None:
    """The pods under enforcement on this node."""


@endpoint.command("list")
@run_dir_option
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@click.option("--no-headers", is_flag=True, help="Leave out the table's head.")
def endpoint_list(run_dir: Path, output: str, no_headers: bool) -> None:
    """List the endpoints with their policy enforcement."""
    from enforcer import show

    answer = ask(run_dir, {"command": "endpoints"})
    found = show.mappings(answer.get("endpoints"))
    if output == "json":
        click.echo(show.pretty(found))
    else:
        click.echo(show.endpoint_table(found, headers=not no_headers), nl=False)


@click.command()
@run_dir_option
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
def status(run_dir: Path, output: str) -> None:
    """Say what the agent enforces, what it does not and why; exit 1 if anything is wrong."""
    from enforcer import show

    answer = ask(run_dir, {"command": "status"})
    click.echo(show.pretty(answer) if output == "json" else show.status_text(answer))
    if not show.healthy(answer):
        raise click.exceptions.Exit(1)
