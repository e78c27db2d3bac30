"""`ringfence policy get|wait|selectors`: what the agent of this node holds of the policies.

Merged with the Kyverno commands of the same group.
"""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import emit, no_headers_option, picked, table
from generators.documents.json import items, mappings
from generators.output import form_option, output_option, structured

EXIT_NO = 1
DEFAULT_TIMEOUT = 60.0


@click.group()
def policy() -> None:
    """NetworkPolicies in force, and Kyverno policies."""


@policy.command("get")
@click.argument("name", metavar="[NAMESPACE/NAME]", default="")
@run_dir_option
@form_option("text", "json", "yaml")
def policy_get(name: str, run_dir: Path, output: str) -> None:
    """Print the policies as JSON, with the object each rule comes from; last the revision."""
    found = ask(run_dir, {"command": "policies", "policy": name})
    if output != "text":
        emit(output, found, str)
        return
    revision = found.pop("revision")
    listed = [*items(found, "policies"), *items(found, "tenantWalls")]
    click.echo(structured(listed, "json"), nl=False)
    click.echo(f"Revision: {revision}")


@policy.command("wait")
@click.argument("revision", type=int)
@run_dir_option
@click.option("--timeout", default=DEFAULT_TIMEOUT, show_default=True, metavar="SECONDS")
@output_option
def policy_wait(revision: int, run_dir: Path, timeout: float, output: str) -> None:
    """Wait until every endpoint here has a revision; exit 1 with those that lag behind."""

    request = {"command": "policy-wait", "revision": revision, "timeout": timeout}
    found = ask(run_dir, request)
    lagging = mappings(found.get("laggards"))

    def text() -> str:
        lines = [f"Revision: {found.get('revision')}"]
        for item in lagging:
            lines.append(f"lagging: {item.get('endpoint') or 'all'}: {item.get('reason')}")
        return "".join(f"{line}\n" for line in lines)

    emit(output, found, text)
    if not found.get("realized"):
        raise click.exceptions.Exit(EXIT_NO)


@policy.command("selectors")
@run_dir_option
@output_option
@no_headers_option
def policy_selectors(run_dir: Path, output: str, no_headers: bool) -> None:
    """List the selectors in use: endpoints that use each, pods and identities that it means."""

    found = mappings(ask(run_dir, {"command": "selectors"}).get("selectors"))
    heads = ("SELECTOR", "USERS", "PODS", "IDENTITIES")
    rows = picked(found, ("selector", "users", "pods", "identities"))
    emit(output, found, lambda: table(heads, rows, headers=not no_headers))
