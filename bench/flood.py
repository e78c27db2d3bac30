"""What one tenant's 100,000 blocks in 20 policies cost a pod that has nothing to do with it.

The agent of `node_process` in a process of its own: `python -m bench.flood POLICIES BLOCKS COUNT`.
The policies come one after the other while pods of other namespaces come; the baseline is the same
before the first of them. Not all of the blocks fit, and what does not is refused; an event counts
when the kernel has what it asks for, not when the agent has seen it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from bench.measure import Comparison, Scale, Series, Unit, told_by
from bench.parts.node_process import (
    PATIENCE,
    Running,
    address,
    first_state,
    interfaces,
    namespace_of,
    pod,
    resident,
    running,
)
from bench.parts.replay import Replayed
from enforcer.datapath import attach, loader
from generators.documents.json import Document
from generators.errors import MachineLacks
from generators.kube.resources import NETWORK_POLICIES, PODS
from lab import machine, netns
from tests.testbed.waiting import eventually

PODS_BEFORE, LOCAL = 10_000, 250
POLL_SECONDS = 0.0002
BETWEEN_SECONDS = 0.02
AIM = "p99 under 50 ms"


def run(scale: Scale) -> Iterator[Comparison]:
    """Before, during and after the flood."""
    try:
        machine.check()
    except MachineLacks as lack:
        yield Comparison("A flood of blocks", (), absent=(f"the agent: {lack}",))
        return
    sizes = (20, 5_000, 500) if scale is Scale.FULL else (2, 600, 5)
    told = told_by("bench.flood", sizes, PATIENCE)
    policies, blocks, _ = sizes
    notes = {name: {"RSS": f"{rss:.0f} MB"} for name, rss in told["rss"].items()}
    notes["during"]["all taken in after"] = f"{told['taken_in']:.1f} s"
    notes["during"]["of it processor"] = f"{told['cpu']:.1f} s"
    notes["after"]["refused"] = f"{told['refused']} of {policies} policies"
    yield Comparison(
        f"From an event to the kernel for an unrelated pod: {policies} policies of {blocks} blocks",
        tuple(
            Series(name, Unit.SECONDS, tuple(found), notes[name])
            for name, found in told["events"].items()
        ),
        AIM,
    )


def flood(number: int, blocks: int) -> Document:
    """A policy of the first namespace, for all of its pods."""
    first = number * blocks
    cidrs = (
        f"100.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32" for n in range(first, first + blocks)
    )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"flood-{number}", "namespace": namespace_of(0)},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]}],
        },
    }


def measure(policies: int, blocks: int, count: int, folder: Path, pin_dir: Path) -> Document:
    """All three phases of one agent."""
    loader.ensure_bpffs(pin_dir)
    loader.ensure_loaded(pin_dir)
    with running(Replayed(first_state(PODS_BEFORE, LOCAL)), folder, pin_dir) as agent:
        ready = agent.board.wait(lambda state: state.ready and not state.unenforced, PATIENCE)
        if ready is None:
            raise TimeoutError(f"not in force: {agent.board.state.errors}")
        numbers = iter(range(PODS_BEFORE, 1 << 22))
        events = {"before": [_one(agent, next(numbers)) for _ in range(count)]}
        rss = {"before": resident()}
        began, used = time.perf_counter(), time.process_time()
        for number in range(policies):
            agent.replay.send(NETWORK_POLICIES, "ADDED", flood(number, blocks))
        events["during"] = during = []
        taken = False
        while not taken:  # once more than needed: the last of them is in force then, too
            taken = _taken_in(agent, policies)
            during.append(_one(agent, next(numbers)))
        taken_in, cpu = time.perf_counter() - began, time.process_time() - used
        rss["during"] = resident()
        events["after"] = [_one(agent, next(numbers)) for _ in range(count)]
        rss["after"] = resident()
        refused = len(agent.board.state.refused)
    return {
        "events": events,
        "rss": rss,
        "taken_in": taken_in,
        "cpu": cpu,
        "refused": refused,
    }


def _one(agent: Running, number: int) -> float:
    """Seconds until the kernel knows the address of a new pod elsewhere."""
    start = time.perf_counter()
    agent.replay.send(PODS, "ADDED", pod(number))
    known = agent.board
    taken = "an event is taken in"
    eventually(
        lambda: address(number) in known.state.tables.addresses, taken, PATIENCE, POLL_SECONDS
    )
    seconds = time.perf_counter() - start
    time.sleep(BETWEEN_SECONDS)
    return seconds


def _taken_in(agent: Running, policies: int) -> bool:
    """Whether the agent has begun with the last policy."""
    known = agent.board.state.policies
    return all(f"{namespace_of(0)}/flood-{number}" in known for number in range(policies))


def main(policies: int, blocks: int, count: int) -> None:
    """Print what was measured."""
    name = f"rfb-{token_hex(3)}"
    pin_dir = Path("/sys/fs/bpf") / name
    with ExitStack() as stack:
        netns.create(name)
        stack.callback(netns.remove, name)
        stack.enter_context(netns.inside(name))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        interfaces(PODS_BEFORE, LOCAL)
        stack.callback(attach.uninstall, pin_dir)
        print(json.dumps(measure(policies, blocks, count, folder, pin_dir)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
