"""The supply that an agent's settings ask for, and who tells the API server what found no room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from enforcer.agent.state import Board
from enforcer.sources.supply import Supply
from enforcer.sources.tenants import AgentTenants
from generators.tenants.last_good import LastGood

if TYPE_CHECKING:
    from generators.kube.client import Client


def open_supply(
    node: str,
    config: Path | None,
    manifests: Path | None,
    kubeconfig: Path | None,
    system_namespace: str,
    run_dir: Path,
) -> Supply:
    """Manifests where a directory is given, else an API server; what is not used is not loaded."""
    tenants = AgentTenants(config, LastGood(run_dir))
    if manifests is not None:
        from enforcer.sources.manifests import ManifestSupply

        return ManifestSupply(manifests, tenants)
    from enforcer.sources.api import ApiSupply

    return ApiSupply(_client(kubeconfig), node, tenants, system_namespace)


def open_notices(board: Board, node: str, kubeconfig: Path | None) -> Callable[[Event], None]:
    """What tells, until told to stop."""
    from enforcer.agent.notices import Notices

    return Notices(board, _client(kubeconfig), node).run


def _client(kubeconfig: Path | None) -> Client:
    from generators.kube.client import Client

    return Client.connect(
        str(kubeconfig) if kubeconfig is not None else None, user_agent="ringfence-enforcer"
    )
