"""Options that all offline commands share: `-c`, `-f`, and what they become."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.cluster import cluster_options
from generators.errors import MachineLacks, RingfenceError

if TYPE_CHECKING:
    from generators.cluster import Cluster
    from generators.kube.config import ApiServer, Source
    from generators.tenants.model import TenantConfig

config_option = click.option(
    "-c",
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Tenant file: labels namespaces, generates isolation policies, puts up the tenant wall."
    " Without it a live cluster's own file and record count.",
)
required_config_option = click.option(
    "-c",
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    required=True,
    help="Tenant file.",
)
objects_option = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="PATH",
    help="YAML or JSON file, directory, or - for standard input; may be repeated.",
)
kubeconfig_option = cluster_options("Without -f: ask about this live cluster; nothing is written.")
strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Exit with 2 if the answer relies on an assumption about missing input.",
)


class Assumed(RingfenceError):
    """An answer under --strict would rest on assumptions; the message lists them."""

    def __init__(self, assumed: Iterable[str]) -> None:
        super().__init__("\n".join(f"--strict refuses to assume: {text}" for text in assumed))


def assumed_of(cluster: Cluster, ends: Iterable[str], strict: bool) -> tuple[str, ...]:
    """Print the assumptions behind an answer about these ends to stderr; an error if strict."""
    from generators.cluster import assumed
    from generators.output import warn

    found = assumed(cluster, ends)
    if strict and found:
        raise Assumed(found)
    warn(f"assumed: {text}" for text in found)
    return found


def one_source(files: tuple[str, ...], kubeconfig: ApiServer) -> Source | None:
    """The live cluster that is meant, None for files; neither and both are refused."""
    if files and kubeconfig is not None:
        what = "-f PATH is about files, --kubeconfig and --context about a live cluster"
        raise click.UsageError(f"{what}; give one of them")
    if files:
        return None
    from generators.kube.config import find

    try:
        return find(kubeconfig)
    except MachineLacks:
        what = "give the objects with -f PATH, or a live cluster with --kubeconfig or KUBECONFIG"
        raise click.UsageError(what) from None


def load_config(file: Path | None) -> TenantConfig | None:
    """The tenant file, when one is given."""
    if file is None:
        return None
    from generators.tenants.load import load_tenants

    return load_tenants(file)


def load_cluster(
    config_file: Path | None, files: tuple[str, ...], kubeconfig: Source | None = None
) -> Cluster:
    """The cluster that the files describe, or a live one; warnings go to stderr."""
    from generators.cluster import from_objects
    from generators.manifests import read, with_workloads
    from generators.output import warn

    config = load_config(config_file)
    if kubeconfig is not None:
        return _live_cluster(config, kubeconfig)
    cluster = from_objects(with_workloads(read(files)), config)
    warn(cluster.warnings)
    return cluster


def _live_cluster(config: TenantConfig | None, kubeconfig: Source) -> Cluster:
    """With a tenant file as it would be, without one as it is, by the cluster's own."""
    from generators.cluster import from_record
    from generators.live import cluster_under, differing, installed, read_live
    from generators.output import notes, warn

    documents = read_live(kubeconfig)
    warn(documents.warnings)
    if config is not None:
        notes(differing(config, documents))
        return cluster_under(config, documents)
    found = installed(documents)
    notes([found.said])
    return from_record(documents, found.config)
