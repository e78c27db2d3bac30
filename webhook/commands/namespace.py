"""`ringfence namespace label`: what the hook of the chart `ringfence-namespace` runs.

Everything that talks to the API server is imported by the command that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from webhook.commands.options import kubeconfig_option

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

DEFAULT_MANAGER = "namespace-label"
MANAGER_LENGTH = 128


def _namespace(value: str) -> str:
    from generators.manifests import names

    if (wrong := names.dns_label(value)) is not None:
        raise click.BadParameter(f'"{value}": {wrong}')
    return value


def _key(value: str) -> str:
    from generators.manifests import names

    if (wrong := names.label_key(value)) is not None:
        raise click.BadParameter(f'label key "{value}": {wrong}')
    return value


def _pair(value: str) -> tuple[str, str]:
    from generators.manifests import names

    key, equals, content = value.partition("=")
    if not equals:
        raise click.BadParameter(f'"{value}" is not KEY=VALUE; to remove a label: --remove {key}')
    if (wrong := names.label_value(content)) is not None:
        raise click.BadParameter(
            f'value of label "{key}" ({len(content)} characters): "{content}": {wrong}'
        )
    return _key(key), content


def _manager(value: str) -> str:
    if not value or len(value) > MANAGER_LENGTH or not value.isprintable():
        raise click.BadParameter(f"must be 1 to {MANAGER_LENGTH} printable characters")
    return value


@click.group()
def namespace() -> None:
    """Labels of one namespace, on behalf of what is installed in it."""


@namespace.command()
@click.argument("name", type=_namespace)
@click.argument("labels", type=_pair, nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--remove",
    "removed",
    type=_key,
    multiple=True,
    metavar="KEY",
    help="Remove only this label; may be repeated.",
)
@click.option(
    "--field-manager",
    type=_manager,
    default=DEFAULT_MANAGER,
    show_default=True,
    metavar="NAME",
    help="Field manager to act as; a Helm release uses ringfence-RELEASE.",
)
@kubeconfig_option
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to retry while the API server does not answer.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; list the labels that are missing and exit with 1.",
)
@click.option(
    "--release",
    is_flag=True,
    help="End the quarantine of a namespace whose tenant has left the tenant file:"
    " it then belongs to no tenant, and every pod may enter it. For admins of the tenant file.",
)
def label(
    name: str,
    labels: tuple[tuple[str, str], ...],
    removed: tuple[str, ...],
    field_manager: str,
    kubeconfig: ApiServer,
    seconds: float,
    check: bool,
    release: bool,
) -> None:
    """Make the labels that a field manager has set on namespace NAME exactly these.

    Labels set earlier and no longer listed are removed; with none listed, all of them. With
    --remove, the rest stays. A label that another field manager has set too stays; another value
    than theirs is refused.
    """
    from generators.kube.client import Client
    from webhook.release.apply import Patience
    from webhook.release.apply import label as put
    from webhook.release.labels import Act, LabelWish

    if release:
        if labels or removed or check:
            raise click.UsageError("--release goes without labels, --remove and --check")
        _release(name, kubeconfig)
        return
    wanted = dict(labels)
    if len(wanted) != len(labels):
        raise click.UsageError("the same label is given twice")
    if both := sorted(wanted.keys() & set(removed)):
        raise click.UsageError(f"{both[0]} is both to be set and to be removed")

    def waiting(why: str) -> None:
        click.echo(f"ringfence: {why}; trying again", err=True)

    wish = LabelWish(name, field_manager, wanted, frozenset(removed))
    with Client.connect(kubeconfig, user_agent="ringfence-namespace") as client:
        act = Act.CHECK if check else Act.APPLY
        outcome = put(client, wish, Patience(seconds, waiting), act)
    for line in outcome.lines():
        click.echo(line)


def _release(name: str, kubeconfig: ApiServer) -> None:
    from generators.kube.client import Client
    from webhook.release.quarantine import release

    with Client.connect(kubeconfig, user_agent="ringfence-namespace") as client:
        click.echo(release(client, name))
