"""`ringfence version` and `ringfence completion`, as kubectl has them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as version_of

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

PROGRAM = "ringfence"
VARIABLE = "_RINGFENCE_COMPLETE"
"""By which click knows the question of a shell; follows from the program's name."""
SHELLS: Mapping[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"{PROGRAM} {version_of(PROGRAM)}")


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
