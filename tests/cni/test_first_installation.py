"""The agent's first start on a node whose pods run already and have no routes of their own.

What a pod has configured on its own interface moves nobody, and while nobody knows where a strict
tenant's pod is, nothing reaches it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.names import NETNS_ROOT, Wire
from tests.cni.datagrams import Datagram, Listeners, listening
from tests.cni.node import Node, pod, tenants
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("plugin"), pytest.mark.timeout(120)]

PODS = ("t1/victim", "t1/friend", "t2/claimant", "t2/other", "free/visitor")
STRANGER = "no pod"
"""A container that Kubernetes knows nothing of."""
COMMON = ("10.8.0.0/28", "fd08::/120")
"""Routes as on a bridge: not just one pod's."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The node with its pods, before any agent."""

    node: Node
    wires: dict[str, Wire]
    ears: Listeners

    def reach(self, receiver: str, expected: Collection[str] = ()) -> set[str]:
        """Who reaches a pod, in whichever family; waits for those that are expected to."""
        target = self.wires[receiver]
        shots = [
            Datagram(f"{key} {n}", wire.netns, wire.addresses[n], target.addresses[n])
            for key, wire in self.wires.items()
            if key not in (receiver, STRANGER, "t2/claimant")  # that one would ask itself
            for n in (0, 1)
        ]
        wanted = [shot.name for shot in shots if shot.name.partition(" ")[0] in expected]
        arrived = self.ears.arrived(shots, wanted)
        return {name.partition(" ")[0] for name in arrived}


def ip(name: str, *words: str) -> None:
    """An `ip` command in a network namespace."""
    command = ["nsenter", f"--net={NETNS_ROOT / name}", "ip", *words]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    node = Node(tmp_path / "n")
    try:
        node.build()
        wires = {key: node.sandbox() for key in (*PODS, STRANGER)}
        victim = wires["t1/victim"]
        for address, common in zip(victim.addresses, COMMON, strict=True):
            ip(node.name, "route", "del", address)
            ip(node.name, "route", "add", common, "dev", victim.interface)
            claimant = wires["t2/claimant"].netns
            ip(claimant, "address", "add", address, "dev", "eth0", *(["nodad"] * (":" in address)))
        with listening() as ears:
            for wire in wires.values():
                ears.open(wire.netns, wire.addresses)
            yield Stage(node, wires, ears)
    finally:
        node.remove()


def test_a_pod_that_claims_anothers_addresses_opens_nobody(stage: Stage) -> None:
    node, victim = stage.node, stage.wires["t1/victim"]
    others = {"t1/friend", "t2/other", "free/visitor"}
    assert stage.reach("t1/victim", others) == others, "without an agent everything is open"
    known = {key: stage.wires[key] for key in PODS}
    node.write("base.json", *tenants())
    node.write("pods.json", *(pod(key, ips=wire.addresses) for key, wire in known.items()))
    node.start("--watch-interfaces=vt*")
    eventually(lambda: all(node.enforces(key) for key in PODS[1:]), "the others are enforced")
    eventually(lambda: node.log.count("unclaimed_interface_closed") == 2, "both are closed")
    told = str(node.status()["notEnforced"])
    assert "victim" in told
    assert "no interface known" in told
    assert stage.reach("t1/victim") == set(), "closed, not open"
    assert stage.reach(STRANGER) == set(), "it may be the victim"

    node.end(node.processes[-1])
    node.start("--watch-interfaces=vt*")
    eventually(lambda: all(node.enforces(key) for key in PODS[1:]), "by the next agent")
    assert stage.reach("t1/victim") == stage.reach(STRANGER) == set(), "still lost, still closed"

    node.records.mkdir(parents=True)
    record = {
        "ifName": "eth0",
        "netns": str(NETNS_ROOT / victim.netns),
        "cniArgs": [["K8S_POD_NAMESPACE", "t1"], ["K8S_POD_NAME", "victim"]],
        "result": {"ips": [{"address": f"{victim.addresses[0]}/24"}]},
    }
    (node.records / "net-c-eth0").write_text(json.dumps(record))
    eventually(lambda: node.enforces("t1/victim"), "it is found")
    assert stage.reach("t1/victim", {"t1/friend"}) == {"t1/friend"}
    eventually(lambda: "unclaimed_interface_opened" in node.log, "the stranger is let go")
    assert stage.reach(STRANGER, others) >= others
