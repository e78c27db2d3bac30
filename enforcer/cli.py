"""Commands of the node side: the agent, and the questions one asks it.

Everything heavy is imported by the sub-command that needs it.
"""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.control import DEFAULT_RUN_DIR
from enforcer.lab.commands import lab
from generators.errors import RingfenceError

DEFAULT_PIN_DIR = Path("/sys/fs/bpf/ringfence")

run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_RUN_DIR,
    show_default=True,
    help="Where the agent's control socket is.",
)
pin_dir_option = click.option(
    "--pin-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_PIN_DIR,
    show_default=True,
    help="Where programs and maps are pinned, on a bpf filesystem.",
)


class Usage(RingfenceError):
    """An option is missing or cannot be honoured."""


@click.group()
def cli() -> None:
    """Commands of this package."""


cli.add_command(lab)


cli.add_command(lab)


@cli.group()
def enforcer() -> None:
    """The node agent."""


@enforcer.command("run")
@click.option("--node-name", required=True, help="The node whose pods are enforced here.")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path, dir_okay=False), help="The tenant file."
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Directory of YAML or JSON manifests to enforce; watched.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), hidden=True)
@pin_dir_option
@run_dir_option
@click.option(
    "--start-mode",
    type=click.Choice(["strict"]),
    default="strict",
    show_default=True,
    help="What a pod may do before its policy is known: nothing.",
)
@click.option("--metrics-listen", metavar="HOST:PORT", help="Serve Prometheus metrics here.")
def run_agent(
    node_name: str,
    config: Path | None,
    manifests: Path | None,
    kubeconfig: Path | None,
    pin_dir: Path,
    run_dir: Path,
    start_mode: str,
    metrics_listen: str | None,
) -> None:
    """Enforce the policies of this node's pods until SIGTERM; they stay in force afterwards."""
    if kubeconfig is not None or manifests is None:
        raise Usage("only manifests on disk can be enforced so far; give --manifests DIR")
    scraped_at = _address(metrics_listen) if metrics_listen else None
    from enforcer.agent import Settings
    from enforcer.process import run

    run(Settings(node_name, manifests, config, pin_dir, run_dir), scraped_at)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise Usage(f'--metrics-listen "{text}" is not HOST:PORT')
    return host.strip("[]"), int(port)


@enforcer.command()
@pin_dir_option
def uninstall(pin_dir: Path) -> None:
    """Detach everything that is pinned below --pin-dir, and remove the pins: enforcement ends."""
    from enforcer import attach

    attach.uninstall(pin_dir)


@cli.group()
def endpoint() -> None:
    """The pods under enforcement on this node."""


@endpoint.command("list")
@run_dir_option
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@click.option("--no-headers", is_flag=True, help="Leave out the table's head.")
def endpoint_list(run_dir: Path, output: str, no_headers: bool) -> None:
    """List the endpoints with their policy enforcement."""
    from enforcer import show

    answer = _ask(run_dir, {"command": "endpoints"})
    found = show.mappings(answer.get("endpoints"))
    if output == "json":
        click.echo(show.pretty(found))
    else:
        click.echo(show.endpoint_table(found, headers=not no_headers), nl=False)


@cli.command()
@run_dir_option
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
def status(run_dir: Path, output: str) -> None:
    """Say what the agent enforces, what it does not and why; exit 1 if anything is wrong."""
    from enforcer import show

    answer = _ask(run_dir, {"command": "status"})
    click.echo(show.pretty(answer) if output == "json" else show.status_text(answer))
    if not show.healthy(answer):
        raise click.exceptions.Exit(1)


@cli.command()
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


@cli.command()
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


def _ask(run_dir: Path, request: dict[str, object]) -> dict[str, object]:
    from enforcer import control

    answer = control.ask(run_dir, request)
    if answer.get("error"):
        raise Usage(str(answer["error"]))
    return answer
