"""`ringfence endpoint` and `ringfence identity`: the pods under enforcement, and their
identities."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import (
    document_option,
    emit,
    no_headers_option,
    picked,
    rendered,
    table,
)
from generators.documents.json import mappings
from generators.output import output_option, show, watch_option

endpoint_argument = click.argument("name", metavar="ID|NAMESPACE/POD")


@click.group()
def endpoint() -> None:
    """The pods under enforcement on this node."""


@endpoint.command("list")
@run_dir_option
@output_option
@no_headers_option
@watch_option
def endpoint_list(run_dir: Path, output: str, no_headers: bool, watch: bool) -> None:
    """List the endpoints with their policy enforcement."""
    from enforcer.commands.show import endpoint_table

    def text() -> str:
        found = mappings(ask(run_dir, {"command": "endpoints"}).get("endpoints"))
        return rendered(output, found, lambda: endpoint_table(found, headers=not no_headers))

    show(output, watch, text)


@endpoint.command("get")
@endpoint_argument
@run_dir_option
@document_option
def endpoint_get(name: str, run_dir: Path, output: str) -> None:
    """Everything about one endpoint: policies, revision, exact counts."""
    found = ask(run_dir, {"command": "endpoint", "endpoint": name})
    emit(output, found, str)


@endpoint.command("log")
@endpoint_argument
@run_dir_option
@output_option
@no_headers_option
def endpoint_log(name: str, run_dir: Path, output: str, no_headers: bool) -> None:
    """What happened to one endpoint, oldest first; also of one that is gone."""

    found = mappings(ask(run_dir, {"command": "endpoint-log", "endpoint": name}).get("log"))
    heads = ("TIMESTAMP", "ENDPOINT", "REVISION", "MESSAGE")
    rows = picked(found, ("time", "endpoint", "revision", "message"))
    emit(output, found, lambda: table(heads, rows, headers=not no_headers))


@endpoint.command("health")
@endpoint_argument
@run_dir_option
@output_option
def endpoint_health(name: str, run_dir: Path, output: str) -> None:
    """Whether one endpoint is enforced as it should be; exit 1 if not."""
    found = ask(run_dir, {"command": "endpoint-health", "endpoint": name})
    shown = ("endpoint", "healthy", "datapath", "attached", "policy")
    rows = [(f"{key.capitalize()}:", found.get(key)) for key in shown]
    emit(output, found, lambda: table((), rows, headers=False))
    if not found.get("healthy"):
        raise click.exceptions.Exit(1)


@click.group()
def identity() -> None:
    """The identities in use: pods that no rule can tell apart share one."""


@identity.command("list")
@run_dir_option
@output_option
@no_headers_option
def identity_list(run_dir: Path, output: str, no_headers: bool) -> None:
    """List the identities with what their pods have in common."""

    found = mappings(ask(run_dir, {"command": "identities"}).get("identities"))
    heads = ("ID", "TENANT", "PODS", "LABELS")
    rows = picked(found, ("id", "tenant", "pods", "labels"))
    emit(output, found, lambda: table(heads, rows, headers=not no_headers))


@identity.command("get")
@click.argument("number", metavar="ID|NAME")
@run_dir_option
@document_option
def identity_get(number: str, run_dir: Path, output: str) -> None:
    """One identity with its pods."""
    emit(output, ask(run_dir, {"command": "identities", "identity": number}), str)
