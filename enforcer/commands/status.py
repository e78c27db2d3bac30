"""`ringfence status`, `audit report`, `sysdump`: how the agent is doing, on a page or in a file."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import emit, no_headers_option, picked, table
from generators.documents.json import mappings
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


@click.group()
def audit() -> None:
    """Show what audit mode, of the tenant file or a namespace, only reports."""


@audit.command("report")
@run_dir_option
@output_option
@no_headers_option
def audit_report(run_dir: Path, output: str, no_headers: bool) -> None:
    """List what would be dropped: who, whom, which port, and who would refuse."""

    found = ask(run_dir, {"command": "audit"})
    flows, totals = mappings(found.get("flows")), mappings(found.get("totals"))

    def text() -> str:
        if not flows and not totals:
            return "No audited packet would be dropped.\n"
        keys = ("subject", "direction", "peer", "peerTenant", "port", "protocol", "by", "source")
        heads = ("POD", "DIRECTION", "PEER", "TENANT", "PORT", "PROTO", "REFUSED BY", "AT", "FLOWS")
        seen = table(heads, picked(flows, (*keys, "flows")), headers=not no_headers)
        counted = ("POD", "DIRECTION", "REASON", "REFUSED BY", "PACKETS", "BYTES")
        fields = ("pod", "direction", "reason", "by", "packets", "bytes")
        exact = table(counted, picked(totals, fields), headers=not no_headers)
        return f"{seen}\n{exact}"

    emit(output, found, text)


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
