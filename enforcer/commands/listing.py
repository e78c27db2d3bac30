"""`ringfence list nodes|namespaces`: those whose flows can be observed here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import Json, emit, no_headers_option, picked, table
from generators.documents.json import mappings
from generators.output import output_option


@click.group("list")
def listing() -> None:
    """List the nodes or namespaces whose flows are available here."""


@listing.command("nodes")
@run_dir_option
@output_option
@no_headers_option
def list_nodes(run_dir: Path, output: str, no_headers: bool) -> None:
    """List the nodes of the cluster, and how many flows the agent of this one keeps."""

    found = mappings(ask(run_dir, {"command": "nodes"}).get("nodes"))
    heads = ("NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS", "ADDRESSES")
    emit(output, found, lambda: table(heads, map(_node, found), headers=not no_headers))


@listing.command("namespaces")
@run_dir_option
@output_option
@no_headers_option
def list_namespaces(run_dir: Path, output: str, no_headers: bool) -> None:
    """List the namespaces of the flows that are remembered, with tenant, flows and drops."""

    found = mappings(ask(run_dir, {"command": "namespaces"}).get("namespaces"))
    keys = ("namespace", "tenant", "flows", "dropped")
    heads = [key.upper() for key in keys]
    emit(output, found, lambda: table(heads, picked(found, keys), headers=not no_headers))


def _node(item: Json) -> Sequence[object]:
    name, state, addresses = item.get("name"), str(item.get("state")), item.get("addresses")
    uptime, seen, kept, most = (
        value if isinstance(value := item.get(key), int) else None
        for key in ("uptime_ns", "seen_flows", "num_flows", "max_flows")
    )
    if uptime is None or seen is None or kept is None or not most:
        return name, state.capitalize(), "N/A", "N/A", "N/A", addresses
    seconds = uptime / 1_000_000_000
    return (
        name,
        state.capitalize(),
        _age(int(seconds)),
        f"{seen / max(seconds, 1):.2f}",
        f"{kept}/{most} ({kept / most * 100:.2f}%)",
        addresses,
    )


def _age(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return (
        f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
    )
