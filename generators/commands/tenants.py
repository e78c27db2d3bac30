"""`ringfence tenants`: questions about the tenant file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.inputs import kubeconfig_option, objects_option, one_source
from generators.errors import InvalidConfig
from generators.output import Output, output_option, structured, warn

if TYPE_CHECKING:
    from generators.kube.config import ApiServer
    from generators.tenants.assignment import Assignment

EXIT_NO = 1


@click.group()
def tenants() -> None:
    """Check the tenant file, and ask who a namespace would belong to."""


@tenants.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def check(context: click.Context, file: Path) -> None:
    """Print every defect of a tenant file with its line; nothing when it is right."""
    from generators.tenants.load import load_tenants

    try:
        load_tenants(file)
    except InvalidConfig as error:
        click.echo(str(error))
        context.exit(EXIT_NO)


@tenants.command()
def schema() -> None:
    """Print the shape of the tenant file as JSON Schema, for editors and charts."""
    import json

    from generators.tenants.jsonschema import tenant_file_schema

    click.echo(json.dumps(tenant_file_schema(), indent=2))


@tenants.command()
@objects_option
@kubeconfig_option
@click.option(
    "--from-label", "key", metavar="KEY", help="Take the values of this label as tenants."
)
@click.option(
    "--from-names", is_flag=True, help="Take words that names begin or end with as tenants."
)
def init(files: tuple[str, ...], kubeconfig: ApiServer, key: str | None, from_names: bool) -> None:
    """Print a first tenant file for an existing cluster; comments list what is left to decide.

    Nothing is written to the cluster, and the file is in mode audit, which cuts nothing.
    """
    from generators.cluster import declared_namespaces
    from generators.isolation.adoption import by_label, by_names, tenant_file
    from generators.live import POLICY_INPUTS, read_live
    from generators.manifests import names, read

    if (key is None) == (not from_names):
        raise click.UsageError(
            "give --from-label KEY or --from-names, to tell which tenant owns a namespace"
        )
    if key is not None and (wrong := names.label_key(key)) is not None:
        raise click.BadParameter(f'"{key}": {wrong}', param_hint="--from-label")
    live = one_source(files, kubeconfig)
    documents = read(files) if live is None else read_live(live, POLICY_INPUTS)
    warn(documents.warnings)
    namespaces = declared_namespaces(documents).values()
    found = by_names(namespaces) if key is None else by_label(namespaces, key)
    click.echo(tenant_file(found, namespaces, documents.policies), nl=False)


def _labels(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> object:
    labels: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f'"{pair}" is not KEY=VALUE', context, option)
        labels[key] = value
    return labels


def _name(context: click.Context, argument: click.Parameter, given: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", given):
        fix = "lower-case letters, digits and inner dashes, at most 63 characters"
        raise click.BadParameter(f'"{given}" cannot be a namespace name: {fix}', context, argument)
    return given


@tenants.command()
@click.argument("name", callback=_name)
@click.option(
    "-c", "--config", "file", required=True, type=click.Path(path_type=Path), help="Tenant file."
)
@click.option("--user", default="", help="User name of the requester.")
@click.option("--group", "groups", multiple=True, help="Group of the requester; may be repeated.")
@click.option("--label", "labels", multiple=True, callback=_labels, help="Label in the request.")
@output_option
@click.pass_context
def assign(
    context: click.Context,
    name: str,
    file: Path,
    user: str,
    groups: tuple[str, ...],
    labels: dict[str, str],
    output: str,
) -> None:
    """Say which tenant the namespace NAME would belong to, and why.

    Without --user and --group the name alone decides, as for namespaces that existed before.
    """
    from generators.tenants.assignment import Requester
    from generators.tenants.assignment import assign as decide
    from generators.tenants.load import load_tenants

    decision = decide(load_tenants(file), name, labels, Requester(user, frozenset(groups)))
    click.echo(_render(decision, Output(output)), nl=False)
    if not decision.allowed:
        context.exit(EXIT_NO)


def _render(decision: Assignment, output: Output) -> str:
    answer = {
        "namespace": decision.namespace,
        "tenant": decision.tenant,
        "outcome": decision.outcome.value,
        "reason": decision.reason,
        "labels": dict(decision.labels),
    }
    if output is not Output.TABLE:
        return structured(answer, output)
    labels = ", ".join(f"{key}={value}" for key, value in decision.labels.items())
    rows = {**answer, "tenant": decision.tenant or "-", "labels": labels or "-"}
    return "".join(f"{key.upper():<10} {value}\n" for key, value in rows.items())
