"""One agent at one size, in a process of its own.

Run as `python -m bench.parts.node_process PODS LOCAL COUNT`. `bench.node` starts it and reads the
JSON that it prints. The agent is the real one with real maps and programs, in a network namespace
of its own with an interface for each local pod; its API server is a replayed watch (replay.py).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import orjson

from bench.parts.replay import Replayed
from enforcer.agent.attachments import Attachments
from enforcer.agent.collector import Collector
from enforcer.agent.loop import Agent, AgentParts
from enforcer.agent.settings import AgentSettings, exclusive
from enforcer.agent.state import Board, NodeState
from enforcer.answers.counts import Counts
from enforcer.datapath import attach, loader
from enforcer.datapath.maps import Maps
from enforcer.http.proxy import Proxy
from enforcer.policy.changes import Attachment
from enforcer.policy.tables import AddressEntry, MapWrite, Table
from enforcer.sources.api import ApiSupply
from enforcer.sources.tenants import AgentTenants
from generators.documents.json import Document
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, NODES, PODS, Resource
from lab import netns

NODE = "here"
POD_CIDR = "10.0.0.0/8"
APPS = ("web", "api", "db", "cache")
PODS_EACH = 100
REPLICAS = 4
TEMPLATE = "7d9c6b8f5"
PATIENCE = 600.0
IDLE_SECONDS = 5.0


def address(number: int) -> str:
    """Of a pod."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def pod(number: int, *, local: bool = False, app: str = "") -> Document:
    """As long as real pods: the agent discards most of it."""
    labels = {"app": app or APPS[number % 4], "pod-template-hash": TEMPLATE}
    padding = [{"manager": f"m{i}", "fieldsV1": {"f:metadata": {"f:labels": {}}}} for i in range(8)]
    owner = {"kind": "ReplicaSet", "name": replica_set_of(number), "controller": True}
    env = [{"name": f"SETTING_{i}", "value": "something that is set"} for i in range(30)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name_of(number),
            "namespace": namespace_of(number),
            "uid": uid_of(number),
            "labels": labels,
            "annotations": {"checksum": "0" * 64},
            "ownerReferences": [owner],
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": padding,
        },
        "spec": {
            "nodeName": NODE if local else f"node-{number % 500}",
            "containers": [
                {"name": "c", "env": env, "ports": [{"name": "http", "containerPort": 8080}]}
            ],
        },
        "status": {
            "phase": "Running",
            "hostIP": "192.168.0.9",
            "podIP": address(number),
            "podIPs": [{"ip": address(number)}],
        },
    }


def name_of(number: int) -> str:
    """Of a pod."""
    return f"{replica_set_of(number)}-{number:06x}"


def replica_set_of(number: int) -> str:
    """Of a pod's owner."""
    return f"workload-{number // REPLICAS}-{TEMPLATE}"


def uid_of(number: int) -> str:
    """Of a pod."""
    return f"{number:08x}-1111-2222-3333-444444444444"


def namespace_of(number: int) -> str:
    """Of a pod."""
    return f"team-{number // PODS_EACH}"


def namespace(name: str, tier: str = "one") -> Document:
    """One that policies can tell by its tier."""
    labels = {"kubernetes.io/metadata.name": name, "tier": tier}
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def policy(name: str, port: int = 8080) -> Document:
    """From the own namespace, and on a port from some pods of some namespaces."""
    peers: list[Document] = [
        {"from": [{"podSelector": {}}]},
        {
            "from": [
                {
                    "namespaceSelector": {"matchLabels": {"tier": "two"}},
                    "podSelector": {"matchLabels": {"app": "api"}},
                }
            ],
            "ports": [{"port": port}],
        },
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "isolation", "namespace": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": peers},
    }


