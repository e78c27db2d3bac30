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


@click.command()
@run_dir_option
@click.option("-t", "--type", "kind", type=click.Choice(["drop"]), help="Only drops.")
@click.option("--last", default=0, help="Begin with the last N events.", metavar="N")
def monitor(run_dir: Path, kind: str | None, last: int) -> None:
    """Print events as they happen, a line each, drops with the policy that isolates."""
    from enforcer import control, show

    request = {"command": "flows", "last": last, "follow": True}
    for line in control.stream(run_dir, request):
        if kind is None or show.is_drop(line):
            click.echo(show.monitor_line(line))


@click.command()
@run_dir_option
@click.option("--last", default=20, show_default=True, metavar="N", help="How many flows.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new flows.")
@click.option("-o", "output", type=click.Choice(["compact", "json"]), default="compact")
def observe(run_dir: Path, last: int, follow: bool, output: str) -> None:
    """Print the last flows; as JSON lines they are what Hubble's tools read."""
    import json

    from enforcer import control, show

    request = {"command": "flows", "last": last, "follow": follow}
    for line in control.stream(run_dir, request):
        click.echo(json.dumps(line) if output == "json" else show.compact_line(line))
