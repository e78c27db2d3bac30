"""`ringfence generate` and `ringfence plan`: the policies of a tenant file, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from generators.commands.inputs import (
    kubeconfig_option,
    load_config,
    objects_option,
    one_source,
    required_config_option,
)
from generators.output import TABLE, notes, output_option, structured, warn

EXIT_CHANGES = 1
POLICIES, WALLS = "NetworkPolicy", "ClusterNetworkPolicy"

if TYPE_CHECKING:
    from generators.isolation.plan import Change, Wanted
    from generators.kube.config import ApiServer, Source
    from generators.manifests import Document, Documents
    from generators.objects import Namespace, NetworkPolicy
    from generators.tenants.model import TenantConfig


@click.command()
@required_config_option
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="PATH",
    help="Objects of the cluster; without it, the namespaces that the tenant file lists by name.",
)
@click.option(
    "--as",
    "kind",
    type=click.Choice([POLICIES, WALLS]),
    default=POLICIES,
    show_default=True,
    help="What isolates the tenants: policies in each namespace, or one wall a tenant for engines"
    " that enforce policy.networking.k8s.io/v1alpha2.",
)
def generate(config_file: Path, files: tuple[str, ...], kind: str) -> None:
    """Print the labelled Namespaces and the generated policies as YAML for kubectl apply."""
    from generators.cluster import declared_namespaces, known_nodes
    from generators.documents.writing import to_yaml
    from generators.isolation.plan import wanted_by_name
    from generators.isolation.walls import walls
    from generators.manifests import Documents, read
    from generators.objects import NAME_LABEL, Namespace
    from generators.tenants.assignment import assign_by_name
    from generators.tenants.consents import by_annotations

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
    tenants = {n: t for n in namespaces if (t := assign_by_name(config, n).tenant) is not None}
    config, unheard = by_annotations(config, namespaces.values(), tenants)
    warn(unheard)
    owned = [n for n in namespaces.values() if n.name in tenants]
    items = [want.item for want in wanted_by_name(config, owned, known_nodes(documents))]
    if kind == POLICIES:
        click.echo(to_yaml(map(_applicable, items)), nl=False)
        return
    labelled = (_applicable(item) for item in items if isinstance(item, Namespace))
    notes(_without_wall(config))
    click.echo(to_yaml([*labelled, *walls(config)]), nl=False)


def _without_wall(config: TenantConfig) -> Iterable[str]:
    """Why there are fewer walls than tenants."""
    from generators.tenants.model import Mode

    if config.mode is not Mode.STRICT:
        yield f"no walls: the file's mode is {config.mode.value}, a ClusterNetworkPolicy is strict"
        return
    for name in sorted(config.tenants):
        if config.audits(name):
            yield f"no wall for tenant {name}: it is under audit, a ClusterNetworkPolicy cuts"


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
@click.option(
    "--instead-of",
    "former_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tenant file in force, to compare with; a live cluster's controller supplies it.",
)
@click.option(
    "--observed",
    "observed_file",
    type=click.File(),
    metavar="FILE",
    help="Flows as `ringfence observe -o jsonpb` prints them, - for standard input: which of the"
    " connections that would be cut were used.",
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 1 where something would change, as `kubectl diff` does.",
)
@output_option
@click.pass_context
def plan(
    context: click.Context,
    config_file: Path,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    former_file: Path | None,
    observed_file: TextIO | None,
    exit_code: bool,
    output: str,
) -> None:
    """Print what would be created, updated, deleted or kept, who wants it, and what that means.

    In a live cluster the record counts as the controller keeps it, and the connections that pass
    today and would not are listed; for files, where --observed asks for them.
    """
    from generators.isolation.consequences import consequences
    from generators.isolation.plan import Action
    from generators.isolation.plan import plan as make_plan

    live = one_source(files, kubeconfig)
    config = load_config(config_file)
    if config is None:
        return
    found = _planned(config, load_config(former_file), files, live)
    changes = make_plan(found.wanted, found.namespaces, found.policies)
    former = found.former
    said = () if former is None else consequences(former, config, found.policies)
    effects = {} if former is None else _effects(former, config, found)
    if live is not None or observed_file is not None:
        said = (*said, *_compared(config, found, observed_file))
    if output == TABLE:
        click.echo("".join(f"{sentence}\n" for sentence in said), nl=False)
        click.echo(_plan_text(changes, effects), nl=False)
    else:
        notes(said)
        documents = [_document(change, effects) for change in changes]
        click.echo(structured(documents, output), nl=False)
    if exit_code and any(change.action is not Action.KEEP for change in changes):
        context.exit(EXIT_CHANGES)


@dataclass(frozen=True, slots=True)
class _Planned:
    """What a plan compares; `tenants`: the namespaces' tenants today."""

    wanted: tuple[Wanted, ...]
    namespaces: Mapping[str, Namespace]
    policies: tuple[NetworkPolicy, ...]
    former: TenantConfig | None
    tenants: Mapping[str, str]
    documents: Documents
    live: bool


