"""Bringing a lab's node and processes up, and taking everything down again, whatever happened
before.

`open_lab` is how every command begins: under the lab's lock it removes what a killed command left
behind. `clean` takes down exactly what the ledger names and then looks whether it is gone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from generators.errors import Refused
from lab import created as ledgers
from lab import netns, processes
from lab.api import bringup, journal
from lab.api.control_plane import PROGRAMS
from lab.api.topology import hollow_nodes
from lab.created import STATE_FILE, Backing, CreatedThings, Lock, Phase, State
from lab.names import NETNS_ROOT, NODE, POD_INTERFACES, Places, Shape
from lab.parts import (
    POLL_SECONDS,
    READY_SECONDS,
    LabFailed,
    agent_answers,
    alive,
    as_given,
    failure,
    module,
    ringfence,
    start,
    wait,
)
from lab.pods import pod_network
from lab.processes import Process

WEBHOOK = "webhook"
ENFORCER = "enforcer"
RESPONDER = "responder"


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
    if ledger.state.phase is Phase.UP and len(running) == len(expected(ledger)):
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


def begin(
    places: Places,
    config: Path | None,
    shape: Shape,
    backing: Backing = Backing.FILES,
    nodes: int = 0,
) -> CreatedThings:
    """A ledger for a new lab, with the network namespaces of its nodes; the caller holds the
    lock.
    """
    refuse_foreign(places)
    hollow = tuple(hollow_nodes(places, nodes))
    places.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = State(
        name=places.name,
        phase=Phase.STARTING,
        boot=processes.boot_id(),
        netns=(places.fabric_netns, *(node.places.netns for node in hollow))
        if hollow
        else (places.node_netns,),
        pins=str(places.pins),
        config=None if config is None else str(config.resolve()),
        directory=str(Path.cwd()),
        backing=backing,
        nodes=nodes,
        shape=shape,
    )
    ledger = CreatedThings(places, state)
    ledger.update(state)
    from lab import network

    for name in state.netns:
        netns.create(name)
    if hollow:
        network.connect_nodes(places.fabric_netns, hollow, shape)
    else:
        network.prepare_node(places.node_netns, pods=pod_network(shape))
        places.manifests.mkdir(exist_ok=True)
    return ledger


def refuse_foreign(places: Places) -> None:
    """Refused when something has our names without being in a ledger of ours."""
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
    planes = [process for process in state.processes if process.name in PROGRAMS]
    processes.end([process for process in state.processes if process not in planes])
    # Their data goes with the lab, and etcd takes seconds for a polite end.
    processes.end(planes, grace=0)
    if state.backing is Backing.JOINED_API:
        bringup.leave(ledger)
    # Only now nobody makes pods any more.
    made = (*state.netns, *_pods_of_kubelets(ledger.places))
    processes.end(processes.inside_netns(NETNS_ROOT / name for name in made))
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


def start_processes(ledger: CreatedThings) -> None:
    """Start what should run and does not, and wait until all of it answers."""
    places, state = ledger.places, ledger.state
    if state.backing is not Backing.FILES:
        bringup.start_processes(ledger)
        return
    waits: list[tuple[Process, Callable[[], bool]]] = []
    if not alive(ledger, ENFORCER):
        with netns.inside(places.node_netns):
            enforcer = start(ledger, ENFORCER, ringfence(*_enforcer_arguments(ledger)))
        waits.append((enforcer, lambda: agent_answers(places.enforcer_run)))
    if not alive(ledger, RESPONDER):
        socket = places.responder_socket
        socket.unlink(missing_ok=True)
        command = module("lab.responder", str(socket))
        waits.append((start(ledger, RESPONDER, command), socket.exists))
    if state.config is not None and not alive(ledger, WEBHOOK):
        waits.append(_start_webhook(ledger, state.config))
    for process, ready in waits:
        wait(places, process, ready)


def expected(ledger: CreatedThings) -> tuple[str, ...]:
    """The processes that this lab should have."""
    if ledger.state.backing is not Backing.FILES:
        return bringup.expected(ledger.state, ledger.places)
    return (ENFORCER, RESPONDER, *((WEBHOOK,) if ledger.state.config is not None else ()))


def wait_for_config(ledger: CreatedThings, digest: str) -> None:
    """Return when the webhook has read the tenant file that we have read."""
    process, url = ledger.state.process(WEBHOOK), ledger.state.webhook
    if process is not None and url is not None:
        address = url.removeprefix("https://")
        ready = functools.partial(_webhook_ready, ledger.places, address, digest)
        wait(ledger.places, process, ready)


def _enforcer_arguments(ledger: CreatedThings) -> tuple[str, ...]:
    places, config = ledger.places, ledger.state.config
    file = () if config is None else ("-c", as_given(ledger.state, config))
    return (
        *("enforcer", "run", "--node-name", NODE),
        *("--manifests", str(places.manifests)),
        *file,
        *("--pin-dir", str(places.pins)),
        *("--run-dir", str(places.enforcer_run)),
        *("--watch-interfaces", POD_INTERFACES),
    )


def _start_webhook(ledger: CreatedThings, config: str) -> tuple[Process, Callable[[], bool]]:
    places = ledger.places
    if not places.certificates.is_dir():
        command = ringfence(
            *("webhook", "certificates", "--directory", str(places.certificates)),
            *("--host", "127.0.0.1"),
        )
        certificates = start(ledger, "certificates", command)
        _wait_for_end(places, certificates)
    log = places.log(WEBHOOK)
    begun = log.stat().st_size if log.exists() else 0
    command = ringfence(
        *("webhook", "serve", "-c", as_given(ledger.state, config)),
        *("--listen", "127.0.0.1:0", "--drain-seconds", "0"),
        *("--tls-cert", str(places.certificates / "tls.crt")),
        *("--tls-key", str(places.certificates / "tls.key")),
    )
    process = start(ledger, WEBHOOK, command)

    def ready() -> bool:
        address = _listening(log, begun)
        if address is None or not _webhook_ready(places, address):
            return False
        ledger.update(replace(ledger.state, webhook=f"https://{address}"))
        return True

    return process, ready


def _listening(log: Path, begun: int) -> str | None:
    """The address that the webhook says it listens on, below where its log began."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(begun)
        for line in file:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == "listening":
                    return str(entry["address"])
    return None


def _webhook_ready(places: Places, address: str, config: str = "") -> bool:
    """Whether it is ready, with the tenant file of that digest where one is named."""
    import ssl

    context = ssl.create_default_context(cafile=str(places.certificates / "ca.crt"))
    url = f"https://{address}/readyz?verbose"
    try:
        with urlopen(url, timeout=5, context=context) as answer:
            return int(answer.status) == 200 and config in answer.read().decode()
    except (URLError, OSError):
        return False


def _wait_for_end(places: Places, process: Process) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if not (places.certificates / "tls.key").exists():
        raise failure(places, process)


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
    """Remove the lock's file, and our directories where nobody needs them; we hold the lock."""
    places.lock.unlink(missing_ok=True)
    for directory in (places.run, places.run.parent, places.run.parent.parent, places.pins.parent):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _name_option(places: Places) -> str:
    from lab.names import DEFAULT_LAB

    return "" if places.name == DEFAULT_LAB else f" --name {places.name}"
