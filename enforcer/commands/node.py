"""`ringfence enforcer`: start the node agent, and end enforcement."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.commands.options import (
    Usage,
    cni_bin_dir_option,
    cni_conf_dir_option,
    pin_dir_option,
    run_dir_option,
)
from enforcer.start import StartMode


@click.group()
def enforcer() -> None:
    """The node agent."""


@enforcer.command("run")
@click.option("--node-name", required=True, help="The node whose pods are enforced here.")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path, dir_okay=False), help="The tenant file."
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Directory of YAML or JSON manifests to enforce; watched.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), hidden=True)
@pin_dir_option
@run_dir_option
@click.option(
    "--start-mode",
    type=click.Choice([str(mode) for mode in StartMode]),
    default=str(StartMode.STRICT),
    show_default=True,
    help="What a pod may do before its policy is known: nothing, what its tenant may, anything.",
)
@cni_conf_dir_option
@cni_bin_dir_option
@click.option("--metrics-listen", metavar="HOST:PORT", help="Serve Prometheus metrics here.")
def run_agent(
    node_name: str,
    config: Path | None,
    manifests: Path | None,
    kubeconfig: Path | None,
    pin_dir: Path,
    run_dir: Path,
    start_mode: str,
    cni_conf_dir: Path | None,
    cni_bin_dir: Path | None,
    metrics_listen: str | None,
) -> None:
    """Enforce the policies of this node's pods until SIGTERM; they stay in force afterwards."""
    if kubeconfig is not None or manifests is None:
        raise Usage("only manifests on disk can be enforced so far; give --manifests DIR")
    scraped_at = _address(metrics_listen) if metrics_listen else None
    from enforcer.agent import Settings
    from enforcer.process import run

    settings = Settings(
        node_name,
        manifests,
        config,
        pin_dir,
        run_dir,
        start_mode=StartMode(start_mode),
        cni_conf_dir=cni_conf_dir,
        cni_bin_dir=cni_bin_dir,
    )
    run(settings, scraped_at)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise Usage(f'--metrics-listen "{text}" is not HOST:PORT')
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
    remove the pins: enforcement ends.
    """
    from enforcer import attach
    from enforcer.cni import install, running

    places = running.places(cni_conf_dir, cni_bin_dir, run_dir)
    if places is not None:
        install.leave(places)
    attach.uninstall(pin_dir)
