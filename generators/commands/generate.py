"""`ringfence generate` and `ringfence plan`: what the tenant file wants, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.inputs import (
    kubeconfig_option,
    load_config,
    objects_option,
    one_source,
    required_config_option,
)
from generators.output import Output, output_option, structured, warn

if TYPE_CHECKING:
    from generators.manifests import Document
    from generators.objects import Namespace, NetworkPolicy
    from generators.plan import Change


@click.command()
@required_config_option
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="PATH",
    help="Objects of the cluster; without it, the namespaces that the tenant file names exactly.",
)
def generate(config_file: Path, files: tuple[str, ...]) -> None:
    """Print the labelled Namespaces and the generated NetworkPolicies as YAML for kubectl apply."""
    from generators.cluster import declared_namespaces, known_nodes
    from generators.manifests import Documents, read, to_yaml
    from generators.objects import NAME_LABEL, Namespace
    from generators.plan import wanted_by_name
    from generators.tenants.assignment import assign_by_name

    config = load_config(config_file)
    if config is None:
        return
    documents = Documents()
    if files:
        documents = read(files)
        warn(documents.warnings)
        namespaces = declared_namespaces(documents)
    else:
        names = sorted(n for tenant in config.tenants.values() for n in tenant.namespaces.names)
        namespaces = {name: Namespace(name, labels={NAME_LABEL: name}) for name in names}
    owned = [n for n in namespaces.values() if assign_by_name(config, n.name).tenant is not None]
    wanted = wanted_by_name(config, owned, known_nodes(documents))
    click.echo(to_yaml(_applicable(want.item) for want in wanted), nl=False)


def _applicable(item: Namespace | NetworkPolicy) -> Document:
    """The object without what belongs to the live one only."""
    from dataclasses import replace

    from generators.manifests import namespace_document, policy_document
    from generators.objects import Namespace

    if isinstance(item, Namespace):
        return namespace_document(replace(item, uid="", annotations={}))
    return policy_document(item)


@click.command()
@required_config_option
@objects_option
@kubeconfig_option
@output_option
def plan(config_file: Path, files: tuple[str, ...], kubeconfig: str | None, output: Output) -> None:
    """Print what would be created, updated, deleted or kept, and who wants it.

    In a live cluster the record counts as the controller keeps it.
    """
    from generators.cluster import declared_namespaces, known_nodes
    from generators.manifests import read
    from generators.plan import plan as make_plan
    from generators.plan import wanted_by_name

    one_source(files, kubeconfig)
    config = load_config(config_file)
    if config is None:
        return
    if kubeconfig is not None:
        from generators.live import POLICY_INPUTS, read_live, wanted_live

        documents = read_live(kubeconfig, POLICY_INPUTS)
        namespaces = declared_namespaces(documents)
        wanted = wanted_live(config, documents)
    else:
        documents = read(files)
        warn(documents.warnings)
        namespaces = declared_namespaces(documents)
        wanted = wanted_by_name(config, namespaces.values(), known_nodes(documents))
    changes = make_plan(wanted, namespaces, documents.policies)
    if Output(output) is Output.TABLE:
        click.echo(_plan_text(changes), nl=False)
    else:
        click.echo(structured([_document(change) for change in changes], Output(output)), nl=False)


def _document(change: Change) -> dict[str, str]:
    return {
        "action": change.action.value,
        "kind": change.kind,
        "namespace": change.namespace,
        "name": change.name,
        "because": change.because,
    }


def _plan_text(changes: Iterable[Change]) -> str:
    lines = []
    for change in changes:
        name = f"{change.namespace}/{change.name}" if change.namespace else change.name
        lines.append(f"{change.action.value:<7} {change.kind} {name}\n        {change.because}\n")
    return "".join(lines) or "nothing is wanted, nothing is there\n"
