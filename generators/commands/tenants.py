"""`ringfence tenants`: questions about the tenant file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.inputs import (
    config_option,
    kubeconfig_option,
    load_config,
    objects_option,
    one_source,
)
from generators.errors import InvalidConfig, MachineLacks, Refused
from generators.output import (
    TABLE,
    columns,
    form_option,
    notes,
    output_option,
    show,
    structured,
    warn,
    watch_option,
)

if TYPE_CHECKING:
    from generators.kube.config import ApiServer
    from generators.manifests import Documents
    from generators.tenants.assignment import Assignment
    from generators.tenants.model import Grant, TenantConfig
    from generators.tenants.overview import TenantOverview

EXIT_NO = 1


@click.group()
def tenants() -> None:
    """Check the tenant file, list tenants, and ask who a namespace would belong to."""


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
    click.echo(_render(decision, output), nl=False)
    if not decision.allowed:
        context.exit(EXIT_NO)


def _render(decision: Assignment, output: str) -> str:
    answer = {
        "namespace": decision.namespace,
        "tenant": decision.tenant,
        "outcome": decision.outcome.value,
        "reason": decision.reason,
        "labels": dict(decision.labels),
    }
    if output != TABLE:
        return structured(answer, output)
    labels = ", ".join(f"{key}={value}" for key, value in decision.labels.items())
    rows = {**answer, "tenant": decision.tenant or "-", "labels": labels or "-"}
    return "".join(f"{key.upper():<10} {value}\n" for key, value in rows.items())


_form_option = form_option(TABLE, "wide", "name", "json", "yaml")


@tenants.command("list")
@config_option
@objects_option
@kubeconfig_option
@_form_option
@watch_option
def list_tenants(
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    output: str,
    watch: bool,
) -> None:
    """List tenants with their namespaces: of a tenant file, with -f of manifests, or live."""
    show(output, watch, lambda: _overviews_text(_overviews(config_file, files, kubeconfig), output))


@tenants.command("get")
@click.argument("name", metavar="TENANT")
@config_option
@objects_option
@kubeconfig_option
@_form_option
def get_tenant(
    name: str,
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    output: str,
) -> None:
    """Show one tenant: namespaces, members, grants, shared components, policies, since when."""
    from generators.tenants.schema import nearest

    everyone = _overviews(config_file, files, kubeconfig)
    found = [each for each in everyone if each.tenant.name == name]
    if not found:
        near = nearest(name, [each.tenant.name for each in everyone])
        raise Refused(f'there is no tenant "{name}"; {near}')
    if output == TABLE:
        click.echo(_details(found[0]), nl=False)
    else:
        click.echo(_overviews_text(found, output), nl=False)


def _overviews(
    config_file: Path | None, files: tuple[str, ...], kubeconfig: ApiServer
) -> list[TenantOverview]:
    from generators.cluster import declared_namespaces, from_objects
    from generators.isolation.policies import is_ours
    from generators.isolation.record import agreed, read_record
    from generators.kube.config import find
    from generators.live import installed, read_live, tenants_live
    from generators.manifests import read, with_workloads
    from generators.tenants.overview import overviews

    config = load_config(config_file)
    if config is not None and kubeconfig is None:
        documents = with_workloads(read(files)) if files else _named_exactly(config)
        warn(documents.warnings)
        of = from_objects(documents, config)
        return list(overviews(of.config or config, of.namespaces, of.tenants, of.policies))
    if files:
        raise click.UsageError("give the tenant file with -c FILE")
    from generators.live import POLICY_INPUTS

    try:
        source = find(kubeconfig)
    except MachineLacks:
        what = "give a tenant file with -c FILE, or a live cluster with --kubeconfig or KUBECONFIG"
        raise click.UsageError(what) from None
    documents = read_live(source, POLICY_INPUTS)
    if config is None:
        found = installed(documents)
        notes([found.said])
        config = found.config
    namespaces = declared_namespaces(documents)
    own = [policy for policy in documents.policies if is_ours(policy.labels)]
    if config is None:
        return []
    config = agreed(config, namespaces.values(), read_record(documents.config_maps))
    return list(overviews(config, namespaces, tenants_live(documents), own))


def _named_exactly(config: TenantConfig) -> Documents:
    """The namespaces that the file itself names; prefixes and suffixes need manifests."""
    from generators.manifests import Documents
    from generators.objects import Namespace

    names = (name for tenant in config.tenants.values() for name in tenant.namespaces.names)
    return Documents(namespaces=tuple(Namespace(name) for name in sorted(names)))


def _overviews_text(found: Iterable[TenantOverview], output: str) -> str:
    if output == "name":
        return "".join(f"tenant/{each.tenant.name}\n" for each in found)
    if output not in (TABLE, "wide"):
        return structured([each.document() for each in found], output)
    heads = ["TENANT", "NAMESPACES", "GRANTS", "SHARED", "SINCE"]
    rows = [_row(each, wide=output == "wide") for each in found]
    if output == "wide":
        heads += ["MEMBERS", "POLICIES"]
    return columns([heads, *rows])


_MOST_NAMED = 3


def _row(each: TenantOverview, *, wide: bool) -> list[str]:
    names = [namespace.name for namespace in each.namespaces]
    if not wide and len(names) > _MOST_NAMED:
        names = [*names[:_MOST_NAMED], f"and {len(names) - _MOST_NAMED} more"]
    cells = [each.tenant.name, ",".join(names), ",".join(_grants(each)), ",".join(each.shared)]
    cells.append(each.since or "")
    if wide:
        members = [f"{kind}:{m}" for kind, many in each.members().items() for m in many]
        cells += [",".join(members), ",".join(each.policies)]
    return [cell or "-" for cell in cells]


def _grants(each: TenantOverview) -> list[str]:
    from generators.tenants.overview import ports

    def with_ports(text: str, grant: Grant) -> str:
        open_ports = f":{'+'.join(ports(grant))}" if grant.ports else ""
        return text + open_ports + ("(agreed)" if grant.objects else "")

    return [
        *(with_ports(f"from {grant.tenant}", grant) for grant in each.entered_by),
        *(with_ports(f"to {other}", grant) for other, grant in each.enters),
    ]


def _details(each: TenantOverview) -> str:
    patterns = [f"{match.value} {text}" for match, text in each.tenant.namespaces.each()]
    members = [f"{kind} {', '.join(many)}" for kind, many in each.members().items() if many]
    rows = {
        "Tenant": [each.tenant.name],
        "Claims": patterns,
        "Namespaces": [namespace.name for namespace in each.namespaces],
        "Members": members,
        "Grants": _grants(each),
        "Shared": list(each.shared),
        "Policies": list(each.policies),
        "Since": [each.since] if each.since else [],
    }
    return columns(
        [
            [title if i == 0 else "", value]
            for title, many in rows.items()
            for i, value in enumerate(many or ["-"])
        ]
    )
