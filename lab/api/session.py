"""The lab's commands where the objects are on an API server: `up`, `apply`, `delete`.

session.py hands them over; what only looks (`get`, `probe`, `exec`, `status`) is the
same for every lab, and so is `down`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from generators.errors import Refused
from generators.kube.client import Client
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, NODES, PODS
from generators.manifests import Documents
from generators.objects import Node
from generators.process.files import write_atomically
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig
from lab import created as ledgers
from lab import lifecycle, machine, netns, parts
from lab.admission import Requester
from lab.api import assets, bringup, control_plane, kubeconfig, users
from lab.api.real import bringup as real
from lab.api.real import programs
from lab.backing import Report, Wish
from lab.created import BackingKind, CreatedThings, Lock, Pods
from lab.names import Places, Shape, Wire
from lab.pods import Running
from lab.store import Store, Stored, key_of, parse
from lab.topology import MOST_NODES, lab_nodes, server_interfaces
from lab.view import Home, View

HOLLOW_NODES, REAL_NODES = 2, 1


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of lab: on a `kubeconfig`'s API server, or on its own; with so many nodes, whose
    pods are network namespaces or containers; with agents, or left to its user.
    """

    kubeconfig: Path | None
    nodes: int
    shape: Shape = Shape.GATEWAY
    pods: Pods = Pods.NETWORKS
    agents: bool = True
    context: str | None = None
    """Of the kubeconfig; None = its current one."""

    @property
    def joined(self) -> bool:
        """Whether the API server is not ours."""
        return self.kubeconfig is not None


def hollow(
    kubeconfig: Path | None, nodes: int | None, network: str | None, context: str | None = None
) -> Kind:
    """Hollow nodes, with what is taken where nothing is said."""
    count, shape = HOLLOW_NODES if nodes is None else nodes, Shape(network or "gateway")
    return Kind(kubeconfig, count, shape, context=context)


def containers(nodes: int | None, network: str | None, agents: bool) -> Kind:
    """Real nodes, with what is taken where nothing is said."""
    count, shape = REAL_NODES if nodes is None else nodes, Shape(network or "ptp")
    return Kind(None, count, shape, Pods.CONTAINERS, agents)


def up(places: Places, config: Path | None, wanted: Kind, paths: Sequence[str]) -> Report:
    """Start a lab on an API server; whatever goes wrong, nothing stays behind."""
    machine.check()
    if not 1 <= wanted.nodes <= MOST_NODES:
        raise Refused(f"a lab has 1 to {MOST_NODES} nodes, not {wanted.nodes}")
    if wanted.pods is Pods.CONTAINERS:
        programs.check()
    if wanted.kubeconfig is None:
        assets.control_plane()
    else:
        kubeconfig.target(wanted.kubeconfig, wanted.context)
    tenants = None if config is None else load_tenants(config)
    kind = BackingKind.JOINED_API if wanted.joined else BackingKind.OWN_API
    frame = lifecycle.Wanted(wanted.shape, kind, wanted.nodes, wanted.pods, wanted.agents)
    backing = ApiBacking(wanted.joined)
    with ledgers.locked(places, Lock.EXCLUSIVE):
        with lifecycle.bringing_up(places, config, frame) as ledger:
            if wanted.pods is Pods.CONTAINERS:
                address = server_interfaces(places)[0].partition("/")[0]
                control_plane.prepare(places, address, real.identities(places, wanted.nodes))
            elif wanted.kubeconfig is None:
                control_plane.prepare(places)
            else:
                copy = kubeconfig.absolute(wanted.kubeconfig, wanted.context)
                write_atomically(places.kubeconfig, copy)
                places.kubeconfig.chmod(0o600)
            backing.start_processes(ledger)
        report = _apply(ledger, tenants, paths, Requester()) if paths else Report()
        if wanted.joined and tenants is not None:
            report.warnings += users.without_record(places, wanted.nodes)
        return report


