"""`ringfence version` and `ringfence completion`, as kubectl has them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as version_of

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from generators.output import form_option, structured

PROGRAM = "ringfence"
VARIABLE = "_RINGFENCE_COMPLETE"
"""By which click knows the question of a shell; follows from the program's name."""
SHELLS: Mapping[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@form_option("text", "json", "yaml")
def version(output: str) -> None:
    """Print the version."""
    number = version_of(PROGRAM)
    if output == "text":
        click.echo(f"{PROGRAM} {number}")
    else:
        click.echo(structured({"version": number}, output), nl=False)


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(context: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command, as its --help does."""
    found = context.find_root()
    for word in words:
        command = found.command
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{found.command_path} has no commands of its own", found)
        name, below, _ = command.resolve_command(found, [word])
        if below is not None:
            found = click.Context(below, parent=found, info_name=name)
    click.echo(found.get_help())


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    \b
    bash:  source <(ringfence completion bash)
    zsh:   source <(ringfence completion zsh)
    fish:  ringfence completion fish | source
    """
    complete = SHELLS[shell](context.find_root().command, {}, PROGRAM, VARIABLE)
    click.echo(complete.source())
