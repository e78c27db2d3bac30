"""The processes of real nodes: in which order they start, and when they are ready.

    cluster    kube-scheduler
    each node  its view (view.py), and with that containerd, kubelet, kube-proxy and the enforcer

A node is registered with its pod ranges before its kubelet starts, which then finds it there.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from generators.documents.json import Document, mapping, mappings, text
from generators.kube.client import Client
from generators.kube.errors import AlreadyExists
from generators.kube.resources import NODES
from generators.objects import Pod
from lab import netns
from lab.api.control_plane import Identities
from lab.api.real import cgroups, configuration, containerd, dns, programs, view
from lab.api.real.parts import CNI_BIN, CNI_CONF, CNI_STATE, SCHEDULER, Parts
from lab.api.workload import LAB_LABEL
from lab.created import CreatedThings, State
from lab.names import NodePlaces, Places, Wire
from lab.network import interface_of
from lab.parts import LabFailed, agent_answers, alive, as_given, module, ringfence, start, wait
from lab.pods import Running
from lab.processes import Process
from lab.topology import lab_nodes

Waits = list[tuple[Process, Callable[[], bool]]]

PLUGINS = "usr/lib/cni"
CONFLIST = "10-ringfence-lab.conflist"
MANAGER = "ringfence-lab"


def parts_of(places: Places, count: int) -> Iterator[Parts]:
    """All real nodes of a lab."""
    return (Parts(places, node) for node in lab_nodes(places, count))


def expected(state: State, places: Places) -> Iterator[str]:
    """The processes that a lab with real nodes should have, beside those of every lab."""
    yield SCHEDULER
    for parts in parts_of(places, state.nodes):
        yield from (parts.view, parts.containerd, parts.kubelet, parts.proxy)
        if state.agents:
            yield parts.node.places.enforcer


def identities(places: Places, count: int) -> Identities:
    """Who the processes of real nodes are: the same as in any cluster."""
    found: dict[Path, tuple[str, tuple[str, ...]]] = {}
    found[_scheduler_config(places)] = ("system:kube-scheduler", ())
    for parts in parts_of(places, count):
        user = f"system:node:{parts.node.name}"
        found[parts.kubeconfig(parts.kubelet)] = (user, ("system:nodes",))
        found[parts.kubeconfig(parts.proxy)] = ("system:kube-proxy", ())
    return found


def start_processes(ledger: CreatedThings) -> None:
    """Start what should run and does not, and wait until every node is ready."""
    places = ledger.places
    nodes = list(parts_of(places, ledger.state.nodes))
    if not alive(ledger, SCHEDULER):
        with netns.inside(places.fabric_netns):
            start(ledger, SCHEDULER, _scheduler(places))
    for parts in nodes:
        _prepare(ledger, parts)
    waits: Waits = []
    for parts in nodes:
        with netns.inside(parts.node.places.netns):
            waits += _start_node(ledger, parts)
    for process, ready in waits:
        wait(places, process, ready)
    dns.start(places)


def leave(ledger: CreatedThings) -> None:
    """Remove what outlives the processes."""
    for parts in parts_of(ledger.places, ledger.state.nodes):
        cgroups.remove(parts.cgroup)
        if left := cgroups.left(parts.cgroup):
            raise LabFailed(f"cgroup {left[0]} still has processes; try `ringfence lab down` again")


def load(ledger: CreatedThings, archive: Path) -> None:
    """Give every node an image; LabFailed with containerd's words when it does not take it."""
    for parts in parts_of(ledger.places, ledger.state.nodes):
        containerd.load(parts, archive)


def running(pod: Pod, node: NodePlaces) -> Iterator[Running]:
    """A pod as commands look at it, where its processes are; it may have none any more."""
    process = cgroups.process_of(node.netns, pod.uid)
    if pod.host_network:
        yield Running(pod, node.netns, None, pod.node)
    elif process is not None:
        where = f"/proc/{process}/ns/net"
        yield Running(pod, where, Wire(where, interface_of(where, node.netns), pod.ips), pod.node)


def _prepare(ledger: CreatedThings, parts: Parts) -> None:
    """Folders, configurations and identities, once; a cgroup, and the Node."""
    cgroups.make(parts.cgroup)
    here, folder = parts.node.places, parts.folder
    if not here.cni_conf.exists():
        for path in (parts.root, here.cni_conf, here.cni_bin, parts.cni_state):
            path.mkdir(parents=True)
        runc = programs.debian("runc", "usr/sbin/runc")
        authority = ledger.places.plane / "ca.crt"
        chain = configuration.cni(parts, ledger.state.shape)
        texts = {
            folder / "containerd.toml": configuration.containerd(parts, runc),
            folder / "kubelet.json": json.dumps(configuration.kubelet(parts, authority), indent=1),
            folder / "kube-proxy.json": json.dumps(configuration.proxy(parts), indent=1),
            here.cni_conf / CONFLIST: chain + "\n",
        }
        for path, content in texts.items():
            path.write_text(content)
        for plugin in programs.debian("containernetworking-plugins", PLUGINS).iterdir():
            (here.cni_bin / plugin.name).symlink_to(plugin)
    _register(ledger.places, parts)


