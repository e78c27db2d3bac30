"""`ringfence version` and `ringfence completion`, as kubectl has them."""

from __future__ import annotations

from importlib.metadata import version as version_of

import click
from click.shell_completion import get_completion_class

from generators.errors import RingfenceError

PROGRAM = "ringfence"


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"{PROGRAM} {version_of(PROGRAM)}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    \b
    bash:  source <(ringfence completion bash)
    zsh:   source <(ringfence completion zsh)
    fish:  ringfence completion fish | source
    """
    found = get_completion_class(shell)
    root = context.find_root().command
    if found is None:
        raise RingfenceError(f"completion for {shell} is not there; use bash, zsh or fish")
    click.echo(found(root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
