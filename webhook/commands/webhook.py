"""Commands of the cluster side: `ringfence webhook ...`; those of the controller are beside.

Flask, gunicorn and cryptography are imported only by the command that runs.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.cluster import cluster_options
from webhook.commands import namespace as namespace_cli
from webhook.commands.controller import controller
from webhook.commands.install import agents_gone, forget, unregister, verify
from webhook.commands.options import (
    EXISTING_FILE,
    address,
    allow_kind_option,
    bound,
    listen_option,
    namespace_option,
    network,
    policies_option,
    state_dir_option,
    tenant_file_option,
)
from webhook.settings import DEFAULT_CONTROLLER, DRAIN_SECONDS, REQUEST_SECONDS, WebhookSettings

if TYPE_CHECKING:
    from generators.kube.config import ApiServer


@click.group()
def cli() -> None:
    """Commands of this package."""


cli.add_command(controller)
for command in (verify, agents_gone, unregister, forget):
    controller.add_command(command)
cli.add_command(namespace_cli.namespace)


@cli.group()
def webhook() -> None:
    """Label namespaces as they are created, and refuse tampering with their tenant."""


@webhook.command()
@tenant_file_option("The tenant file; read again whenever it changes.")
@click.option(
    "--listen",
    type=address,
    metavar="HOST:PORT",
    required=True,
    help="Address that serves admission reviews.",
)
@click.option(
    "--tls-cert",
    type=EXISTING_FILE,
    required=True,
    metavar="FILE",
    help="Certificate (PEM); a renewed one is served at once.",
)
@click.option("--tls-key", type=EXISTING_FILE, required=True, metavar="FILE", help="Its key (PEM).")
@listen_option("--metrics-listen", "Address for Prometheus to scrape, without TLS.")
@listen_option("--health-listen", "Address of /livez and /readyz for the kubelet, without TLS.")
@click.option(
    "--allow-from",
    multiple=True,
    type=network,
    metavar="CIDR",
    help="Address of an API server; all others are refused. May be repeated.",
)
@click.option(
    "--client-ca",
    type=EXISTING_FILE,
    metavar="FILE",
    help="CAs (PEM) that must have signed a client's certificate; a renewed file is used at once.",
)
@click.option(
    "--client-name",
    "client_names",
    multiple=True,
    metavar="NAME",
    help="Common name that a client's certificate must have; may be repeated.",
)
@state_dir_option
@click.option(
    "--controller-user",
    default=DEFAULT_CONTROLLER,
    show_default=True,
    metavar="NAME",
    help="User who may write generated NetworkPolicies and tenant labels, besides admins.",
)
@policies_option("Kyverno policies: files, folders, or those of the API server; may be repeated.")
@cluster_options("The API server, for policies.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=DRAIN_SECONDS,
    show_default=True,
    help="How long to keep serving after SIGTERM, while not ready.",
)
@click.option(
    "--request-seconds",
    type=click.FloatRange(min=0.1),
    default=REQUEST_SECONDS,
    show_default=True,
    help="How long a client may take to send one request.",
)
def serve(
    tenant_file: Path,
    listen: tuple[str, int],
    tls_cert: Path,
    tls_key: Path,
    metrics_listen: tuple[str, int] | None,
    health_listen: tuple[str, int] | None,
    allow_from: tuple[IPv4Network | IPv6Network, ...],
    client_ca: Path | None,
    client_names: tuple[str, ...],
    state_dir: Path | None,
    controller_user: str,
    policies: tuple[str, ...],
    kubeconfig: ApiServer,
    drain_seconds: float,
    request_seconds: float,
) -> None:
    """Answer AdmissionReviews on /mutate and /validate; GET /livez, /readyz; logs on stderr.

    With --policies also on /mutate-policies/fail, /mutate-policies/ignore and /validate-policies.

    A tenant file or certificate that is wrong at the start ends the command, unless --state-dir
    has a good tenant file; one that becomes wrong later is refused and the last good one stays.
    """
    if client_names and client_ca is None:
        raise click.UsageError("--client-name needs --client-ca")
    from generators.process import logs
    from webhook.serving import server
    from webhook.serving.state import load_state

    settings = WebhookSettings(
        tenant_file,
        tls_cert,
        tls_key,
        controller_user,
        drain_seconds,
        request_seconds,
        policies,
        kubeconfig,
        client_ca,
        client_names,
        allow_from,
        state_dir,
    )
    state = load_state(settings)
    ports = server.ServingSockets(
        bound("--listen", listen),
        None if metrics_listen is None else bound("--metrics-listen", metrics_listen),
        None if health_listen is None else bound("--health-listen", health_listen),
    )
    logs.configure()
    server.serve(state, ports)


@webhook.command()
@namespace_option("The webhook's own namespace.")
@policies_option("As for `serve`.")
@allow_kind_option("As for the controller: contexts may read it by path.")
def rules(namespace: str, policies: tuple[str, ...], allowed_kinds: tuple[str, ...]) -> None:
    """Print the ServiceAccount that the webhook needs, and what policies let it read, as YAML."""
    from generators.documents.writing import to_yaml
    from webhook import rbac
    from webhook.background import access

    rights = access.rights(policies, allowed_kinds)
    click.echo(to_yaml(rbac.account(rbac.WEBHOOK, namespace, rights)), nl=False)


@webhook.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where tls.crt, tls.key and ca.crt go; made when missing.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    metavar="NAME_OR_IP",
    help="Host name or address that clients use; may be repeated.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=90,
    show_default=True,
    help="How long the certificate is valid.",
)
def certificates(directory: Path, hosts: tuple[str, ...], days: int) -> None:
    """Make a CA and a serving certificate for a webhook outside a cluster.

    Each call makes a new CA; give ca.crt to the webhook's clients.
    """
    from datetime import UTC, datetime

    from generators.certificates import issue, new_authority
    from webhook.registration.certificates import write_files

    now = datetime.now(UTC)
    authority = new_authority(now, days)
    try:
        leaf = issue(authority, hosts, now, days)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--host") from error
    try:
        write_files(directory, authority.pem, leaf)
    except OSError as error:
        problem = f"cannot write {error.filename}: {error.strerror}"
        raise click.BadParameter(problem, param_hint="--directory") from error
