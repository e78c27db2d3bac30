"""Bringing a lab's node and processes up, and taking everything down again, whatever happened
before.

`open_lab` is how every command begins: under the lab's lock it removes what a killed command left
behind. `clean` takes down exactly what the ledger names and then looks whether it is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from enforcer.http.proxy import DIRECTORY, leave
from generators.errors import Refused
from lab import created as ledgers
from lab import journal, netns, processes
from lab.backing import backing_of
from lab.created import STATE_FILE, BackingKind, CreatedThings, Lock, Phase, Pods, State
from lab.names import NETNS_ROOT, Places, Shape
from lab.parts import (
    PLANE,
    LabFailed,
)
from lab.pods import pod_network
from lab.topology import lab_nodes, server_interfaces


@dataclass(frozen=True, slots=True)
class Wanted:
    """What kind of lab is wanted; `State` says what each means."""

    shape: Shape
    kind: BackingKind = BackingKind.FILES
    nodes: int = 0
    pods: Pods = Pods.NETWORKS
    agents: bool = True


class NoSuchLab(Refused):
    """There is no lab of that name."""


@contextlib.contextmanager
def open_lab(places: Places, lock: Lock) -> Iterator[CreatedThings]:
    """The lab of that name, locked; NoSuchLab after remains of a killed command are cleaned up."""
    clean_remains(places)
    with ledgers.locked(places, lock):
        ledger = ledgers.load(places)
        if ledger is None or ledger.state.phase is not Phase.UP:
            forget_empty(places)
            raise NoSuchLab(
                f'there is no lab "{places.name}"; start one with '
                f"`ringfence lab up -f PATH{_name_option(places)}`"
            )
        yield ledger


def make_room(places: Places) -> None:
    """Remove the remains of a lab of that name; one that is alive is not touched."""
    ledger = ledgers.load(places)
    if ledger is None:
        return
    running = [process for process in ledger.state.processes if process.alive]
    if ledger.state.phase is Phase.UP and len(running) == len(
        backing_of(ledger.state).expected(ledger)
    ):
        raise Refused(
            f'lab "{places.name}" is up already; change it with `ringfence lab apply`, or end it '
            "with `ringfence lab down`"
        )
    clean(ledger)


def clean_remains(places: Places) -> bool:
    """Remove what a killed command left behind; False when there was nothing to do."""
    ledger = ledgers.load(places)
    if ledger is None or ledger.state.phase is Phase.UP:
        return False
    with ledgers.locked(places, Lock.EXCLUSIVE):
        ledger = ledgers.load(places)
        if ledger is None or ledger.state.phase is Phase.UP:
            return False
        clean(ledger)
        return True


@contextlib.contextmanager
def bringing_up(places: Places, config: Path | None, wanted: Wanted) -> Iterator[CreatedThings]:
    """A new lab, up when the block ends; whatever goes wrong in it, nothing stays behind. The
    caller holds the lock.
    """
    make_room(places)
    try:
        ledger = _begin(places, config, wanted)
        yield ledger
        ledger.update(replace(ledger.state, phase=Phase.UP))
    except BaseException:
        remains = ledgers.load(places)
        if remains is not None:
            clean(remains)
        raise


def _begin(places: Places, config: Path | None, wanted: Wanted) -> CreatedThings:
    """A ledger, with the network namespaces of the nodes."""
    refuse_foreign(places)
    nodes = tuple(lab_nodes(places, wanted.nodes))
    places.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = State(
        name=places.name,
        phase=Phase.STARTING,
        boot=processes.boot_id(),
        netns=(places.fabric_netns, *(node.places.netns for node in nodes))
        if nodes
        else (places.node_netns,),
        pins=str(places.pins),
        config=None if config is None else str(config.resolve()),
        directory=str(Path.cwd()),
        backing=wanted.kind,
        nodes=wanted.nodes,
        shape=wanted.shape,
        pods=wanted.pods,
        agents=wanted.agents,
    )
    ledger = CreatedThings(places, state)
    ledger.update(state)
    from lab import network

    for name in state.netns:
        netns.create(name)
    if wanted.pods is Pods.CONTAINERS:
        # CNI plugins make the rest.
        network.connect_nodes(places.fabric_netns, nodes)
        network.join_fabric(places.fabric_netns, server_interfaces(places), nodes)
    elif nodes:
        network.connect_nodes(places.fabric_netns, nodes, wanted.shape)
    else:
        network.prepare_node(places.node_netns, pods=pod_network(wanted.shape))
        places.manifests.mkdir(exist_ok=True)
    return ledger


def refuse_foreign(places: Places) -> None:
    """Refused if something has our names without being in a ledger of ours."""
    foreign = [name for name in netns.names() if places.owns_netns(name)]
    if foreign:
        raise Refused(
            f"network namespace {foreign[0]} exists, but no lab of ours made it, so it is left "
            f"alone; whoever made it can remove it with `ip netns delete {foreign[0]}`, or take "
            "another --name"
        )
    if places.pins.exists():
        raise Refused(
            f"{places.pins} exists, but no lab of ours made it, so it is left alone; whoever made "
            f"it can remove it with `ringfence enforcer uninstall --pin-dir {places.pins}`, or "
            "take another --name"
        )


def clean(ledger: CreatedThings) -> None:
    """Take down everything the ledger names; LabFailed when something of it is still there."""
    state = ledger.state
    if state.phase is not Phase.REMOVING:
        ledger.update(replace(state, phase=Phase.REMOVING))
    planes = [process for process in state.processes if process.name in PLANE]
    processes.end([process for process in state.processes if process not in planes])
    # Their data goes with the lab, and etcd takes seconds for a polite end.
    processes.end(planes, grace=0)
    backing_of(state).leave(ledger)
    # Only now nobody makes pods any more.
    made = (*state.netns, *_pods_of_kubelets(ledger.places))
    processes.end(processes.inside_netns(NETNS_ROOT / name for name in made))
    for directory in ledger.places.run.rglob(DIRECTORY):
        leave(directory.parent)  # ends the proxy, which outlives its agent
    shutil.rmtree(state.pins, ignore_errors=True)
    for name in reversed(made):
        netns.remove(name)
    left = [
        *(f"process {p.pid} ({p.name})" for p in state.processes if p.alive),
        *(f"network namespace {name}" for name in made if netns.exists(name)),
        *([f"pins in {state.pins}"] if Path(state.pins).exists() else []),
    ]
    if left:
        raise LabFailed(f"could not remove {', '.join(left)}; try `ringfence lab down` once more")
    _remove_run_directory(ledger.places)


def _pods_of_kubelets(places: Places) -> Iterator[str]:
    """Network namespaces that hollow kubelets have made, or were about to."""
    for path in sorted(places.run.glob("pods-*.json")):
        for sandbox in journal.read(path).values():
            yield sandbox.netns


def _remove_run_directory(places: Places) -> None:
    """The ledger goes last: a crash before that is cleaned up by the next command."""
    for entry in places.run.iterdir():
        if entry.name == STATE_FILE:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (places.run / STATE_FILE).unlink()
    forget_empty(places)


def forget_empty(places: Places) -> None:
    """Remove the lock's file, and our directories if unused; we hold the lock."""
    places.lock.unlink(missing_ok=True)
    for directory in (places.run, places.run.parent, places.run.parent.parent, places.pins.parent):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _name_option(places: Places) -> str:
    from lab.names import DEFAULT_LAB

    return "" if places.name == DEFAULT_LAB else f" --name {places.name}"
