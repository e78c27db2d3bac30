"""Commands of the node side: the agent, and the questions one asks it.

Everything heavy is imported by the sub-command that needs it.
"""

from __future__ import annotations

import click

from enforcer.commands.answers import endpoint, status
from enforcer.commands.flows import monitor, observe
from enforcer.commands.node import enforcer
from enforcer.lab.commands import lab


@click.group()
def cli() -> None:
    """Commands of this package."""


for command in (lab, enforcer, endpoint, status, monitor, observe):
    cli.add_command(command)
