"""Generate rules on a real API server: existing namespaces, a burst, what is left in etcd.

Needs the testbed's programs. The baseline is a client that decides nothing and creates the same
objects with as many connections: what the API server itself takes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.controller import Times
from bench.measure import Comparison, Scale, Series, Unit
from generators.documents.json import Document, Key, mapping, strings, text
from generators.kube.client import Client, WatchScope
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES
from tests.controller.background.ground import Ground, ground, quiet, started
from tests.controller.background.rules import EXISTING, SYNC, deny, rule
from tests.controller.cluster import ControllerProcess

PATIENCE = 1800.0
CLIENTS = 8


def run(scale: Scale) -> Iterator[Comparison]:
    """Each sweep on a cluster of its own; the burst after the smaller one."""
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as name:
        for count in (scale.of(1_000, 10), scale.of(10_000, 20)):
            folder = Path(name) / str(count)
            folder.mkdir()
            with ground(folder) as on:
                yield from _existing(on, count)
                if count == scale.of(1_000, 10):
                    yield _burst(on, scale.of(200, 4))


def _existing(on: Ground, count: int) -> Iterator[Comparison]:
    names = [f"n{number}" for number in range(count)]
    others = [f"plain-{number}" for number in range(count)]
    _in_threads(on, [*names], {"run": "bench"})
    _in_threads(on, [*others], {})
    policy = rule("deny", "bench", deny("deny", SYNC, EXISTING))
    controller = started(on, seconds=PATIENCE)
    begin = _objects(on)
    start = time.perf_counter()
    on.policy_object("bench", policy)
    done = "everything is written"
    controller.until(
        lambda: _writes(controller) >= count and quiet(controller), done, PATIENCE, 0.1
    )
    ours = time.perf_counter() - start
    made = _objects(on) - begin
    notes = {
        "writes a namespace": f"{_writes(controller) / count:.2f}",
        "objects beside the wanted": f"{made - count}",
        **_memory(controller),
    }
    sample = on.admin.get(NETWORK_POLICIES, "deny", names[0])
    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda name: _bare(on.admin, name, sample), others))
    bare = time.perf_counter() - start
    yield Comparison(
        f"Policy made -> NetworkPolicy in each of {count} namespaces, a second",
        (
            Series("bare client", Unit.PER_SECOND, (count / bare,)),
            Series("controller", Unit.PER_SECOND, (count / ours,), notes),
        ),
        "no objects in etcd beside the wanted",
    )


def _burst(on: Ground, count: int) -> Comparison:
    spaces = Times(on.admin, NAMESPACES)
    policies = Times(on.admin, NETWORK_POLICIES)
    for times in (spaces, policies):
        times.reflector.start()
        times.reflector.wait_synced(30)
    try:
        names = [f"burst-{number}" for number in range(count)]

        def create(name: str) -> float:
            start = time.perf_counter()
            on.make(name, labels={"run": "bench"})
            return start

        with ThreadPoolExecutor(16) as pool:
            starts = dict(zip(names, pool.map(create, names), strict=True))
        seen = tuple(spaces.after(Key("", name), start) for name, start in starts.items())
        there = tuple(policies.after(Key(name, "deny"), start) for name, start in starts.items())
    finally:
        for times in (spaces, policies):
            times.reflector.stop()
    return Comparison(
        f"Namespace created -> seen by a watch, {count} at once",
        (
            Series("the namespace", Unit.SECONDS, seen),
            Series("its generated NetworkPolicy", Unit.SECONDS, there),
        ),
    )


def _in_threads(on: Ground, names: Sequence[str], labels: dict[str, str]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda name: on.make(name, labels=labels), names))


def _bare(client: Client, name: str, sample: Document) -> None:
    notes = strings(mapping(sample, "metadata"), "annotations")
    metadata = {"name": "bare", "namespace": name, "annotations": notes, "labels": {"bench": "yes"}}
    document: Document = {
        "metadata": metadata,
        "spec": mapping(sample, "spec"),
    }
    client.create(NETWORK_POLICIES, document, manager="bench")


def _objects(on: Ground) -> int:
    """NetworkPolicies, and the ConfigMaps that are ours."""
    ours = on.admin.list_all(CONFIG_MAPS, WatchScope(namespace="ringfence-system"))
    kept = [each for each in ours if "ringfence" in text(mapping(each, "metadata"), "name")]
    return len(on.admin.list_all(NETWORK_POLICIES)) + len(kept)


def _writes(controller: ControllerProcess) -> float:
    begin = "ringfence_policies_writes_total{"
    return sum(v for name, v in controller.metrics().items() if name.startswith(begin))


def _memory(controller: ControllerProcess) -> dict[str, str]:
    lines = Path(f"/proc/{controller.pid}/status").read_text().splitlines()
    memory = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if "kB" in line}
    return {"RSS": f"{memory['VmRSS']:.0f} MB", "peak": f"{memory['VmHWM']:.0f} MB"}
