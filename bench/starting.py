"""What a pod's start costs and what passes before its policy is in force: the real CNI plugin.

A chain of Debian's `ptp` with ours behind it, beside `ptp` alone, run as a runtime runs them. Then,
for each start mode, another pod sends datagrams to a new pod that no one may enter: a sample is the
time from the start of its processes (ADD has returned) to the last datagram that came through.
Putting programs on a veth takes the kernel more than ten milliseconds, most of which the watcher
spends while `ptp` still works. The pod's policy is known to the agent all the time: a slower API
server is waited for in strict mode and makes the other gaps longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from enforcer.cni import build
from lab import machine, netns
from lab.names import NETNS_ROOT, Wire
from tests.cni.leaks import flooding
from tests.cni.node import Node, pod, started
from tests.cni.runtime import BOTH_FAMILIES, PLUGINS, Chain, conflist_of
from tests.enforcer.node import deny_ingress
from tests.testbed.waiting import eventually

POD = "t1/new"
SENDER = "t1/friend"
UNKNOWN = "neither plugin nor watcher"
WINDOW_SECONDS = 0.1
"""How long datagrams are sent to a pod that has started."""
MODES = ("open", "tenant-default", "strict")


def run(scale: Scale) -> Iterator[Comparison]:
    """ADD with and without our plugin, then the gaps."""
    machine.check()
    build.build()
    with _node() as node:
        if (PLUGINS / "ptp").exists():
            yield _add(node, scale)
        yield _gaps(node, scale)


@contextmanager
def _node() -> Iterator[Node]:
    with (
        TemporaryDirectory(prefix="ringfence-bench-") as folder,
        started(Path(folder, "node")) as node,
    ):
        node.write("pods.json", pod(POD), pod(SENDER), deny_ingress("t1"))
        yield node


def _add(node: Node, scale: Scale) -> Comparison:
    """The whole chain, from its first plugin to the last one's answer."""
    alone = node.directory / "alone.conflist"
    # IPv4 only: trying out an IPv6 address takes ptp more than a second.
    alone.write_text(conflist_of("ptp", node.directory / "addresses", BOTH_FAMILIES[:1]))
    node.conflist.write_text(alone.read_text())
    eventually(lambda: "ringfence-cni" in node.conflist.read_text())
    chains = {"ptp alone": alone, "ptp, then Ringfence": node.conflist}
    turns: dict[str, Turn] = {name: _adding(node, path) for name, path in chains.items()}
    samples = alternate(turns, scale.of(100, 2))
    return Comparison(
        "CNI ADD of a pod whose policy is known",
        tuple(Series(name, Unit.SECONDS, found) for name, found in samples.items()),
    )


def _adding(node: Node, conflist: Path) -> Turn:
    chain = Chain(conflist, NETNS_ROOT / node.name, node.places.bin_dir)

    def turn() -> Sequence[float]:
        box = node.empty().netns
        start = time.perf_counter()
        added = chain.add(box, NETNS_ROOT / box, POD)
        took = time.perf_counter() - start
        if added.code != 0:
            raise RuntimeError(f"ADD failed: {added.output} {node.log}")
        chain.delete(box, NETNS_ROOT / box, POD, added)
        netns.remove(box)
        return (took,)

    return turn


def _gaps(node: Node, scale: Scale) -> Comparison:
    """One agent after the other: a start mode is an agent's."""
    rounds = scale.of(50, 1)
    found: dict[str, list[tuple[float, int]]] = {}
    with ExitStack() as stack:
        sender = node.sandbox()
        stack.callback(node.delete, SENDER, sender)
        node.add(SENDER, sender)
        found[UNKNOWN] = [_gap_of_unknown(node, sender) for _ in range(rounds)]
        for mode in MODES:
            _restart(node, f"--start-mode={mode}")
            found[mode] = [_gap_of_add(node, sender) for _ in range(rounds)]
        _restart(node, "--watch-interfaces=vt*")
        found["the watcher alone"] = [_gap_of_watcher(node, sender) for _ in range(rounds)]
    return Comparison(
        "From the start of a pod to the last datagram that passed against its policy",
        tuple(
            Series(
                name,
                Unit.SECONDS,
                tuple(seconds for seconds, _ in gaps),
                {"datagrams a pod": f"{sum(count for _, count in gaps) / len(gaps):.2f}"},
            )
            for name, gaps in found.items()
        ),
        aim="none in strict",
    )


def _restart(node: Node, option: str) -> None:
    node.end(node.processes[-1])
    node.start(option)


def _gap_of_add(node: Node, sender: Wire) -> tuple[float, int]:
    wire = node.sandbox()
    with flooding(sender, wire) as flood:
        if node.add(POD, wire).code != 0:
            raise RuntimeError(f"ADD failed: {node.log}")
        begins = flood.go_on(WINDOW_SECONDS)
    node.delete(POD, wire)
    netns.remove(wire.netns)
    return _gap(flood.arrived, begins)


def _gap_of_unknown(node: Node, sender: Wire) -> tuple[float, int]:
    """Nothing announces this pod to the agent, and nothing closes it: all that is sent passes."""
    wire = node.sandbox()
    with flooding(sender, wire) as flood:
        begins = flood.go_on(WINDOW_SECONDS)
    node.delete(POD, wire)
    netns.remove(wire.netns)
    return _gap(flood.arrived, begins)


def _gap_of_watcher(node: Node, sender: Wire) -> tuple[float, int]:
    """From the veth on: only the kernel announces this pod to the agent."""
    wire = node.empty()
    with flooding(sender, wire) as flood:
        begins = time.monotonic()
        node.plug(wire)
        flood.go_on(WINDOW_SECONDS)
    node.delete(POD, wire)
    netns.remove(wire.netns)
    return _gap(flood.arrived, begins)


def _gap(arrived: Sequence[float], begins: float) -> tuple[float, int]:
    passed = [at - begins for at in arrived if at > begins]
    return max(passed, default=0.0), len(passed)
