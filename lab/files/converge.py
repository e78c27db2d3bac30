"""Make this machine agree with the lab's objects: pods started and stopped, the agent informed,
links up.

The order is what makes a lab safe: a new pod's links go up only when the agent reports its input in
force, so there is no moment in which a pod runs unenforced. A wire counts as done (in the ledger)
only after that; what a crash left half done is removed and made again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from enforcer.answers import control
from enforcer.sources.manifests import manifests_digest
from generators.process.files import write_atomically
from lab import netns, network
from lab.created import CreatedThings
from lab.files.bringup import ENFORCER, start_processes
from lab.names import Wire
from lab.parts import LabFailed, away
from lab.pods import MANIFEST_FILE, Running, manifest, pod_network, running
from lab.responder import announce
from lab.store import Store

IN_FORCE_SECONDS = 30.0


def converge(ledger: CreatedThings, store: Store, config_digest: str | None) -> None:
    """Start and stop pods until the machine matches the store, and that is in force."""
    places = ledger.places
    start_processes(ledger)
    pods = running(places, store)
    wanted = {item.wire.netns: item.wire for item in pods if item.wire is not None}
    kept = {wire.netns for wire in ledger.state.wires if wanted.get(wire.netns) == wire}
    _stop(ledger, store, pods, kept, config_digest)
    new = [wire for name, wire in sorted(wanted.items()) if name not in kept]
    _start(ledger, new)
    for item in pods:
        if item.wire is None:
            for address in item.pod.ips:
                network.add_node_address(places.node_netns, address)
    _enforce(ledger, manifest(places, store), config_digest)
    for wire in new:
        network.connect_pod(places.node_netns, wire, pod_network(ledger.state.shape))
    ledger.update(replace(ledger.state, wires=(*ledger.state.wires, *new)))
    announce(places.responder_socket, [item.site() for item in pods])


def begin_empty(ledger: CreatedThings, config_digest: str | None) -> None:
    """Start the agent on a node without pods: what comes later is new to it, and gets no grace.

    (An agent that finds pods on a node where no programs ran takes them for older than itself, and
    lets their established traffic go on for a while.)
    """
    write_atomically(ledger.places.manifests / MANIFEST_FILE, manifest(ledger.places, Store()))
    start_processes(ledger)
    _enforce(ledger, manifest(ledger.places, Store()), config_digest)


def _stop(
    ledger: CreatedThings,
    store: Store,
    pods: Sequence[Running],
    kept: Collection[str],
    config_digest: str | None,
) -> None:
    """Remove what should no longer exist, or should be different."""
    places, state = ledger.places, ledger.state
    gone = [name for name in state.netns if name != places.node_netns and name not in kept]
    if not gone:
        return
    staying = [item for item in pods if item.wire is None or item.netns in kept]
    announce(places.responder_socket, [item.site() for item in staying])
    ledger.update(replace(state, wires=tuple(w for w in state.wires if w.netns in kept)))
    interfaces = {wire.netns: wire.interface for wire in state.wires}
    for item in pods:
        if item.wire is not None:
            interfaces.setdefault(item.netns, item.wire.interface)
    for name in gone:
        if name in interfaces:
            network.remove_pod(places.node_netns, interfaces[name])
        netns.remove(name)
    ledger.update(
        replace(ledger.state, netns=tuple(name for name in state.netns if name not in gone))
    )
    remaining = {item.pod.key for item in staying}
    _enforce(ledger, manifest(places, store, only=remaining), config_digest)


def _start(ledger: CreatedThings, new: Sequence[Wire]) -> None:
    """Network namespaces and veths, links down."""
    node = ledger.places.node_netns
    ledger.update(replace(ledger.state, netns=(*ledger.state.netns, *(wire.netns for wire in new))))
    for wire in new:
        netns.create(wire.netns)
        network.add_pod(node, wire)


def _enforce(ledger: CreatedThings, data: bytes, config_digest: str | None) -> None:
    """Give the agent its input and return when it is in force."""
    places = ledger.places
    write_atomically(places.manifests / MANIFEST_FILE, data)
    request = {
        "command": "wait",
        "manifests": manifests_digest({MANIFEST_FILE: data}),
        "config": config_digest,
        "timeout": IN_FORCE_SECONDS,
    }
    try:
        answer = control.ask(places.enforcer_run, request)
    except control.AgentAway as error:
        raise away(ledger, ENFORCER) from error
    if answer.get("error"):
        raise LabFailed(f"the enforcer could not put this in force: {answer['error']}")
