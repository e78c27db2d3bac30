"""`lab status`: processes, pods, and what is not enforced and why; `lab ls`: all labs of a machine.

Whether a pod is enforced is read from the kernel, not from the agent: programs on its veth, and
policy state behind them. So it is true also after every process was killed. The agent, where it
runs, knows more about the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import if_nametoindex
from typing import TypedDict

from enforcer.answers import control
from enforcer.datapath import attach, loader
from enforcer.datapath.kernel import KernelError
from enforcer.datapath.maps import Maps
from enforcer.policy.tables import EndpointEntry, EndpointFlag
from generators.errors import RingfenceError
from generators.output import columns
from lab import created, machine, names, netns
from lab.backing import backing_of
from lab.created import BackingKind, CreatedThings
from lab.names import NodePlaces, Wire
from lab.pods import Running
from lab.show import NONE
from lab.view import Home, View

_KINDS = {
    BackingKind.FILES: "files",
    BackingKind.OWN_API: "api-server",
    BackingKind.JOINED_API: "kubeconfig",
}
_HEAD = ("NAME", "STATUS", "OBJECTS", "NODES", "PROCESSES", "KUBECONFIG")

Lab = Mapping[str, object]
HOST_NETWORK = "it is on the node's network, where no policy reaches it"


class ProcessStatus(TypedDict):
    """One running process."""

    name: str
    pid: int


class PodStatus(TypedDict):
    """One running pod; `reason` says why it is not enforced, and is empty when it is."""

    namespace: str
    name: str
    networkNamespace: str
    hostInterface: str | None
    addresses: list[str]
    enforced: bool
    reason: str


class NodeStatus(TypedDict):
    """A node of the lab; `node` is the first of `nodes`."""

    name: str
    networkNamespace: str
    addresses: list[str]
    podCIDRs: list[str]


class Status(TypedDict):
    """All of it, as `status -o json` prints it."""

    name: str
    config: str | None
    network: str
    webhook: str | None
    runDirectory: str
    pinDirectory: str
    processes: list[ProcessStatus]
    notRunning: list[str]
    kubeconfig: str | None
    node: NodeStatus
    nodes: list[NodeStatus]
    pods: list[PodStatus]
    notEnforced: list[str]


@dataclass(frozen=True, slots=True)
class _Kernel:
    """What is loaded: the directory of pins in use and the endpoints behind it."""

    pins: Path
    endpoints: Mapping[int, EndpointEntry]


def document(view: View) -> Status:
    """The state of a lab."""
    ledger, places, state = view.ledger, view.ledger.places, view.ledger.state
    backing = backing_of(state)
    expected, kubeconfig = backing.expected(ledger), backing.kubeconfig(ledger)
    alive = [process for process in state.processes if process.alive]
    shown = [process for process in alive if process.name in expected]
    running = {process.name for process in shown}
    statuses = [status for home in view.homes for status in _pods(view, home, running)]
    statuses.sort(key=lambda status: (status["namespace"], status["name"]))
    nodes = [_node(home) for home in view.homes]
    return {
        "name": places.name,
        "config": state.config,
        "network": state.shape.value,
        "webhook": state.webhook,
        "runDirectory": str(places.run),
        "pinDirectory": str(places.pins),
        "processes": [{"name": process.name, "pid": process.pid} for process in shown],
        "notRunning": sorted(set(expected) - {process.name for process in shown}),
        "kubeconfig": None if kubeconfig is None else str(kubeconfig),
        "node": nodes[0],
        "nodes": nodes,
        "pods": statuses,
        "notEnforced": [
            f"{pod['namespace']}/{pod['name']}: {pod['reason']}"
            for pod in statuses
            if not pod["enforced"]
        ],
    }


def table(status: Status) -> str:
    """The same for people."""
    processes = [f"{p['name']} (pid {p['pid']})" for p in status["processes"]]
    missing = [f"{name} (not running)" for name in status["notRunning"]]
    head = columns(
        [
            ("lab", status["name"]),
            ("processes", ", ".join([*processes, *missing])),
            ("tenant file", status["config"] or NONE),
            ("network", status["network"]),
            *(
                ("node", f"{node['networkNamespace']} {' '.join(node['addresses'])}")
                for node in status["nodes"]
            ),
            *([("kubeconfig", status["kubeconfig"])] if status["kubeconfig"] else []),
            ("pins", status["pinDirectory"]),
        ]
    )
    rows = [
        (
            f"{pod['namespace']}/{pod['name']}",
            pod["hostInterface"] or NONE,
            ",".join(pod["addresses"]),
            "yes" if pod["enforced"] else "NO",
        )
        for pod in status["pods"]
    ]
    pods = columns([("POD", "INTERFACE", "ADDRESSES", "ENFORCED"), *rows])
    problems = "".join(f"not enforced: {line}\n" for line in status["notEnforced"])
    return f"{head}\n{pods}{problems}"


def _node(home: Home) -> NodeStatus:
    return {
        "name": home.node.name,
        "networkNamespace": home.places.netns,
        "addresses": list(home.node.ips),
        "podCIDRs": list(home.node.pod_cidrs),
    }


def _pods(view: View, home: Home, running: Collection[str]) -> list[PodStatus]:
    """The pods of one node."""
    items = [item for item in view.pods if item.node == home.node.name]
    told = _told(home.places) if home.places.enforcer in running else {}
    with _in_kernel(home.places) as loaded:
        return [_pod(item, loaded, told) for item in items]


def _pod(item: Running, loaded: _Kernel | None, told: Mapping[str, str]) -> PodStatus:
    reason = HOST_NETWORK if item.wire is None else _lack(item.wire, loaded)
    if reason and item.pod.key in told:
        reason = told[item.pod.key]
    return {
        "namespace": item.pod.namespace,
        "name": item.pod.name,
        "networkNamespace": item.netns,
        "hostInterface": None if item.wire is None else item.wire.interface,
        "addresses": list(item.pod.ips),
        "enforced": not reason,
        "reason": reason,
    }


def _lack(wire: Wire, loaded: _Kernel | None) -> str:
    """Why a pod is not enforced, or nothing; asked in the node's network namespace."""
    if loaded is None:
        return "no programs are loaded"
    try:
        ifindex = if_nametoindex(wire.interface)
        if attach.attached(loaded.pins, ifindex) is None:
            return f"no programs on {wire.interface}"
    except (OSError, RingfenceError) as error:
        return str(error)
    entry = loaded.endpoints.get(ifindex)
    if entry is None or EndpointFlag.READY not in entry.flags:
        return "closed: it has no policy state yet"
    return ""