def _register(places: Places, parts: Parts) -> None:
    node = parts.node
    document: Document = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {LAB_LABEL: places.name}},
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": list(node.pod_cidrs)},
    }
    with Client.connect(str(places.kubeconfig), user_agent="ringfence-lab") as client:
        try:
            client.create(NODES, document, manager=MANAGER)
        except AlreadyExists:
            return


def _view(ledger: CreatedThings, parts: Parts) -> Process:
    """The process that keeps the node's view; where it was killed, so was the whole node."""
    running = ledger.state.process(parts.view)
    if running is not None and running.alive:
        return running
    ready = parts.folder / "view.ready"
    ready.unlink(missing_ok=True)
    words = (str(parts.root), str(ready), *parts.shown())
    process = start(ledger, parts.view, module("lab.api.real.view", *words))
    wait(ledger.places, process, ready.exists)
    return process


def _start_node(ledger: CreatedThings, parts: Parts) -> Waits:
    waits: Waits = []
    keeper = _view(ledger, parts)
    if not alive(ledger, parts.containerd):
        process = start(ledger, parts.containerd, view.inside(keeper, *containerd.command(parts)))
        wait(ledger.places, process, lambda: containerd.answers(parts))
        containerd.load_own(parts)
    if ledger.state.agents and not alive(ledger, parts.node.places.enforcer):
        here = parts.node.places
        agent = start(ledger, here.enforcer, _enforcer(ledger, parts, keeper))
        waits.append((agent, lambda: agent_answers(here.enforcer_run)))
    if not alive(ledger, parts.kubelet):
        kubelet = start(ledger, parts.kubelet, view.inside(keeper, *_kubelet(parts)))
        waits.append((kubelet, lambda: _ready(ledger.places, parts)))
    if not alive(ledger, parts.proxy):
        command = (programs.kubernetes("kube-proxy"), f"--config={parts.folder}/kube-proxy.json")
        proxy = start(ledger, parts.proxy, view.inside(keeper, *command))
        waits.append((proxy, lambda: _healthy(parts, 10256)))
    return waits


# --- command lines --------------------------------------------------------------------------------


def _scheduler(places: Places) -> tuple[str, ...]:
    config = _scheduler_config(places)
    return (
        programs.kubernetes(SCHEDULER),
        *(f"--{name}kubeconfig={config}" for name in ("", "authentication-", "authorization-")),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    )


def _scheduler_config(places: Places) -> Path:
    return places.plane / f"{SCHEDULER}.kubeconfig"


def _kubelet(parts: Parts) -> tuple[str, ...]:
    return (
        programs.kubernetes("kubelet"),
        f"--config={parts.folder}/kubelet.json",
        f"--kubeconfig={parts.kubeconfig(parts.kubelet)}",
        f"--hostname-override={parts.node.name}",
        f"--node-ip={','.join(parts.node.addresses)}",
    )


def _enforcer(ledger: CreatedThings, parts: Parts, keeper: Process) -> tuple[str, ...]:
    """It sees the node's files, and leaves its answers and pins where the machine finds them."""
    here, config = parts.node.places, ledger.state.config
    file = () if config is None else ("-c", as_given(ledger.state, config))
    command = ringfence(
        *("enforcer", "run", "--node-name", parts.node.name),
        *("--kubeconfig", str(ledger.places.inside_kubeconfig)),
        *file,
        *("--pin-dir", str(here.pins), "--run-dir", str(here.enforcer_run)),
        *("--cni-conf-dir", CNI_CONF, "--cni-bin-dir", CNI_BIN),
        *("--cni-cache-dir", f"{CNI_STATE}/results"),
    )
    return view.inside(keeper, *command, folder=ledger.state.directory)


# --- whether something is there -------------------------------------------------------------------


def _ready(places: Places, parts: Parts) -> bool:
    """Whether the Node says so."""
    with Client.connect(str(places.kubeconfig), user_agent="ringfence-lab") as client:
        status = mapping(client.get(NODES, parts.node.name, ""), "status")
    conditions = mappings(status, "conditions")
    return any(text(c, "type") == "Ready" and text(c, "status") == "True" for c in conditions)


def _healthy(parts: Parts, port: int) -> bool:
    with netns.inside(parts.node.places.netns):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()
