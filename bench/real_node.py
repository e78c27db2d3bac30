"""What Ringfence costs a node whose pods are containers: kubelet, containerd and kube-proxy on two
nodes of one lab, of which the second had Ringfence and has it no more.

Pods start twenty at once, on one node and on the other in turns; a client asks a Service whose
backend is on its own node, each time by a new connection; and with thirty pods on each node that do
nothing, the processor time of their programs is counted.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from generators.documents.json import Document, Key, mappings, text
from generators.kube.client import Client, WatchScope
from generators.kube.reflector import Reflector
from generators.kube.resources import PODS
from lab.api.real import cgroups, programs
from lab.topology import lab_node
from tests.conftest import COMMAND
from tests.lab.api.hollow import fresh_lab
from tests.lab.api.real.nodes import TENANTS, RealLab, serving
from tests.lab.api.real.test_services import service, spec_of
from tests.testbed.waiting import eventually

OWNER = "bench"
WITHOUT, WITH = "without Ringfence", "with Ringfence"
NODES = {WITHOUT: 2, WITH: 1}
PATIENCE = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1_000_000


def run(scale: Scale) -> Iterator[Comparison]:
    """Starts, requests, and idle nodes."""
    programs.check()
    with (
        TemporaryDirectory(prefix="ringfence-bench-") as folder,
        fresh_lab(RealLab, _ringfence) as lab,
    ):
        file = Path(folder, "tenants.yaml")
        file.write_text(TENANTS)
        done = lab.up("--kubelet", "--nodes", "2", "-c", file)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        lab.uninstall(NODES[WITHOUT])
        (space,) = lab.spaces("red")
        yield _starts(lab, space, scale)
        yield _requests(lab, space, scale)
        yield _idle(lab, space, scale)


def _ringfence(
    *arguments: str | Path, stdin: str = "", timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        input=stdin,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


class Followed:
    """When pods of a namespace became ready, as a watch tells it."""

    def __init__(self, client: Client, space: str) -> None:
        self.ready: dict[str, float] = {}
        self._changed = threading.Event()
        scope = WatchScope(namespace=space)
        self._pods = Reflector(client, PODS, _is_ready, self._note, scope=scope)
        self._pods.start()

    def stop(self) -> None:
        """End the watch."""
        self._pods.stop()

    def names(self) -> set[str]:
        """Those that the API server has."""
        return {key.name for key in self._pods.store.snapshot()}

    def _note(self, key: Key) -> None:
        if self._pods.store.get(key):
            self.ready.setdefault(key.name, time.perf_counter())


def _is_ready(document: Document) -> bool:
    conditions = mappings(document, "status", "conditions")
    return any(text(c, "type") == "Ready" and text(c, "status") == "True" for c in conditions)


def _starts(lab: RealLab, space: str, scale: Scale) -> Comparison:
    count = scale.of(20, 2)
    with Client.connect(str(lab.places.kubeconfig), user_agent=OWNER) as client:
        followed = Followed(client, space)
        turns = {
            name: _starting(lab, client, followed, (space, number, count))
            for name, number in NODES.items()
        }
        samples = alternate(turns, scale.of(3, 1))
        followed.stop()
    return Comparison(
        f"{count} pods created at once, until each is ready",
        tuple(Series(name, Unit.SECONDS, found) for name, found in samples.items()),
    )


def _starting(lab: RealLab, client: Client, followed: Followed, what: tuple[str, int, int]) -> Turn:
    space, number, count = what
    node = lab_node(lab.places, number).name

    def turn() -> Sequence[float]:
        names = [f"start-{number}-{time.monotonic_ns()}-{pod}" for pod in range(count)]
        begun = {}
        for name in names:
            begun[name] = time.perf_counter()
            client.create(PODS, _pod(space, name, node), manager=OWNER)
        eventually(lambda: followed.ready.keys() >= begun.keys(), "all are ready", PATIENCE)
        for name in names:
            client.delete(PODS, name, space, grace_seconds=1)
        eventually(lambda: not followed.names() & begun.keys(), "all are gone", PATIENCE)
        return [followed.ready[name] - start for name, start in begun.items()]

    return turn


def _pod(space: str, name: str, node: str) -> Document:
    container: Document = {"name": "main", "image": "responder:lab", "args": ["serve", "80"]}
    return {
        "metadata": {"name": name, "namespace": space, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [container]},
    }


def _requests(lab: RealLab, space: str, scale: Scale) -> Comparison:
    turns = {}
    for name, number in NODES.items():
        spec = f"nodeName: {lab_node(lab.places, number).name}"
        web, own = f"{space}/web{number}", f"{space}/own{number}"
        text_ = serving(web, spec=spec) + serving(own, spec=spec) + service(web, f"web{number}", "")
        lab.make(text_, web, own)
        address = spec_of(lab, space, f"web{number}")["clusterIP"]
        lab.answer(own, f"{address}:8080")
        turns[name] = _asking(lab, own, f"{address}:8080", scale.of(2000, 20))
    samples = alternate(turns, scale.of(20, 1))
    return Comparison(
        "Requests to a Service by kube-proxy (nftables), each by a new connection",
        tuple(Series(name, Unit.PER_SECOND, found) for name, found in samples.items()),
    )


def _asking(lab: RealLab, pod: str, target: str, count: int) -> Turn:
    """From the pod's network namespace: what starts a container's process is not counted."""
    found = lab.pod(pod)
    node = lab.places.node(found["spec"]["nodeName"]).netns
    process = cgroups.process_of(node, found["metadata"]["uid"])
    where = f"--net=/proc/{process}/ns/net"
    asking = ["connect", "-wait", "5s", "-count", str(count), "-sum", target]
    command = ["nsenter", where, str(programs.responder()), *asking]

    def turn() -> Sequence[float]:
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (count / (time.perf_counter() - start),)

    return turn


def _idle(lab: RealLab, space: str, scale: Scale) -> Comparison:
    count, seconds = scale.of(30, 2), scale.of(60, 2)
    pods = []
    for number in NODES.values():
        spec = f"nodeName: {lab_node(lab.places, number).name}"
        names = [f"{space}/idle{number}-{pod}" for pod in range(count)]
        lab.make("".join(serving(name, spec=spec) for name in names), *names)
        pods += names
    groups = {
        f"kubelet, containerd and kube-proxy {WITHOUT}": _pids(lab, NODES[WITHOUT]),
        f"the same {WITH}": _pids(lab, NODES[WITH]),
        "Ringfence's agent": _programs(lab, lab.parts(NODES[WITH]).node.places.enforcer),
    }
    before = {name: sum(map(_processor, pids)) for name, pids in groups.items()}
    time.sleep(seconds)
    series = [
        Series(
            name,
            Unit.SECONDS,
            ((sum(map(_processor, pids)) - before[name]) * 60 / seconds,),
            {"RSS": f"{sum(map(_resident, pids)) / MEGABYTE:.0f} MB"},
        )
        for name, pids in groups.items()
    ]
    return Comparison(f"Processor time of a minute with {count} idle pods on a node", tuple(series))


def _pids(lab: RealLab, number: int) -> list[int]:
    parts = lab.parts(number)
    return _programs(lab, parts.kubelet, parts.containerd, parts.proxy)


def _programs(lab: RealLab, *names: str) -> list[int]:
    """The programs themselves: what the lab knows entered the node and waits for them."""
    entered = [lab.pid(name) for name in names]
    children = (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in entered)
    return [int(pid) for found in children for pid in found]


def _processor(pid: int) -> float:
    """What a process has used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
