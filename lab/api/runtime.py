"""Pods' network on a hollow node: made, connected, taken down, according to the journal.

The kubelet's workers call it; every step may be repeated after a crash. A sandbox is connected
only when the agent enforces its pod, so no pod is ever open.
"""

from __future__ import annotations

from generators.errors import RingfenceError
from generators.objects import Pod
from lab import journal, netns, network
from lab.api.enforcement import Enforcement
from lab.journal import Journal, Sandbox, Stage
from lab.names import Places, Shape
from lab.topology import LabNode


class StillElsewhere(RingfenceError):
    """The names of a pod are taken for a moment; its step is repeated."""

    exit_code = 1


class Runtime:
    """The sandboxes of one node."""

    def __init__(
        self,
        places: Places,
        node: LabNode,
        held: Journal,
        enforcement: Enforcement,
        shape: Shape,
    ) -> None:
        self._places = places
        self._node = node
        self._journal = held
        self._enforcement = enforcement
        self._network = node.network(shape)

    def plan(self, pod: Pod) -> Sandbox:
        """Give a pod its names and addresses; nothing is made yet."""

        def make(host: int) -> Sandbox:
            return Sandbox(
                key=pod.key,
                uid=pod.uid,
                host=host,
                netns=self._places.pod_netns(pod.namespace, pod.name),
                interface=self._places.interface(pod.namespace, pod.name),
                addresses=self._node.pod_addresses(host),
            )

        return self._journal.plan(make)

    def wire(self, sandbox: Sandbox) -> Sandbox:
        """Make network namespace and veth, links down; what a crash left half done goes first."""
        self._wait_for_others(sandbox)
        self._remove(sandbox)
        netns.create(sandbox.netns)
        network.add_pod(self._node.places.netns, sandbox.wire)
        return self._journal.reach(sandbox, Stage.WIRED)

    def connect(self, sandbox: Sandbox) -> Sandbox:
        """Let packets flow."""
        network.connect_pod(self._node.places.netns, sandbox.wire, self._network)
        return self._journal.reach(sandbox, Stage.CONNECTED)

    def tear_down(self, sandbox: Sandbox) -> None:
        """Nothing of it stays; again is fine."""
        self._enforcement.forget(sandbox)
        self._remove(sandbox)
        self._journal.forget(sandbox.key)

    def _wait_for_others(self, sandbox: Sandbox) -> None:
        """A pod made again under its name may come here before its former node knows."""
        for path in self._places.run.glob("pods-*.json"):
            if path != self._node.places.journal and sandbox.key in journal.read(path):
                raise StillElsewhere(f"a former {sandbox.key} is still on another node")

    def _remove(self, sandbox: Sandbox) -> None:
        network.remove_pod(self._node.places.netns, sandbox.interface)
        netns.remove(sandbox.netns)