@dataclass(frozen=True, slots=True)
class ApiBacking:
    """See `backing.Backing`; `joined`: the API server is not ours, and lives on."""

    joined: bool

    def expected(self, ledger: CreatedThings) -> tuple[str, ...]:
        """The control plane where it is ours, the uplink, and three for each node."""
        own = () if self.joined else control_plane.expected(ledger.state)
        return (*own, *bringup.expected(ledger.state, ledger.places))

    def start_processes(self, ledger: CreatedThings) -> None:
        """Start what does not run."""
        if ledger.state.pods is Pods.CONTAINERS:
            with netns.inside(ledger.places.fabric_netns):
                control_plane.start(ledger)
        elif not self.joined:
            control_plane.start(ledger)
        bringup.start_processes(ledger)

    def leave(self, ledger: CreatedThings) -> None:
        """Nodes and pods would stay behind on an API server that lives on."""
        if self.joined:
            bringup.leave(ledger)
        elif ledger.state.pods is Pods.CONTAINERS:
            real.leave(ledger)

    def kubeconfig(self, ledger: CreatedThings) -> Path | None:
        """What `lab kubectl` asks with."""
        return ledger.places.kubeconfig

    def look(self, ledger: CreatedThings) -> View:
        """The lab as it is now: all objects, and the pods of its own nodes."""
        places = ledger.places
        store = _objects(places.kubeconfig)
        homes = tuple(
            Home(Node(node.name, node.addresses, node.pod_cidrs), node.places)
            for node in lab_nodes(places, ledger.state.nodes)
        )
        pods = tuple(_running(ledger, store, homes))
        return View(ledger, store, pods, homes, shared=True)

    def read(self, paths: Sequence[str]) -> Documents:
        """Nothing: kubectl reads the files."""
        return Documents()

    def apply(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Apply objects; a tenant file that is named is put in force first."""
        config, tenants = wish.config, self._tenants(ledger)
        if config is not None and str(config.resolve()) != ledger.state.config:
            self._follow(ledger, config)
            tenants = self._tenants(ledger)
        self.start_processes(ledger)
        if config is not None:
            users.settle(ledger.places, tenants, ledger.state.nodes)
        return _apply(ledger, tenants, wish.paths, wish.requester) if wish.paths else Report()

    def delete(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Delete objects."""
        self.start_processes(ledger)
        report = users.delete(ledger.places, wish.what, wish.paths, wish.requester)
        users.settle(ledger.places, self._tenants(ledger), ledger.state.nodes)
        return report

    def _follow(self, ledger: CreatedThings, config: Path) -> None:
        """Set another tenant file, or the first one, for all processes that follow one; those end,
        and `start_processes` starts them again.
        """
        nodes = lab_nodes(ledger.places, ledger.state.nodes)
        cluster_side = () if self.joined else (control_plane.WEBHOOK, control_plane.CONTROLLER)
        for name in (*cluster_side, *(node.places.enforcer for node in nodes)):
            parts.stop(ledger, name)
        directory = str(Path.cwd())
        ledger.update(replace(ledger.state, config=str(config.resolve()), directory=directory))

    def _tenants(self, ledger: CreatedThings) -> TenantConfig | None:
        """The tenant file, if a controller on our API server generates from it."""
        config = ledger.state.config
        return None if self.joined or config is None else load_tenants(Path(config))


def _apply(
    ledger: CreatedThings, tenants: TenantConfig | None, paths: Sequence[str], requester: Requester
) -> Report:
    report = users.apply(ledger.places, paths, requester)
    users.settle(ledger.places, tenants, ledger.state.nodes)
    return report


def _running(ledger: CreatedThings, store: Store, homes: Sequence[Home]) -> list[Running]:
    """The running pods of the lab's nodes, by namespace and name."""
    by_node = {home.node.name: home for home in homes}
    found: list[Running] = []
    for pod in store.pods:
        home = by_node.get(pod.node)
        if home is None or not pod.ips or pod.phase != "Running":
            continue
        if ledger.state.pods is Pods.CONTAINERS:
            found += real.running(pod, home.places)
            continue
        if pod.host_network:
            found.append(Running(pod, home.places.netns, None, pod.node))
            continue
        where = ledger.places.pod_netns(pod.namespace, pod.name)
        if pod.terminating and not netns.exists(where):
            continue  # only a finalizer keeps the object
        wire = Wire(where, ledger.places.interface(pod.namespace, pod.name), pod.ips)
        found.append(Running(pod, where, wire, pod.node))
    return found


def _objects(kubeconfig: Path) -> Store:
    """Everything of the kinds that a lab shows."""
    store = Store()
    with Client.connect(str(kubeconfig), user_agent="ringfence-lab") as client:
        for resource in (NAMESPACES, NODES, PODS, NETWORK_POLICIES):
            for document in client.list_all(resource):
                store.objects[key_of(parse(document))] = Stored(document)
    return store
