"""Policies to map entries at 100,000 pods: from nothing, and after one change.

The baseline of a change is what an agent without an index does: it compiles everything again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.measure import Comparison, Item, Scale, Series, Unit, alternate, timed
from bench.parts import cluster as tenants_of
from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import Inputs, PodChange, PolicyChange
from enforcer.policy.tables import Table
from generators.cluster import Cluster
from generators.isolation.policies import isolation_policies
from generators.objects import (
    NAME_LABEL,
    Direction,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Node,
    Peer,
    Pod,
    PolicyPort,
    Rule,
)
from generators.selectors import labels_selector

NODE = "here"
APPS = ("web", "api", "db", "cache")
NEXT = dict(zip(APPS, (*APPS[1:], APPS[0]), strict=True))
PODS_EACH = 100
ONE_WRITE = "writes a change"


def run(scale: Scale) -> Iterator[Comparison]:
    """1,000 tenants with 100 pods and three policies each; one pod of every tenant is local."""
    tenants = scale.of(1000, 5)
    inputs = _inputs(tenants)
    compiler = _compiled(inputs)
    policies = len(inputs.cluster.policies)
    title = f"{tenants * PODS_EACH} pods, {policies} policies, {tenants} endpoints"
    scratch = alternate(
        {
            "pods as a set of addresses": timed(
                lambda: {ip for p in inputs.cluster.pods for ip in p.ips}
            ),
            "from nothing": lambda: (_worked(lambda _: _compiled(inputs), None),),
        },
        rounds=scale.of(3, 1),
    )
    memory = {"RSS of the process": _resident()}
    yield Comparison(
        f"Compile {title}: processor time",
        tuple(Series(name, Unit.SECONDS, found, memory) for name, found in scratch.items()),
        aim="from nothing under 10 s",
    )
    changes = scale.of(1000, 10)
    again = {"compile everything again": scratch["from nothing"]}
    for name, found, writes in _changes(compiler, inputs, changes):
        again[name] = found
        memory[name] = writes
    yield Comparison(
        f"One change at {title}: processor time until its writes are known",
        tuple(
            Series(name, Unit.SECONDS, found, {ONE_WRITE: memory.get(name, "all")})
            for name, found in again.items()
        ),
        aim="a pod added or relabelled: under 1 ms p99 and one write for each address family",
    )


def _changes(
    compiler: Compiler, inputs: Inputs, count: int
) -> Iterator[tuple[str, tuple[float, ...], str]]:
    """(what changes, seconds for each, writes)."""
    remote = [p for p in inputs.cluster.pods if p.node != NODE]
    picked = remote[:: max(1, len(remote) // count)][:count]
    added = [
        replace(pod, name=f"{pod.name}-more", ips=(f"10.200.{i >> 8}.{i & 255}",))
        for i, pod in enumerate(picked)
    ]
    relabelled = [replace(p, labels={"app": NEXT[p.labels["app"]]}) for p in added]
    opened = [replace(p, ingress=p.ingress[:1]) for p in inputs.cluster.policies][:count]
    work: tuple[tuple[str, Sequence[PodChange | PolicyChange]], ...] = (
        ("pod added", [PodChange(p.key, p) for p in added]),
        ("pod relabelled", [PodChange(p.key, p) for p in relabelled]),
        ("pod removed", [PodChange(p.key, None) for p in added]),
        ("policy changed", [PolicyChange(p.key, p) for p in opened]),
    )
    for name, changes in work:
        counts: list[int] = []

        def change(one: PodChange | PolicyChange, counts: list[int] = counts) -> None:
            compiler.apply((one,))
            counts.append(len(compiler.plan()))
            compiler.commit()

        seconds = tuple(_worked(change, one) for one in changes)
        ordered = sorted(counts)
        yield name, seconds, f"{ordered[len(ordered) // 2]} (at most {ordered[-1]})"


def _worked(change: Callable[[Item], object], one: Item) -> float:
    """Seconds of processor time: other processes of a busy machine do not count as work."""
    start = time.process_time()
    change(one)
    return time.process_time() - start


def _compiled(inputs: Inputs) -> Compiler:
    limits = dict.fromkeys(Table, 1 << 20)
    compiler = Compiler(NODE, limits=limits)
    compiler.become(inputs)
    compiler.plan()
    compiler.commit()
    return compiler


def _inputs(tenants: int) -> Inputs:
    config = tenants_of.config(tenants)
    nodes = (Node(NODE, ("192.168.0.1",)), Node("there", ("192.168.0.2",)))
    namespaces: dict[str, Namespace] = {}
    pods: list[Pod] = []
    policies: list[NetworkPolicy] = []
    owners = dict(tenants_of.namespaces(tenants, 1))
    for number, (name, tenant) in enumerate(owners.items()):
        labels = {NAME_LABEL: name, tenants_of.LABEL_KEY: tenant}
        namespaces[name] = Namespace(name, labels, uid=name)
        policies += isolation_policies(config, name, tenant, nodes)
        policies += _policies(name)
        pods += [_pod(name, number * PODS_EACH + index, index) for index in range(PODS_EACH)]
    local = [pod.key for pod in pods if pod.node == NODE]
    cluster = Cluster(
        namespaces=namespaces,
        pods=tuple(pods),
        policies=tuple(policies),
        nodes=nodes,
        config=config,
        tenants=owners,
        pod_cidrs=("10.0.0.0/8",),
    )
    return Inputs(cluster, {key: ifindex for ifindex, key in enumerate(local, start=2)})


def _pod(namespace: str, number: int, index: int) -> Pod:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    node = NODE if index == 0 else "there"
    return Pod(namespace, f"p{index}", {"app": APPS[index % 4]}, ips=(address,), node=node)


def _policies(namespace: str) -> tuple[NetworkPolicy, NetworkPolicy]:
    """A port for some pods, and egress to a block."""
    api = Peer(pod_selector=labels_selector({"app": "api"}))
    block = Peer(ip_block=IPBlock("0.0.0.0/0", ("10.0.0.0/8",)))
    web = labels_selector({"app": "web"})
    ports = (PolicyPort("TCP", 8080), PolicyPort("TCP", 9000, 9010))
    return (
        NetworkPolicy(
            namespace, "from-api", web, ingress=(Rule((api,), ports), Rule((), (PolicyPort(),)))
        ),
        NetworkPolicy(
            namespace,
            "egress",
            web,
            frozenset({Direction.EGRESS}),
            ingress=(),
            egress=(Rule((block,)), Rule((api,))),
        ),
    )


def _resident() -> str:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} MB"
