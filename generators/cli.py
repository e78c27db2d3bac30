"""The command line's root: collects sub-commands and turns errors into exit codes.

Every package registers one click group under the entry-point group `ringfence.commands`; groups
of one name (`policy` has commands in two packages) are merged. Modules that register must import
nothing heavy at the top.
"""

from __future__ import annotations

import signal
import sys
from importlib.metadata import entry_points

import click

from generators.commands.about import completion, help_command, version
from generators.commands.generate import generate, plan
from generators.commands.matrix import matrix
from generators.commands.policy import policy
from generators.commands.tenants import tenants
from generators.commands.test import test
from generators.commands.trace import trace
from generators.errors import RingfenceError

EXIT_INTERRUPTED = 130
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group()
def cli() -> None:
    """Commands of this package: pure, they need neither root nor a cluster."""


ABOUT = (version, completion, help_command)
for command in (tenants, generate, plan, matrix, trace, test, policy, *ABOUT):
    cli.add_command(command)


class Root(click.Group):
    """Says where a command is that somebody looks for at the root, as kubectl has them there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the groups that have a command of that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            groups = {n: c for n, c in self.commands.items() if isinstance(c, click.Group)}
            there = sorted(name for name, group in groups.items() if args[0] in group.commands)
            if not there or error.possibilities:
                raise
            meant = ", ".join(f"`ringfence {name} {args[0]}`" for name in there)
            raise click.UsageError(f"No such command '{args[0]}'; there are {meant}", ctx) from None


def merge(into: click.Group, group: click.Group) -> None:
    """Add the commands of `group` to `into`; sub-groups of the same name become one."""
    for name, command in group.commands.items():
        present = into.commands.get(name)
        if isinstance(present, click.Group) and isinstance(command, click.Group):
            merge(present, command)
        else:
            into.add_command(command, name)


def root() -> click.Group:
    """The whole `ringfence` command, from the packages that are installed."""

    @click.group(cls=Root, context_settings=SETTINGS)
    @click.version_option(package_name="ringfence", prog_name="ringfence")
    def ringfence() -> None:
        """Keep the tenants of one Kubernetes cluster apart, and explain every dropped packet."""

    # The pure commands come first: a package may extend one of them, as `trace --live` does.
    for point in sorted(
        entry_points(group="ringfence.commands"), key=lambda p: (p.name != "generators", p.name)
    ):
        merge(ringfence, point.load())
    return ringfence


def main() -> None:
    """Entry point of `ringfence`. Errors meant for users are printed without a traceback."""
    # Python leaves SIGINT ignored where it was at the start, as for a script's background job; but
    # whatever follows or waits promises to end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(root().main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except RingfenceError as error:
        click.echo(f"ringfence: {error.for_users()}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
