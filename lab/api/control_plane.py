"""The lab's own API server, and Ringfence's cluster side on it: processes of the lab.

    etcd -> kube-apiserver -> kube-controller-manager -> controller -> webhook

The controller is its ServiceAccount, with the rules that `ringfence controller rules` prints; it
makes the webhook's certificates and registers it. `start` returns when admission is in force.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from generators.process.files import write_atomically
from lab.api import assets, users
from lab.api.plane import (
    ADMINS,
    Plane,
    Ports,
    authority_named,
    certificate_credentials,
    client_pair,
    free_ports,
)
from lab.created import CreatedThings, State
from lab.names import Places
from lab.parts import (
    API_SERVER,
    CONTROLLER_MANAGER,
    ETCD,
    PLANE,
    alive,
    as_given,
    ringfence,
    wait,
)
from lab.parts import start as start_process
from lab.processes import Process

CONTROLLER = "controller"
WEBHOOK = "webhook"
SYSTEM_NAMESPACE = "ringfence-system"
CONTROLLER_USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:ringfence-controller"
SETTLE_SECONDS = "0.5"
"""The lab's admission is in force as soon as its one API server has it."""
IN_FORCE = 'ringfence_controller_admission_state{state="in-force"} 1.0'

Identities = Mapping[Path, tuple[str, tuple[str, ...]]]
"""User and groups of a kubeconfig, by its path."""


def expected(state: State) -> tuple[str, ...]:
    """The processes that a lab with its own API server should have."""
    cluster_side = () if state.config is None else (CONTROLLER, WEBHOOK)
    return (*PLANE, *cluster_side)


def prepare(places: Places, address: str = "", further: Identities | None = None) -> None:
    """Ports, certificates and kubeconfigs of a new control plane, which real nodes reach at that
    address; `further` ones are theirs.
    """
    plane = Plane(places.plane, assets.control_plane(), Ports.free(), address)
    places.plane.mkdir(mode=0o700, parents=True)
    authority = authority_named("ringfence-lab")
    plane.write_certificates(authority)
    identities = {
        places.kubeconfig: ("admin", ADMINS),
        _kubeconfig(places, CONTROLLER_MANAGER): ("system:kube-controller-manager", ()),
        _kubeconfig(places, CONTROLLER): (CONTROLLER_USER, ()),
        **(further or {}),
    }
    for path, (user, groups) in identities.items():
        path.parent.mkdir(exist_ok=True)
        pair = client_pair(authority, user, groups)
        plane.write_kubeconfig(path, user, certificate_credentials(pair))
    webhook, health = free_ports(2)
    known = {**asdict(plane.ports), WEBHOOK: webhook, CONTROLLER: health}
    document = {"binaries": str(plane.binaries), "ports": known, "reachedAt": address}
    write_atomically(_file(places), json.dumps(document, indent=1).encode())


def start(ledger: CreatedThings) -> None:
    """Start what does not run; returns when requests are served, and judged."""
    places = ledger.places
    plane, ports = _load(places)
    _run(ledger, ETCD, plane.etcd())
    server = _run(ledger, API_SERVER, plane.apiserver())
    wait(places, server, plane.ready)
    kubeconfig = _kubeconfig(places, CONTROLLER_MANAGER)
    manager = _run(ledger, CONTROLLER_MANAGER, plane.controller_manager(kubeconfig))
    wait(places, manager, plane.has_default_service_account)
    if ledger.state.config is not None:
        _start_cluster_side(ledger, ports, ledger.state.config)


def _start_cluster_side(ledger: CreatedThings, ports: dict[str, int], config: str) -> None:
    """Controller first: it makes the certificates that the webhook serves with."""
    places = ledger.places
    url = f"https://127.0.0.1:{ports[WEBHOOK]}"
    file = ("-c", as_given(ledger.state, config))
    if not alive(ledger, CONTROLLER):
        _give_rights(places)
    command = ringfence(
        *("controller", "run", *file),
        *("--kubeconfig", str(_kubeconfig(places, CONTROLLER))),
        *("--webhook-url", url, "--certificate-dir", str(places.certificates)),
        *("--settle-seconds", SETTLE_SECONDS),
        *("--metrics-listen", f"127.0.0.1:{ports[CONTROLLER]}"),
    )
    controller = _run(ledger, CONTROLLER, command)
    pair = (places.certificates / "tls.crt", places.certificates / "tls.key")
    wait(places, controller, lambda: all(file.exists() for file in pair))
    command = ringfence(
        *("webhook", "serve", *file),
        *("--listen", f"127.0.0.1:{ports[WEBHOOK]}", "--drain-seconds", "0"),
        *("--tls-cert", str(pair[0]), "--tls-key", str(pair[1])),
    )
    webhook = _run(ledger, WEBHOOK, command)
    wait(places, webhook, lambda: _in_force(ports[CONTROLLER]))
    ledger.update(replace(ledger.state, webhook=url))


def _give_rights(places: Places) -> None:
    """The controller's namespace, and the roles that it needs."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    rules = subprocess.run(
        ringfence("controller", "rules"), capture_output=True, text=True, check=True
    ).stdout
    for text in (json.dumps(namespace), rules):
        users.make(places, text)


def _in_force(port: int) -> bool:
    """Whether the controller has seen its webhook refuse."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return IN_FORCE in answer.read().decode()
    except (URLError, OSError):
        return False


def _run(ledger: CreatedThings, name: str, command: tuple[str, ...]) -> Process:
    """The process of that name, started where it does not run."""
    process = ledger.state.process(name)
    if process is not None and alive(ledger, name):
        return process
    return start_process(ledger, name, command)


def _load(places: Places) -> tuple[Plane, dict[str, int]]:
    document = json.loads(_file(places).read_bytes())
    ports = dict(document["ports"])
    own = {name: ports.pop(name) for name in (WEBHOOK, CONTROLLER)}
    binaries, address = Path(document["binaries"]), document["reachedAt"]
    return Plane(places.plane, binaries, Ports(**ports), address), own


def _kubeconfig(places: Places, process: str) -> Path:
    return places.plane / f"kubeconfig-{process}"


def _file(places: Places) -> Path:
    return places.plane / "plane.json"
