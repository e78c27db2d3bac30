"""The lab's commands where the objects are on an API server: `up`, `apply`, `delete`.

session.py hands them over; what only looks (`get`, `probe`, `exec`, `status`) is the
same for every lab, and so is `down`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from generators.errors import Refused
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig
from lab import created as ledgers
from lab import lifecycle, machine, parts
from lab.admission import Requester
from lab.api import assets, control_plane, kubeconfig, users
from lab.api.topology import MOST_NODES, hollow_nodes
from lab.changes import Report
from lab.created import Backing, CreatedThings, Lock, Phase, write_atomically
from lab.names import Places, Shape


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of lab: on a `kubeconfig`'s API server, or on its own; with so many nodes."""

    kubeconfig: Path | None
    nodes: int
    shape: Shape = Shape.GATEWAY

    @property
    def backing(self) -> Backing:
        """Whose API server it is."""
        return Backing.OWN_API if self.kubeconfig is None else Backing.JOINED_API


def up(places: Places, config: Path | None, wish: Wish, paths: Sequence[str]) -> Report:
    """Start a lab on an API server; whatever goes wrong, nothing stays behind."""
    machine.check()
    if not 1 <= wish.nodes <= MOST_NODES:
        raise Refused(f"a lab has 1 to {MOST_NODES} nodes, not {wish.nodes}")
    if wish.kubeconfig is None:
        assets.control_plane()
    else:
        kubeconfig.target(wish.kubeconfig)
    tenants = None if config is None else load_tenants(config)
    with ledgers.locked(places, Lock.EXCLUSIVE):
        lifecycle.make_room(places)
        try:
            ledger = lifecycle.begin(places, config, wish.shape, wish.backing, wish.nodes)
            if wish.kubeconfig is None:
                control_plane.prepare(places)
            else:
                write_atomically(places.kubeconfig, kubeconfig.absolute(wish.kubeconfig))
                places.kubeconfig.chmod(0o600)
            lifecycle.start_processes(ledger)
            ledger.update(replace(ledger.state, phase=Phase.UP))
        except BaseException:
            remains = ledgers.load(places)
            if remains is not None:
                lifecycle.clean(remains)
            raise
        report = _apply(ledger, tenants, paths, Requester()) if paths else Report()
        if wish.backing is Backing.JOINED_API and tenants is not None:
            report.warnings += users.without_record(places, wish.nodes)
        return report


def apply(
    ledger: CreatedThings, config: Path | None, paths: Sequence[str], requester: Requester
) -> Report:
    """Apply to a running lab; a tenant file that is named is put in force first."""
    if config is not None and str(config.resolve()) != ledger.state.config:
        _follow(ledger, config)
    lifecycle.start_processes(ledger)
    if config is not None:
        users.settle(ledger.places, _tenants(ledger), ledger.state.nodes)
    return _apply(ledger, _tenants(ledger), paths, requester) if paths else Report()


def delete(
    ledger: CreatedThings, what: Sequence[str], paths: Sequence[str], requester: Requester
) -> Report:
    """Delete from a running lab."""
    lifecycle.start_processes(ledger)
    report = users.delete(ledger.places, what, paths, requester)
    users.settle(ledger.places, _tenants(ledger), ledger.state.nodes)
    return report


def _apply(
    ledger: CreatedThings, tenants: TenantConfig | None, paths: Sequence[str], requester: Requester
) -> Report:
    report = users.apply(ledger.places, paths, requester)
    users.settle(ledger.places, tenants, ledger.state.nodes)
    return report


def _follow(ledger: CreatedThings, config: Path) -> None:
    """Have another tenant file, or the first one, for all that follows one; whoever followed the
    former ends, and is started again by `start_processes`.
    """
    nodes = hollow_nodes(ledger.places, ledger.state.nodes)
    own = ledger.state.backing is Backing.OWN_API
    cluster_side = (control_plane.WEBHOOK, control_plane.CONTROLLER) if own else ()
    for name in (*cluster_side, *(node.places.enforcer for node in nodes)):
        parts.stop(ledger, name)
    directory = str(Path.cwd())
    ledger.update(replace(ledger.state, config=str(config.resolve()), directory=directory))


def _tenants(ledger: CreatedThings) -> TenantConfig | None:
    """The tenant file where somebody generates from it: a controller on our own API server."""
    own = ledger.state.backing is Backing.OWN_API
    return load_tenants(Path(ledger.state.config)) if own and ledger.state.config else None
