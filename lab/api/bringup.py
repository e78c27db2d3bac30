"""The processes of a lab on an API server: in which order they start, and when they are ready.

    own API server   etcd, kube-apiserver, kube-controller-manager, and with a tenant file the
                     controller, which registers the webhook, and the webhook
    every lab        the uplink; on each node the enforcer, a responder and a hollow kubelet, or
                     what real nodes have (real/bringup.py)

session.py calls `start_processes` for every command that changes the lab, so whatever was killed
is started again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from generators.documents.json import Key, key_of
from generators.errors import RingfenceError
from generators.kube.client import Client, WatchScope
from generators.kube.errors import NotFound
from generators.kube.resources import NODES, PODS, Resource
from generators.process.files import write_atomically
from lab import netns
from lab.api import enforcement, kubeconfig
from lab.api.real import bringup as real
from lab.created import CreatedThings, Pods, State
from lab.names import POD_INTERFACES, Places
from lab.parts import agent_answers, alive, as_given, module, ringfence, start, wait
from lab.processes import Process
from lab.topology import LabNode, lab_nodes

UPLINK = "uplink"

Waits = list[tuple[Process, Callable[[], bool]]]


def expected(state: State, places: Places) -> tuple[str, ...]:
    """The processes that such a lab should have."""
    return tuple(_names(state, places))


def start_processes(ledger: CreatedThings) -> None:
    """Start what should run and does not, and wait until all of it answers."""
    _start_uplink(ledger)
    if ledger.state.pods is Pods.CONTAINERS:
        real.start_processes(ledger)
        return
    waits: Waits = []
    for node in lab_nodes(ledger.places, ledger.state.nodes):
        waits += _start_node(ledger, node)
    for process, ready in waits:
        wait(ledger.places, process, ready)


def leave(ledger: CreatedThings) -> None:
    """Take the nodes and their pods out of an API server that lives on, if it still answers."""
    if not ledger.places.kubeconfig.exists():
        return
    names = [node.name for node in lab_nodes(ledger.places, ledger.state.nodes)]
    kubeconfig_file = str(ledger.places.kubeconfig)
    with (
        contextlib.suppress(RingfenceError),
        Client.connect(kubeconfig_file, user_agent="ringfence-lab") as client,
    ):
        for name in names:
            for document in client.list_all(PODS, WatchScope(fields=f"spec.nodeName={name}")):
                _remove(client, PODS, key_of(document))
            _remove(client, NODES, Key("", name))


def _remove(client: Client, resource: Resource, key: Key) -> None:
    with contextlib.suppress(NotFound):
        client.delete(resource, key.name, key.namespace, grace_seconds=0)


def _names(state: State, places: Places) -> Iterator[str]:
    yield UPLINK
    if state.pods is Pods.CONTAINERS:
        yield from real.expected(state, places)
        return
    for node in lab_nodes(places, state.nodes):
        yield from (node.places.enforcer, node.places.responder, node.places.kubelet)


def _start_uplink(ledger: CreatedThings) -> None:
    if alive(ledger, UPLINK):
        return
    places = ledger.places
    write_atomically(places.inside_kubeconfig, kubeconfig.inside(places.kubeconfig))
    target = kubeconfig.target(places.kubeconfig)
    ready = places.run / "uplink.ready"
    ready.unlink(missing_ok=True)
    nodes = [node.places.netns for node in lab_nodes(places, ledger.state.nodes)]
    port = str(target.port)
    real_nodes = ledger.state.pods is Pods.CONTAINERS
    server = ("--server", places.fabric_netns) if real_nodes else ()
    command = module("lab.api.uplink", target.host, port, port, str(ready), *nodes, *server)
    wait(places, start(ledger, UPLINK, command), ready.exists)


def _start_node(ledger: CreatedThings, node: LabNode) -> Waits:
    """The three processes of a node; the agent is the only one that lives in it."""
    here = node.places
    waits: Waits = []
    if not alive(ledger, here.enforcer):
        with netns.inside(here.netns):
            agent = start(ledger, here.enforcer, _enforcer_command(ledger, node))
        waits.append((agent, lambda: agent_answers(here.enforcer_run)))
    if not alive(ledger, here.responder):
        here.responder_socket.unlink(missing_ok=True)
        command = module("lab.responder", str(here.responder_socket))
        responder = start(ledger, here.responder, command)
        wait(ledger.places, responder, here.responder_socket.exists)
    if not alive(ledger, here.kubelet):
        ready = ledger.places.run / f"{here.kubelet}.ready"
        ready.unlink(missing_ok=True)
        kubelet = start(ledger, here.kubelet, _kubelet_command(ledger, node, ready))
        waits.append((kubelet, ready.exists))
    return waits


def _enforcer_command(ledger: CreatedThings, node: LabNode) -> tuple[str, ...]:
    config = ledger.state.config
    file = () if config is None else ("-c", as_given(ledger.state, config))
    folders = (
        "--cni-conf-dir",
        str(node.places.cni_conf),
        "--cni-bin-dir",
        str(node.places.cni_bin),
    )
    cni = folders if enforcement.prepare(node.places) else ()
    return ringfence(
        *("enforcer", "run", "--node-name", node.name),
        *("--kubeconfig", str(ledger.places.inside_kubeconfig)),
        *file,
        *("--pin-dir", str(node.places.pins)),
        *("--run-dir", str(node.places.enforcer_run)),
        *("--watch-interfaces", POD_INTERFACES),
        *cni,
    )


def _kubelet_command(ledger: CreatedThings, node: LabNode, ready: Path) -> tuple[str, ...]:
    """The first node's kubelet is the scheduler, too."""
    binds = ("--bind", str(ledger.state.nodes)) if node.number == 1 else ()
    return module(
        "lab.api.kubelet",
        *("--lab", ledger.places.name),
        *("--node", node.name),
        *("--kubeconfig", str(ledger.places.kubeconfig)),
        *("--ready", str(ready)),
        *("--network", str(ledger.state.shape)),
        *binds,
    )
