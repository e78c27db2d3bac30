"""`ringfence controller verify`, `unregister` and `forget`: what a chart's test and hooks run.

Everything heavy is imported by the command that runs.
"""

from __future__ import annotations

from pathlib import Path

import click

from generators.record import RECORD_NAMESPACE
from webhook.options import EXISTING_FILE

POLL_SECONDS = 1.0
EXIT_NO = 1

kubeconfig_option = click.option(
    "--kubeconfig",
    metavar="FILE",
    help="The API server; without it KUBECONFIG, then the pod's ServiceAccount.",
)
namespace_option = click.option(
    "--namespace",
    default=RECORD_NAMESPACE,
    show_default=True,
    metavar="NAME",
    help="The controller's own namespace.",
)
patience_option = click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to try again before giving up.",
)


@click.command()
@click.option(
    "-c",
    "--config",
    "tenant_file",
    type=EXISTING_FILE,
    required=True,
    metavar="FILE",
    help="The tenant file that should be in force.",
)
@kubeconfig_option
@namespace_option
@patience_option
@click.pass_context
def verify(
    context: click.Context,
    tenant_file: Path,
    kubeconfig: str | None,
    namespace: str,
    wait_seconds: float,
) -> None:
    """Say whether tenant file, namespaces and admission are as they should be; exit 1 if not."""
    import time

    from generators.kube.client import Client
    from generators.tenants.load import load_tenants
    from webhook.leaving import patiently
    from webhook.verifying import findings

    digest = load_tenants(tenant_file).digest
    deadline = time.monotonic() + wait_seconds
    lines: list[str] = []
    with Client.connect(kubeconfig, user_agent="ringfence-verify") as client:

        def look() -> None:
            lines[:] = findings(client, namespace, digest)

        patiently(wait_seconds, look)
        while any(line.startswith("[-]") for line in lines) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            look()
    click.echo("\n".join(lines))
    if any(line.startswith("[-]") for line in lines):
        context.exit(EXIT_NO)


@click.command()
@kubeconfig_option
@namespace_option
@patience_option
def unregister(kubeconfig: str | None, namespace: str, wait_seconds: float) -> None:
    """Remove Ringfence's admission objects, and make controllers stand by for five minutes.

    Run it before the webhook goes: without it, a webhook that fails closed would refuse changes of
    namespaces for ever.
    """
    from generators.kube.client import Client
    from webhook.leaving import patiently
    from webhook.leaving import unregister as leave

    with Client.connect(kubeconfig, user_agent="ringfence-uninstall") as client:
        patiently(wait_seconds, lambda: leave(client, namespace, click.echo))


@click.command()
@click.option(
    "--isolation",
    is_flag=True,
    help="Also remove all generated NetworkPolicies and the record of tenants.",
)
@kubeconfig_option
@namespace_option
@patience_option
def forget(isolation: bool, kubeconfig: str | None, namespace: str, wait_seconds: float) -> None:
    """Remove what the controller kept in its namespace; run it when no controller runs any more."""
    from generators.kube.client import Client
    from webhook.leaving import forget as remove
    from webhook.leaving import patiently

    with Client.connect(kubeconfig, user_agent="ringfence-uninstall") as client:
        patiently(wait_seconds, lambda: remove(client, namespace, click.echo, isolation=isolation))
