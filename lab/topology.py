"""Nodes of a lab, hollow and real, by number: their names, addresses and pod ranges. Pure.

All of it follows from the lab's name and the node's number, so that every process of a lab, and
the next command after a crash, comes to the same answer. Labs on one API server differ in their
node names and, as far as a byte of a hash goes, in their ranges. No address is ever on the machine
itself: all are in network namespaces of the lab.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from lab.names import NodePlaces, Places, PodNetwork, Shape

MOST_NODES = 16
FIRST_SECOND_BYTE = 128
"""Pod ranges are 10.128.0.0/9: clear of the default ranges of pods and Services."""
SERVER_NUMBER = 254
"""Whose addresses an API server has that real nodes reach."""
PREFIX_IPV4 = 24
PREFIX_IPV6 = 64


@dataclass(frozen=True, slots=True)
class LabNode:
    """One node: `addresses` are its own, `pod_cidrs` what its pods get theirs from."""

    name: str
    number: int
    places: NodePlaces
    addresses: tuple[str, str]
    pod_cidrs: tuple[str, str]

    @property
    def interfaces(self) -> tuple[str, str]:
        """Its addresses with the prefix lengths that reach all nodes."""
        return (
            f"{self.addresses[0]}/{PREFIX_IPV4}",
            f"{self.addresses[1]}/{PREFIX_IPV6}",
        )

    @property
    def port(self) -> str:
        """Its port of the switch between the nodes."""
        return f"port{self.number}"

    def network(self, shape: Shape) -> PodNetwork:
        """Its pods' network; the first address of its ranges is its own."""
        return PodNetwork(shape, self.pod_cidrs)

    def pod_addresses(self, host: int) -> tuple[str, str]:
        """The addresses of the pod with that number on this node."""
        v4, v6 = (cidr.partition("/")[0] for cidr in self.pod_cidrs)
        return f"{v4.rpartition('.')[0]}.{host}", f"{v6}{host:x}"


def server_interfaces(places: Places) -> tuple[str, str]:
    """The addresses of an API server among the nodes, with their prefix lengths."""
    return lab_node(places, SERVER_NUMBER).interfaces


def lab_node(places: Places, number: int) -> LabNode:
    """The node of that number, counted from 1."""
    byte = hashlib.sha256(places.name.encode()).digest()[0]
    pods = FIRST_SECOND_BYTE + byte % FIRST_SECOND_BYTE
    name = f"{places.name}-{number}"
    return LabNode(
        name,
        number,
        places.node(name),
        (f"172.31.{byte % 250}.{number}", f"fd00:172:{byte:x}::{number:x}"),
        (f"10.{pods}.{number}.0/24", f"fd00:10:{pods:x}:{number:x}::/64"),
    )


def lab_nodes(places: Places, count: int) -> Iterator[LabNode]:
    """All nodes of a lab of that size."""
    return (lab_node(places, number) for number in range(1, count + 1))


def node_named(places: Places, name: str) -> LabNode:
    """The node of that name; ValueError when no node of this lab is called so."""
    prefix, _, number = name.rpartition("-")
    if prefix != places.name or not number.isdecimal():
        raise ValueError(f"{name} is no node of lab {places.name}")
    return lab_node(places, int(number))