@contextmanager
def _in_kernel(places: NodePlaces) -> Iterator[_Kernel | None]:
    """What a node's pins hold, with this thread in the node's network namespace."""
    with netns.inside(places.netns):
        yield _loaded(places)


def _loaded(places: NodePlaces) -> _Kernel | None:
    try:
        pins = loader.find_loaded(places.pins)
        if pins is None:
            return None
        with Maps.open(pins) as maps:
            return _Kernel(pins, maps.read().endpoints)
    except KernelError:
        return None


def _told(places: NodePlaces) -> Mapping[str, str]:
    """The agent's reasons for pods that it does not enforce."""
    try:
        answer = control.ask(places.enforcer_run, {"command": "status"})
    except RingfenceError:
        return {}
    listed = answer.get("notEnforced")
    return {
        f"{item['namespace']}/{item['pod']}": str(item["reason"])
        for item in (listed if isinstance(listed, list) else ())
    }


def listed() -> list[Lab]:
    """Every lab that left a ledger, by name; also one whose processes have died."""
    machine.check_root()
    root = names.RUN_ROOT
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [lab for name in found if (lab := _lab_called(name)) is not None]


def _lab_called(name: str) -> Lab | None:
    try:
        ledger = created.load(names.places(name))
    except created.BrokenLedger:
        unknown = {key.lower(): None for key in _HEAD}
        return {**unknown, "name": name, "status": "of another version"}
    return None if ledger is None else _lab(ledger)


def _lab(ledger: CreatedThings) -> Lab:
    state = ledger.state
    alive = sum(process.alive for process in state.processes)
    kubeconfig = backing_of(state).kubeconfig(ledger)
    return {
        "name": state.name,
        "status": state.phase.value if alive else "stopped",
        "objects": _KINDS[state.backing],
        "nodes": max(state.nodes, 1),
        "processes": alive,
        "kubeconfig": None if kubeconfig is None else str(kubeconfig),
    }


def list_table(labs: Iterable[Lab]) -> str:
    """The same for people."""
    rows = [
        ["-" if (value := lab[key.lower()]) is None else str(value) for key in _HEAD]
        for lab in labs
    ]
    return columns([list(_HEAD), *rows]) if rows else "no labs; `ringfence lab up` starts one\n"
