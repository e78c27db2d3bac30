"""`ringfence controller verify`, `agents-gone`, `unregister`, `forget`: a chart's test and hooks.

Everything heavy is imported by the command that runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from webhook.commands.options import (
    allow_kind_option,
    kubeconfig_option,
    namespace_option,
    tenant_file_option,
)

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

POLL_SECONDS = 1.0
EXIT_NO = 1

_namespace_option = namespace_option("The controller's own namespace.")
job_option = click.option(
    "--job",
    default="",
    metavar="NAME",
    help="Run by this Job of the chart: do nothing unless an uninstall created it.",
)
patience_option = click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to retry before giving up.",
)


@click.command()
@tenant_file_option("The tenant file that should be in force.")
@kubeconfig_option
@_namespace_option
@allow_kind_option("A kind that policies should be allowed to write; not checked by default.")
@patience_option
@click.pass_context
def verify(
    context: click.Context,
    tenant_file: Path,
    kubeconfig: ApiServer,
    namespace: str,
    allowed_kinds: tuple[str, ...],
    wait_seconds: float,
) -> None:
    """Say whether tenant file, namespaces and admission are as they should be; exit 1 if not."""
    import time

    from generators.checks import healthy, rendered
    from generators.kube.client import Client
    from generators.tenants.load import load_tenants
    from webhook.install.leaving import patiently
    from webhook.install.verifying import findings

    digest, kinds = load_tenants(tenant_file).digest, frozenset(allowed_kinds)
    deadline = time.monotonic() + wait_seconds
    with Client.connect(kubeconfig, user_agent="ringfence-verify") as client:
        checks = patiently(wait_seconds, lambda: findings(client, namespace, digest, kinds))
        while not healthy(checks) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            checks = patiently(wait_seconds, lambda: findings(client, namespace, digest, kinds))
    click.echo(rendered(checks))
    if not healthy(checks):
        context.exit(EXIT_NO)


@click.command("agents-gone")
@click.option(
    "--first",
    multiple=True,
    metavar="COMMAND",
    help="Command to name in the message for removing running agents; may be repeated.",
)
@kubeconfig_option
@_namespace_option
@patience_option
@click.pass_context
def agents_gone(
    context: click.Context,
    first: tuple[str, ...],
    kubeconfig: ApiServer,
    namespace: str,
    wait_seconds: float,
) -> None:
    """Check that no node runs an agent or holds its leftovers; exit 1 otherwise.

    Run it before the agents' DaemonSet goes: without agents, their CNI plugin refuses the pods of
    tenants. It waits for agents that are leaving, and not for agents that run.
    """
    import time

    from generators.kube.client import Client
    from webhook.install.agents_gone import Agents, look
    from webhook.install.leaving import patiently

    deadline = time.monotonic() + wait_seconds
    with Client.connect(kubeconfig, user_agent="ringfence-agents-gone") as client:
        found = patiently(wait_seconds, lambda: look(client, namespace))
        while found.agents is Agents.LEAVING and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            found = patiently(wait_seconds, lambda: look(client, namespace))
    click.echo(found.told(namespace, first))
    if found.agents is not Agents.GONE:
        context.exit(EXIT_NO)


@click.command()
@job_option
@kubeconfig_option
@_namespace_option
@patience_option
def unregister(job: str, kubeconfig: ApiServer, namespace: str, wait_seconds: float) -> None:
    """Remove Ringfence's admission objects, and make controllers stand by for five minutes.

    Run it before the webhook goes: without it, a webhook that fails closed would refuse changes of
    namespaces for ever.
    """
    from generators.kube.client import Client
    from webhook.install.leaving import of_an_uninstall, patiently
    from webhook.install.leaving import unregister as leave

    with Client.connect(kubeconfig, user_agent="ringfence-uninstall") as client:
        if job:
            patiently(wait_seconds, lambda: of_an_uninstall(client, namespace, job))
        patiently(wait_seconds, lambda: leave(client, namespace, click.echo))


@click.command()
@click.option(
    "--isolation",
    is_flag=True,
    help="Also remove all generated NetworkPolicies and the record of tenants.",
)
@job_option
@kubeconfig_option
@_namespace_option
@patience_option
def forget(
    isolation: bool, job: str, kubeconfig: ApiServer, namespace: str, wait_seconds: float
) -> None:
    """Remove what the controller kept in its namespace; run it after all controllers have ended.

    The controllers' Lease is removed only in an uninstall of the chart (--job), which has ended
    them all.
    """
    from generators.kube.client import Client
    from webhook.install.leaving import forget as remove
    from webhook.install.leaving import of_an_uninstall, patiently

    with Client.connect(kubeconfig, user_agent="ringfence-uninstall") as client:
        if job:
            patiently(wait_seconds, lambda: of_an_uninstall(client, namespace, job))
        patiently(
            wait_seconds,
            lambda: remove(client, namespace, click.echo, isolation=isolation, lease=bool(job)),
        )
