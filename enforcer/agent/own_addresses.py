"""This node's own addresses: those of its interfaces, followed while the agent runs.

Node.status names few of them, and the kubelet's packets carry the address of the bridge or of the
host side of the veth that leads to the pod. `of_node` decides which addresses count (pure), the
`Follower` hears of changes in a thread of its own, and `OwnNode` has the agent's loop see its node
as its interfaces are. An address that others than the node's administrator can set does not count.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Generic, TypeVar

from enforcer.agent.supervise import Report, Supervised
from enforcer.datapath import links
from enforcer.datapath.links import HeldAddress, Link
from enforcer.policy.changes import InputChange, NodesChange
from generators.objects import Node

IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x04, 0x08, 0x40, 0x80
SCOPE_HOST = 254
BRIDGE = "bridge"
OF_SERVICES = ("kube-ipvs0", "nodelocaldns")
"""Interfaces on which kube-proxy (IPVS) and the node's DNS cache keep addresses of Services: their
owners may write Services, and what they lead to is behind them."""
Seen = TypeVar("Seen")


def of_node(held: Iterable[HeldAddress], interfaces: Iterable[Link]) -> tuple[str, ...]:
    """The addresses that mean the node itself, each once, in order."""
    by_index = {link.ifindex: link for link in interfaces}
    counted = {
        item.address
        for item in held
        if (link := by_index.get(item.ifindex)) is not None and _counts(item, link)
    }
    return tuple(sorted(counted))


def _counts(held: HeldAddress, link: Link) -> bool:
    address = ip_address(held.address)
    if held.scope >= SCOPE_HOST or link.name in OF_SERVICES:
        return False
    # Every interface has one of these, and so may everybody's neighbour.
    if address.version == 6 and address.is_link_local:
        return False
    # Not yet in use, or a neighbour has it.
    if held.flags & IFA_F_DADFAILED:
        return False
    if held.flags & IFA_F_TENTATIVE and not held.flags & IFA_F_OPTIMISTIC:
        return False
    # Where pods are, a router advertisement or a lease may be a pod's.
    near_pods = link.kind == BRIDGE or links.is_of_pod(link)
    return not near_pods or bool(held.flags & IFA_F_PERMANENT)


def look() -> tuple[str, ...]:
    """The addresses of this node at this moment."""
    with links.netlink() as asked:
        return of_node(asked.addresses(), asked.links())


def look_for_tunnels() -> tuple[int, ...]:
    """The UDP ports at which this node unpacks what arrives, at this moment."""
    with links.netlink() as asked:
        return tuple(sorted({link.tunnel_port for link in asked.links() if link.tunnel_port}))


class OwnNode:
    """The agent's view of its own Node; `follow` is for its loop alone."""

    def __init__(self, name: str, addresses: tuple[str, ...] = ()) -> None:
        self._name = name
        self._addresses = addresses
        self._shown = addresses
        self._nodes: NodesChange | None = None

    def have(self, addresses: tuple[str, ...]) -> None:
        """These are the node's from now on; any thread may say so."""
        self._addresses = addresses

    def follow(self, changes: Iterable[InputChange]) -> Iterator[InputChange]:
        """The same changes, with our own node as its interfaces are."""
        addresses = self._addresses
        moved = addresses != self._shown
        self._shown = addresses
        for change in changes:
            if not isinstance(change, NodesChange):
                yield change
                continue
            self._nodes, moved = change, False
            yield self._completed(change)
        if moved and self._nodes is not None:
            yield self._completed(self._nodes)

    def _completed(self, change: NodesChange) -> NodesChange:
        nodes = {node.name: node for node in change.nodes}
        own = nodes.get(self._name, Node(self._name))
        nodes[self._name] = replace(own, interface_ips=self._shown)
        return replace(change, nodes=tuple(nodes.values()))


class Follower(Generic[Seen]):
    """Listens to the node's interfaces once it is made; `run` reports changes."""

    def __init__(
        self, part: Supervised, look: Callable[[], Seen], changed: Callable[[Seen], None]
    ) -> None:
        self._part = part
        self._look = look
        self._changed = changed
        groups = (links.RTNLGRP_IPV4_IFADDR, links.RTNLGRP_IPV6_IFADDR, links.RTNLGRP_LINK)
        self._socket = links.listen(*groups)
        self._socket.setblocking(False)
        self._last = look()
        changed(self._last)

    def run(self, stop: threading.Event) -> None:
        """Follow until stopped."""
        self._part.heed(self._socket, self._step, stop)

    def _step(self) -> None:
        self._drain()
        found = self._look()
        if found != self._last:
            self._last = found
            self._changed(found)

    def _drain(self) -> None:
        """Any message means that something changed, however many there are."""
        while True:
            try:
                self._socket.recv(links.RECEIVE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def addresses(
    changed: Callable[[tuple[str, ...]], None], report: Report
) -> Follower[tuple[str, ...]]:
    """Reports the node's addresses."""
    part = Supervised("addresses", "new addresses of this node are not followed", report)
    return Follower(part, look, changed)


def tunnels(
    changed: Callable[[tuple[int, ...]], None], report: Report
) -> Follower[tuple[int, ...]]:
    """Reports the ports of the node's tunnels."""
    part = Supervised("tunnels", "pods may send to new tunnels of this node", report)
    return Follower(part, look_for_tunnels, changed)
