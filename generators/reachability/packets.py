"""Packets and their ends, as decisions see them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from generators.addresses import Family
from generators.objects import Direction, Pod

EXTERNAL_PREFIX = "ip/"


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """One cell of the matrix before it is answered; the ends are `ns/pod` or `ip/ADDR`."""

    source: str
    destination: str
    protocol: str
    port: int
    family: Family


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a connection as a decision sees it.

    `pod` is set for pods on the pod network only; `node` is the name of the node whose address it
    is, for the node's own processes and for pods on its network. `interface_of` names the nodes
    that have the address on an interface: to their pods it is the node, to others nobody.
    """

    name: str
    address: str
    pod: Pod | None = None
    node: str | None = None
    interface_of: frozenset[str] = frozenset()


class Route(Enum):
    """How a packet got to the destination that it is judged by."""

    DIRECT = "direct"
    SERVICE = "by a Service"


@dataclass(frozen=True, slots=True)
class Packet:
    """The opening packet of a connection; by a Service: to one of its backends."""

    source: Party
    destination: Party
    protocol: str
    port: int
    route: Route = Route.DIRECT

    def peer(self, direction: Direction) -> Party:
        """The other end, seen from the pod that a policy of this direction isolates."""
        return self.source if direction is Direction.INGRESS else self.destination

    def subject(self, direction: Direction) -> Party:
        """The end whose policies of this direction are asked."""
        return self.destination if direction is Direction.INGRESS else self.source


def is_hairpin(packet: Packet) -> bool:
    """A pod that calls itself by a Service: it leaves the pod and comes back masqueraded."""
    return packet.route is Route.SERVICE and packet.source.address == packet.destination.address


def is_own(packet: Packet) -> bool:
    """A pod that calls its own address never leaves it, unless a Service leads it back."""
    return packet.route is Route.DIRECT and packet.source.address == packet.destination.address


def is_own_node(pod: Pod, other: Party) -> bool:
    """Whether the other end is the pod's own node; a pod that is on no node yet has none."""
    is_its = other.node == pod.node or pod.node in other.interface_of
    return other.pod is None and pod.node != "" and is_its