def _planned(
    config: TenantConfig,
    former: TenantConfig | None,
    files: tuple[str, ...],
    server: Source | None,
) -> _Planned:
    from generators.cluster import declared_namespaces, known_nodes
    from generators.isolation.plan import wanted_of
    from generators.isolation.record import RecordEntry
    from generators.live import in_force, read_live, tenants_live, wanted_live
    from generators.manifests import read, with_workloads
    from generators.tenants.assignment import assign_by_name
    from generators.tenants.consents import by_annotations

    live = server is not None
    documents = read_live(server) if live else with_workloads(read(files))
    warn(documents.warnings)
    if former is None and live:
        former = in_force(documents, config.file)
    if former is not None:
        config = config.retiring(frozenset({former.label_key}) - {config.label_key})
    namespaces = declared_namespaces(documents)
    if live:
        wanted, tenants = wanted_live(config, documents), tenants_live(documents)
    else:
        named = {n: assign_by_name(former or config, n).tenant for n in namespaces}
        tenants = {name: tenant for name, tenant in named.items() if tenant is not None}
        former_of = {} if former is None else tenants

        def recorded(namespace: Namespace) -> RecordEntry | None:
            tenant = former_of.get(namespace.name)
            return None if tenant is None else RecordEntry(namespace.name, tenant)

        by_name = {n: t for n in namespaces if (t := assign_by_name(config, n).tenant) is not None}
        config, unheard = by_annotations(config, namespaces.values(), by_name)
        warn(unheard)
        wanted = wanted_of(config, namespaces.values(), recorded, known_nodes(documents))
    return _Planned(wanted, namespaces, documents.policies, former, tenants, documents, live)


def _compared(config: TenantConfig, found: _Planned, observed_file: TextIO | None) -> Iterable[str]:
    """The cluster as it is beside the cluster as it would be."""
    from generators.cluster import from_objects, from_record
    from generators.isolation.policies import is_ours
    from generators.live import cluster_under
    from generators.objects import Namespace
    from generators.reachability.cuts import cuts, observed_flows, selections, sentences
    from generators.reachability.matrix import (
        EVALUATE,
        PortProtocol,
        answer,
        declared_ports,
        questions,
    )

    documents, former = found.documents, found.former
    if found.live:
        before, after = from_record(documents, former), cluster_under(config, documents)
    else:
        before, after = from_objects(documents, former), from_objects(documents, config)
    used: Mapping[tuple[str, str, str, int], int] = {}
    if observed_file is not None:
        used = observed_flows(observed_file, observed_file.name)
    later = {w.item.name: w.item for w in found.wanted if isinstance(w.item, Namespace)}
    theirs = [policy for policy in found.policies if not is_ours(policy.labels)]
    yield from _nobodys(config, found.namespaces, later)
    yield from selections(found.namespaces, later, theirs, documents.pods)
    declared = {
        pod.key: frozenset((port.protocol, port.port) for port in pod.ports)
        for pod in after.pods
        if pod.ports
    }
    wanted = {PortProtocol(port, protocol) for _, _, protocol, port in used}
    asked = questions(after, tuple({*declared_ports(after), *wanted}))
    today, then = answer(EVALUATE, before, asked), answer(EVALUATE, after, asked)
    yield from sentences(cuts(today, then, used, declared), observed_file is not None)


def _nobodys(
    config: TenantConfig, namespaces: Mapping[str, Namespace], later: Mapping[str, Namespace]
) -> Iterable[str]:
    """Namespaces that no tenant owns, and that are not in quarantine."""
    from generators.tenants.assignment import reserved

    free = [
        name
        for name, namespace in sorted(namespaces.items())
        if config.label_key not in later.get(name, namespace).labels
        and reserved(config, name) is None
        and not config.tied(name)
    ]
    if free:
        yield f"belong to no tenant, so every pod may enter them: {', '.join(free)}"


def _effects(former: TenantConfig, config: TenantConfig, found: _Planned) -> dict[str, str]:
    """Namespace -> who reaches it from now on, where that changes."""
    from generators.isolation.consequences import effect
    from generators.objects import Namespace

    wanted = {w.item.name: w.item for w in found.wanted if isinstance(w.item, Namespace)}
    effects = {}
    for name in found.namespaces:
        item = wanted.get(name)
        latter = None if item is None else item.labels.get(config.label_key)
        effects[name] = effect(former, config, found.tenants.get(name), latter)
    return effects


def _document(change: Change, effects: Mapping[str, str]) -> dict[str, str]:
    effect = effects.get(change.name, "") if change.kind == "Namespace" else ""
    return {
        "action": change.action.value,
        "kind": change.kind,
        "namespace": change.namespace,
        "name": change.name,
        "because": change.because,
        **({"effect": effect} if effect else {}),
    }


def _plan_text(changes: Iterable[Change], effects: Mapping[str, str]) -> str:
    lines = []
    for change in changes:
        name = f"{change.namespace}/{change.name}" if change.namespace else change.name
        lines.append(f"{change.action.value:<7} {change.kind} {name}\n        {change.because}\n")
        if change.kind == "Namespace" and (effect := effects.get(change.name, "")):
            lines.append(f"        {effect}\n")
    return "".join(lines) or "nothing to do: no policies wanted, none present\n"
