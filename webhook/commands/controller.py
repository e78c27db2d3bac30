"""`ringfence controller run` and `ringfence controller rules`.

Everything heavy is imported by the command that runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from webhook.commands.options import (
    LARGEST_PORT,
    allow_kind_option,
    bound,
    kubeconfig_option,
    listen_option,
    namespace_option,
    policies_option,
    state_dir_option,
    tenant_file_option,
)

if TYPE_CHECKING:
    from generators.kube.config import ApiServer
    from webhook.controller.settings import ControllerSettings
    from webhook.registration.configuration import WebhookTarget

DAYS = 86400.0


def https_url(value: str) -> str:
    """An address that an API server can call."""
    split = urlsplit(value)
    if split.scheme != "https" or not split.hostname or split.query or split.fragment:
        raise click.BadParameter(f"{value!r} is not https://HOST:PORT")
    return value


def service(value: str) -> tuple[str, str, int]:
    """`NAMESPACE/NAME` or `NAMESPACE/NAME:PORT`."""
    whole, _, port = value.partition(":")
    namespace, _, name = whole.partition("/")
    number = port or "443"
    known = number.isascii() and number.isdigit() and 0 < int(number) <= LARGEST_PORT
    if not namespace or not name or "/" in name or not known:
        raise click.BadParameter(f"{value!r} is not NAMESPACE/NAME or NAMESPACE/NAME:PORT")
    return namespace, name, int(number)


_policies_option = policies_option(
    "Kyverno policies to carry out: files, folders, or `cluster` for those of the API server; may "
    "be repeated."
)
_install_option = click.option(
    "--install-policy-crds",
    is_flag=True,
    help="Create the kinds ClusterPolicy and Policy if missing; never change existing ones.",
)
_cilium_option = click.option(
    "--cilium-policies",
    is_flag=True,
    help="Write whether Cilium's policies are valid into their status, where no Cilium runs.",
)
_install_cilium_option = click.option(
    "--install-cilium-crds",
    is_flag=True,
    help="Create the kinds CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy if missing.",
)
_walls_option = click.option(
    "--walls",
    is_flag=True,
    help="Also keep one ClusterNetworkPolicy a tenant, for engines that enforce that kind.",
)
_allow_kind_option = allow_kind_option(
    "Another kind that policies may write, such as Secret or apps/v1/Deployment; with group and"
    " version, policies may also read it by path."
)


@click.group()
def controller() -> None:
    """Keep labels, isolation policies and admission in step with the tenant file."""


@controller.command()
@tenant_file_option("The tenant file; read again whenever it changes.")
@kubeconfig_option
@click.option(
    "--webhook-url",
    type=https_url,
    metavar="URL",
    help="Register the webhook that answers at URL/mutate and URL/validate.",
)
@click.option(
    "--webhook-service",
    type=service,
    metavar="NS/NAME[:PORT]",
    help="Register the webhook behind this Service.",
)
@click.option(
    "--webhook-health-port",
    type=click.IntRange(1, LARGEST_PORT),
    metavar="PORT",
    help="The webhook's health port, where each replica reports the tenant files it has read.",
)
@click.option(
    "--certificate-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also keep tls.crt, tls.key and ca.crt here, for a webhook outside the cluster.",
)
@click.option(
    "--certificate-secret",
    default="",
    metavar="NAME",
    help="Use the certificates in this Secret, maintained by another tool; generate none.",
)
@state_dir_option
@_policies_option
@_allow_kind_option
@_install_option
@_cilium_option
@_install_cilium_option
@_walls_option
@listen_option("--metrics-listen", "Address of /metrics, /livez and /readyz, without TLS.")
@namespace_option("Holds record, lease, status and certificates; no tenant may write to it.")
@click.option(
    "--settle-seconds",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="How long the admission probe must be rejected before new labels are trusted.",
)
@click.option(
    "--replica-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="How long a new tenant file waits for webhooks that have not read it.",
)
@click.option(
    "--certificate-days",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Lifetime of a certificate, which is renewed after two thirds of it.",
)
@click.option(
    "--authority-days",
    type=click.FloatRange(min=0, min_open=True),
    default=365.0,
    show_default=True,
    help="Lifetime of the CA that signs it.",
)
@click.option(
    "--propagate-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="How long a new CA is registered before its certificate is served.",
)
@click.option(
    "--lease-seconds",
    type=click.FloatRange(min=1),
    default=15.0,
    show_default=True,
    help="How long a dead leader keeps others from leading.",
)
def run(
    tenant_file: Path,
    kubeconfig: ApiServer,
    webhook_url: str | None,
    webhook_service: tuple[str, str, int] | None,
    webhook_health_port: int | None,
    certificate_dir: Path | None,
    certificate_secret: str,
    state_dir: Path | None,
    policies: tuple[str, ...],
    allowed_kinds: tuple[str, ...],
    install_policy_crds: bool,
    cilium_policies: bool,
    install_cilium_crds: bool,
    walls: bool,
    metrics_listen: tuple[str, int] | None,
    namespace: str,
    settle_seconds: float,
    replica_seconds: float,
    certificate_days: float,
    authority_days: float,
    propagate_seconds: float,
    lease_seconds: float,
) -> None:
    """Synchronize the cluster until SIGTERM; one of several controllers leads.

    Without --webhook-url or --webhook-service no webhook is registered, and then a tenant label
    proves nothing: the namespace's name alone decides.
    """
    from generators.kube.lease import LeaseTiming
    from generators.tenants.last_good import LastGood
    from webhook.controller.settings import ControllerSettings
    from webhook.registration.guard import GuardTiming
    from webhook.registration.rotation import Lifetimes

    target = _target(webhook_url, webhook_service, webhook_health_port or 0)
    if certificate_dir is not None and target is None:
        raise click.UsageError("--certificate-dir needs --webhook-url or --webhook-service")
    settings = ControllerSettings(
        tenant_file,
        namespace,
        _identity(),
        target,
        certificate_dir,
        GuardTiming(settle_seconds, replica_seconds),
        Lifetimes(authority_days * DAYS, certificate_days * DAYS, propagate_seconds),
        LeaseTiming(lease_seconds, lease_seconds * 2 / 3, lease_seconds / 7.5),
        certificate_secret,
        policies,
        allowed_kinds,
        install_policy_crds,
        cilium_policies,
        install_cilium_crds,
        walls,
        None if state_dir is None else LastGood(state_dir),
    )
    _synchronize(settings, kubeconfig, metrics_listen)


def _identity() -> str:
    """Who this process is among those that want to lead."""
    import os
    import socket
    from secrets import token_hex

    return f"{socket.gethostname()}-{os.getpid()}-{token_hex(3)}"


def _synchronize(
    settings: ControllerSettings, kubeconfig: ApiServer, metrics_listen: tuple[str, int] | None
) -> None:
    from generators.kube.client import Client
    from generators.process import logs, memory, signals
    from generators.serving import pages
    from webhook.controller.controller import Controller

    memory.share_arenas()
    listener = None if metrics_listen is None else bound("--metrics-listen", metrics_listen)
    with Client.connect(kubeconfig, user_agent="ringfence-controller") as client:
        running = Controller(settings, client)
        logs.configure()
        signals.on_end(running.stop)
        if listener is not None:
            health = {"/livez": pages.checks(running.live), "/readyz": pages.checks(running.ready)}
            registry = running.metrics.registry
            server = pages.serve("metrics", listener, health, registry)
            registry.register(pages.ServerMetrics([server]))
        running.run()


def _target(
    url: str | None, service: tuple[str, str, int] | None, health: int
) -> WebhookTarget | None:
    from webhook.registration.configuration import WebhookTarget

    if url is not None and service is not None:
        raise click.UsageError("give --webhook-url or --webhook-service, not both")
    if url is not None:
        return WebhookTarget(url=url, health=health)
    if service is not None:
        return WebhookTarget(service=service[:2], port=service[2], health=health)
    if health:
        raise click.UsageError("--webhook-health-port needs --webhook-url or --webhook-service")
    return None


@controller.command()
@namespace_option("The controller's own namespace.")
@click.option(
    "--certificate-secret",
    default="",
    metavar="NAME",
    help="As for `run`: the Secret that another tool maintains.",
)
@_policies_option
@_allow_kind_option
@_install_option
@_cilium_option
@_install_cilium_option
@_walls_option
def rules(
    namespace: str,
    certificate_secret: str,
    policies: tuple[str, ...],
    allowed_kinds: tuple[str, ...],
    install_policy_crds: bool,
    cilium_policies: bool,
    install_cilium_crds: bool,
    walls: bool,
) -> None:
    """Print the ServiceAccount, roles and bindings that the controller needs, as YAML."""
    from generators.documents.writing import to_yaml
    from webhook import rbac
    from webhook.background.rights import printed

    more = [*printed(policies, allowed_kinds)]
    more += rbac.POLICY_KINDS if install_policy_crds else ()
    more += rbac.CILIUM if cilium_policies else ()
    more += rbac.CILIUM_KINDS if install_cilium_crds else ()
    more += rbac.WALLS if walls else ()
    rights = rbac.controller(certificate_secret, tuple(more))
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    documents = rbac.account(rbac.CONTROLLER, namespace, rights)
    click.echo(to_yaml([home, *documents]), nl=False)