def first_state(pods: int, local: int) -> Mapping[Resource, Iterator[bytes]]:
    """What is there before the first event; local pods are spread over the namespaces."""
    names = sorted({namespace_of(number) for number in range(pods)})
    step = max(1, pods // local)
    here = set(range(0, step * local, step))
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "spec": {"podCIDRs": [POD_CIDR]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.9"}]},
    }
    return {
        NAMESPACES: (orjson.dumps(namespace(name)) for name in names),
        NETWORK_POLICIES: (orjson.dumps(policy(name)) for name in names),
        NODES: iter([orjson.dumps(node)]),
        PODS: (orjson.dumps(pod(number, local=number in here)) for number in range(pods)),
    }


def interfaces(pods: int, local: int) -> None:
    """One for each local pod."""
    step = max(1, pods // local)
    lines = [
        f"link add d{number} type veth peer name e{number}"
        for number in range(0, step * local, step)
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def attachments(folder: Path) -> Attachments:
    """The local interfaces, as CNI would have reported them."""
    found = Attachments(folder)
    held = frozenset(found.snapshot())
    for ifindex, name in socket.if_nameindex():
        if name.startswith("d") and name[1:].isdecimal():
            number = int(name[1:])
            of = (namespace_of(number), name_of(number), uid_of(number))
            attachment = Attachment(name, *of, ifindex, (address(number),))
            if attachment not in held:
                found.put(attachment)
    return found


def _has_come_to(revision: int, state: NodeState) -> bool:
    return state.revision >= revision


class Watched:
    """The agent's loop, seen from outside."""

    def __init__(self, board: Board, replay: Replayed) -> None:
        self._board = board
        self._replay = replay

    def writes(self) -> int:
        """To the maps, so far."""
        done = self._board.state.tally.read().items()
        return sum(count for work, count in done if work.action == "map")

    def time(
        self, resource: Resource, documents: Iterator[tuple[str, Document]]
    ) -> tuple[list[float], list[int]]:
        """Seconds from an event to the maps, and writes to them, of each."""
        seconds: list[float] = []
        writes: list[int] = []
        for kind, document in documents:
            state, before = self._board.state, self.writes()
            start = time.perf_counter()
            self._replay.send(resource, kind, document)
            after = state.revision + 1
            if self._board.wait(partial(_has_come_to, after), 30) is None:
                raise TimeoutError(f"{kind} {document['metadata']}")
            seconds.append(time.perf_counter() - start)
            writes.append(self.writes() - before)
            # The loop may still be at the end of its turn.
            time.sleep(0.002)
        return seconds, writes


def events(pods: int, count: int) -> dict[str, tuple[Resource, Iterator[tuple[str, Document]]]]:
    """What happens, by its name."""
    new = range(pods, pods + count)
    last = namespace_of(pods - 1)
    return {
        "pod added": (PODS, (("ADDED", pod(n)) for n in new)),
        "pod relabelled": (PODS, (("MODIFIED", pod(n, app=APPS[(n + 1) % 4])) for n in new)),
        "pod removed": (PODS, (("DELETED", pod(n)) for n in new)),
        "namespace relabelled": (
            NAMESPACES,
            (("MODIFIED", namespace(last, ("two", "one")[i % 2])) for i in range(count)),
        ),
        "policy changed": (
            NETWORK_POLICIES,
            (("MODIFIED", policy(namespace_of(0), 9000 + i)) for i in range(count)),
        ),
    }


def resident() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, slots=True)
class Running:
    """An agent at work."""

    replay: Replayed
    board: Board
    maps: Maps
    watched: Watched


@contextmanager
def running(
    replay: Replayed, folder: Path, pin_dir: Path, audit_seconds: float = 1e9
) -> Iterator[Running]:
    """A real agent in a thread, in the network namespace of the caller."""
    settings, board = (
        AgentSettings(NODE, None, None, pin_dir, folder, audit_seconds=audit_seconds),
        Board(),
    )
    with exclusive(settings):
        pins = loader.ensure_loaded(pin_dir)
        with Maps.open(pins) as maps, ExitStack() as stack:
            counts, told, stop = Counts(maps), board.state, threading.Event()
            supply = ApiSupply(replay, NODE, AgentTenants(None), "ringfence-system")
            collector = Collector(maps.collect, counts.forget, told.tally, told.delays)
            proxy = Proxy(folder, pins, None)
            stack.callback(proxy.close)
            agent = Agent(
                settings,
                AgentParts(supply, maps, pins, board, attachments(folder), collector, proxy),
            )
            thread = threading.Thread(target=agent.run, args=(stop,))
            thread.start()
            try:
                yield Running(replay, board, maps, Watched(board, replay))
            finally:
                stop.set()
                agent.wake()
                thread.join()


def measure(pods: int, local: int, count: int, folder: Path, pin_dir: Path) -> dict[str, object]:
    """Everything, at one size."""
    loader.ensure_bpffs(pin_dir)
    loader.ensure_loaded(pin_dir)
    found: dict[str, object] = {}
    began, used = time.perf_counter(), time.process_time()
    with running(Replayed(first_state(pods, local)), folder, pin_dir) as agent:
        ready = agent.board.wait(lambda state: state.ready and not state.unenforced, PATIENCE)
        if ready is None:
            raise TimeoutError(f"not in force: {agent.board.state.errors}")
        found["sync"] = time.perf_counter() - began
        found["sync_cpu"] = time.process_time() - used
        found["idle"] = idle()
        found["rss"] = resident()
        found["one_write"] = [_one_write(agent.maps) for _ in range(count)]
        found["events"] = {
            name: agent.watched.time(resource, documents)
            for name, (resource, documents) in events(pods, count).items()
        }
        found["rss_after"] = resident()
    return found


def _one_write(maps: Maps) -> float:
    """Seconds; of an unused address that is removed again at once."""
    start = time.perf_counter()
    maps.apply([MapWrite(Table.ADDRESSES, "192.0.2.1", AddressEntry(1))])
    seconds = time.perf_counter() - start
    maps.apply([MapWrite(Table.ADDRESSES, "192.0.2.1", None)])
    return seconds


def idle() -> float:
    """Share of a core while nothing happens."""
    time.sleep(1)
    used, began = time.process_time(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    return (time.process_time() - used) / (time.perf_counter() - began)


def main(pods: int, local: int, count: int) -> None:
    """Print what was measured."""
    name = f"rfb-{token_hex(3)}"
    pin_dir = Path("/sys/fs/bpf") / name
    netns.create(name)
    undo: list[Callable[[], object]] = [lambda: netns.remove(name)]
    try:
        with netns.inside(name), TemporaryDirectory() as folder:
            interfaces(pods, local)
            undo.insert(0, lambda: attach.uninstall(pin_dir))
            print(json.dumps(measure(pods, local, count, Path(folder), pin_dir)))
            attach.uninstall(pin_dir)
            undo.pop(0)
    finally:
        for step in undo:
            step()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
