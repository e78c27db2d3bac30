"""Options that webhook and controller share, and their listening sockets. Nothing heavy."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from generators.commands.cluster import cluster_options
from generators.labels import RECORD_NAMESPACE

BACKLOG = 1024
LARGEST_PORT = 65535
F = TypeVar("F", bound=Callable[..., Any])
EXISTING_FILE = click.Path(path_type=Path)

kubeconfig_option = cluster_options("The API server.")
state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False, writable=True),
    metavar="DIR",
    help="Keep the last good tenant file here, to start from while the file is broken.",
)


def tenant_file_option(what: str) -> Callable[[F], F]:
    """`--config`, a file that is there."""
    return click.option(
        "-c",
        "--config",
        "tenant_file",
        type=EXISTING_FILE,
        required=True,
        metavar="FILE",
        help=what,
    )


def namespace_option(what: str) -> Callable[[F], F]:
    """`--namespace`, by default the system namespace."""
    return click.option(
        "--namespace",
        default=RECORD_NAMESPACE,
        show_default=True,
        metavar="NAME",
        help=what,
    )


def policies_option(what: str) -> Callable[[F], F]:
    """`--policies`, any number."""
    return click.option(
        "--policies",
        multiple=True,
        callback=policy_sources,
        metavar="PATH|cluster",
        help=what,
    )


def allow_kind_option(what: str) -> Callable[[F], F]:
    """`--allow-kind`, any number."""
    return click.option("--allow-kind", "allowed_kinds", multiple=True, metavar="KIND", help=what)


def listen_option(name: str, what: str) -> Callable[[F], F]:
    """An address to listen on, or none."""
    return click.option(name, type=address, metavar="HOST:PORT", help=what)


def address(value: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (every address)."""
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not port.isascii() or not port.isdigit() or int(port) > LARGEST_PORT:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:8443")
    if ":" in host and not bracketed:
        raise click.BadParameter(f"{value!r}: write an IPv6 address in brackets, [::1]:8443")
    return host, int(port)


def network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address, or a network as a CIDR."""
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 10.0.0.1 or 10.0.0.0/24") from error


def policy_sources(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Values of `--policies`; standard input cannot be read again when it changes."""
    if "-" in given:
        raise click.BadParameter("write files, folders or the word cluster")
    return given


def bound(option: str, address: tuple[str, int]) -> socket.socket:
    """A listening socket; a port in use is an error of the command."""
    try:
        return listen(*address)
    except OSError as error:
        problem = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
        raise click.BadParameter(f"{problem}; choose another", param_hint=option) from error


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; an empty host is every address that there is."""
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
        )
    wanted = host or "0.0.0.0"  # noqa: S104  # asked for by leaving the host out
    family, *_, address = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)
