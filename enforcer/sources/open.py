"""The supply that an agent's settings ask for."""

from __future__ import annotations

from pathlib import Path

from enforcer.sources.supply import Supply
from enforcer.sources.tenants import TenantFile
from generators.tenants.last_good import LastGood


def open_supply(
    node: str,
    config: Path | None,
    manifests: Path | None,
    kubeconfig: Path | None,
    system_namespace: str,
    run_dir: Path,
) -> Supply:
    """Manifests where a directory is given, else an API server; what is not used is not loaded."""
    tenants = TenantFile(config, LastGood(run_dir))
    if manifests is not None:
        from enforcer.sources.manifests import ManifestSupply

        return ManifestSupply(manifests, tenants)
    from enforcer.sources.api import ApiSupply
    from generators.kube.client import Client

    client = Client.connect(
        str(kubeconfig) if kubeconfig is not None else None, user_agent="ringfence-enforcer"
    )
    return ApiSupply(client, node, tenants, system_namespace)
