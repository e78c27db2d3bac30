"""`ringfence bpf`: what the kernel's maps hold right now, with the agent's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from enforcer.answers.control import MOST_CONNECTIONS
from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import Json, emit, no_headers_option, picked, table
from generators.documents.json import mappings
from generators.output import output_option, warn

EXIT_NO = 1
COUNTED = ("reason", "direction", "verdict", "tenant", "packets", "bytes")
ADDRESSES = ("address", "identity", "pod", "node", "tenant", "flags")
ENDPOINTS = (
    *("ifindex", "endpoint", "pod", "tenant", "group", "wall", "generation"),
    *("addresses", "flags"),
)
CONNECTIONS = (
    *("pod", "protocol", "direction", "from", "to", "expiresSeconds", "generation", "flags"),
    *("peerTenant", "rule"),
)
DIFFERENCES = ("map", "what", "key", "wanted", "kernel")
numeric_option = click.option(
    "-n", "--numeric", is_flag=True, help="Print numbers of identities instead of labels."
)


@click.group()
def bpf() -> None:
    """Show the kernel's maps."""


@bpf.group("policy")
def bpf_policy() -> None:
    """Policy entries."""


def _entries(run_dir: Path, which: str, endpoint: str = "", limit: int | None = None) -> list[Json]:

    request = {"command": "bpf", "table": which, "endpoint": endpoint, "limit": limit}
    answer = ask(run_dir, request)
    if answer.get("more"):
        warn([f"{answer['more']} more exist: raise --limit, or name an --endpoint"])
    return list(mappings(answer.get("entries")))


def _policies(found: Sequence[Json], *, numeric: bool, headers: bool, every: bool) -> str:
    peer = "IDENTITY" if numeric else "LABELS (source:key[=value])"
    keys = [
        *(["pod"] if every else []),
        *("stage", "policy", "direction", "peer" if numeric else "labels", "ports"),
        *("bytes", "packets", "prefix", "rule"),
    ]
    heads = [
        *(["POD"] if every else []),
        *("STAGE", "POLICY", "DIRECTION", peer, "PORT/PROTO"),
        *("BYTES", "PACKETS", "PREFIX", "RULE"),
    ]
    return table(heads, picked(found, keys), headers=headers)


@bpf_policy.command("get")
@click.argument("name", metavar="ID|NAMESPACE/POD", default="")
@click.option("--all", "every", is_flag=True, help="List the entries of all endpoints.")
@run_dir_option
@numeric_option
@output_option
@no_headers_option
def policy_get(
    name: str, every: bool, run_dir: Path, numeric: bool, output: str, no_headers: bool
) -> None:
    """The entries of one endpoint, with exact counts; the tenant wall first."""
    if not name and not every:
        raise click.UsageError("name an endpoint, or give --all")
    found = _entries(run_dir, "policy", name)
    emit(
        output,
        found,
        lambda: _policies(found, numeric=numeric, headers=not no_headers, every=every),
    )


@bpf_policy.command("list")
@click.option("--diff", is_flag=True, help="Only where kernel and agent differ; exit 1 if so.")
@run_dir_option
@numeric_option
@output_option
@no_headers_option
def policy_list(diff: bool, run_dir: Path, numeric: bool, output: str, no_headers: bool) -> None:
    """The entries of all endpoints; with --diff every map's entries that are not as they should."""
    if diff:
        _show_differences(run_dir, output, headers=not no_headers)
        return
    found = _entries(run_dir, "policy")
    emit(
        output,
        found,
        lambda: _policies(found, numeric=numeric, headers=not no_headers, every=True),
    )


def _show_differences(run_dir: Path, output: str, *, headers: bool) -> None:
    found = _entries(run_dir, "diff")

    def text() -> str:
        if not found:
            return "The kernel holds what the agent wants.\n"
        return table([k.upper() for k in DIFFERENCES], picked(found, DIFFERENCES), headers=headers)

    emit(output, found, text)
    if found:
        raise click.exceptions.Exit(EXIT_NO)


def _listing(name: str, which: str, keys: Sequence[str], text: str) -> None:
    """A group with one command `list`."""
    group = click.Group(name, help=text)

    def listed(
        run_dir: Path, endpoint: str, output: str, no_headers: bool, limit: int | None = None
    ) -> None:
        found = [_with_ends(entry) for entry in _entries(run_dir, which, endpoint, limit)]
        if which == "ct":
            found.sort(key=lambda entry: [str(entry.get(key)) for key in CONNECTIONS])
        heads = [key.removesuffix("Seconds").upper() for key in keys]
        emit(output, found, lambda: table(heads, picked(found, keys), headers=not no_headers))

    command: Callable[..., None] = listed
    for option in (no_headers_option, output_option, run_dir_option):
        command = option(command)
    command = click.option(
        "--endpoint", default="", help="Only this endpoint: id or NAMESPACE/POD."
    )(command)
    if which == "ct":
        command = click.option(
            "--limit",
            type=click.IntRange(min=1),
            default=MOST_CONNECTIONS,
            show_default=True,
            help="Print at most this many.",
        )(command)
    group.add_command(click.command("list", help=text)(command))
    bpf.add_command(group)


def _with_ends(entry: Json) -> Json:
    """Connections show both ends as sockets."""
    if "sourcePort" not in entry:
        return entry
    return {
        **entry,
        "from": _socket(entry, "source"),
        "to": _socket(entry, "destination"),
    }


def _socket(entry: Json, end: str) -> str:
    address, port = str(entry.get(end)), entry.get(f"{end}Port")
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


_listing("ct", "ct", CONNECTIONS, "Tracked connections.")
_listing("ipcache", "ipcache", ADDRESSES, "Addresses and their identities.")
_listing("endpoint", "endpoint", ENDPOINTS, "Endpoints as the programs see them.")
_listing("metrics", "metrics", COUNTED, "Exact counts of packets and bytes.")
