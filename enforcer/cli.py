"""Commands of the node side: the agent, and the questions one asks it.

Everything heavy is imported by the sub-command that needs it.
"""

from __future__ import annotations

import click

from enforcer.commands.audit import audit
from enforcer.commands.bpf import bpf
from enforcer.commands.endpoint import endpoint, identity
from enforcer.commands.flows import monitor, observe
from enforcer.commands.listing import listing
from enforcer.commands.node import enforcer
from enforcer.commands.policies import policy
from enforcer.commands.prove import prove
from enforcer.commands.report import report
from enforcer.commands.status import status, sysdump
from enforcer.commands.trace import trace


@click.group()
def cli() -> None:
    """Commands of this package."""


COMMANDS = (
    *(enforcer, endpoint, identity, policy, bpf),
    *(status, audit, sysdump, monitor, observe, listing, trace, prove, report),
)
for command in COMMANDS:
    cli.add_command(command)
