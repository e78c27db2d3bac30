"""Whether a rule of a policy means a packet: its peers, and its ports.

What may surprise: peers and ports are tried in pairs, because a named port in an egress rule means
something only together with a peer that is a pod. Blocks of NetworkPolicies hold whoever has the
address; those of Cilium's policies only who is no pod and no node.
"""

from __future__ import annotations

from collections.abc import Mapping

from generators.addresses import contains, family
from generators.objects import (
    Direction,
    IPBlock,
    Namespace,
    NetworkPolicy,
    NodePeer,
    Peer,
    PolicyPort,
    Rule,
)
from generators.reachability.packets import Packet, Party, is_own_node
from generators.reachability.protocols import ECHO_REQUEST, ICMP, ICMP_PROTOCOLS, named_port
from generators.selectors import matches


def rule_matches(
    namespaces: Mapping[str, Namespace],
    direction: Direction,
    policy: NetworkPolicy,
    rule: Rule,
    packet: Packet,
) -> bool:
    """Peers are OR-ed, ports are OR-ed, both are AND-ed; an empty list means any."""
    peers: tuple[Peer | None, ...] = rule.peers or (None,)
    ports: tuple[PolicyPort | None, ...] = rule.ports or (None,)
    return any(
        (item is None or peer_matches(namespaces, direction, policy, item, packet))
        and (wanted is None or port_matches(direction, wanted, item, packet))
        for item in peers
        for wanted in ports
    )


def peer_matches(
    namespaces: Mapping[str, Namespace],
    direction: Direction,
    policy: NetworkPolicy,
    item: Peer,
    packet: Packet,
) -> bool:
    """Whether one item of `from` or `to` means the other end."""
    peer = packet.peer(direction)
    if item.ip_block is not None:
        inside = peer.pod is not None or peer.node is not None
        return not (item.ip_block.outside and inside) and block_holds(item.ip_block, peer.address)
    if item.node is not None:
        return node_matches(item.node, packet.subject(direction), peer)
    if peer.pod is None:
        return False
    if item.namespace_selector is None:
        if item.pod_selector is None or peer.pod.namespace != policy.namespace:
            return False
    elif not matches(item.namespace_selector, namespaces[peer.pod.namespace].labels):
        return False
    return item.pod_selector is None or matches(item.pod_selector, peer.pod.selectable)


def node_matches(wanted: NodePeer, subject: Party, peer: Party) -> bool:
    """Whether the other end is a node, the subject's own or another."""
    own = subject.pod is not None and is_own_node(subject.pod, peer)
    if wanted is NodePeer.HOST:
        return own
    return peer.pod is None and peer.node is not None and not own


def block_holds(block: IPBlock, address: str) -> bool:
    """Whether an address is in the block and in none of its excepts."""
    return contains(block.cidr, address) and not any(contains(e, address) for e in block.excepts)


def port_matches(
    direction: Direction, wanted: PolicyPort, item: Peer | None, packet: Packet
) -> bool:
    """Whether one item of `ports` means the port; `item` is the peer it stands with, None = any."""
    if packet.protocol == ICMP:
        of = family(packet.destination.address)
        return (wanted.protocol, wanted.port) == (ICMP_PROTOCOLS[of], ECHO_REQUEST[of])
    if wanted.protocol != packet.protocol:
        return False
    if wanted.port is None:
        return True
    if isinstance(wanted.port, int):
        return wanted.port <= packet.port <= (wanted.end_port or wanted.port)
    if direction is Direction.EGRESS and item is not None and item.ip_block is not None:
        return False
    owner = packet.destination.pod
    number = named_port(owner.ports, wanted.port, wanted.protocol) if owner is not None else None
    if number is None:
        return False
    # Towards the ports of others a name is one port, as Cilium has it.
    last = number if direction is Direction.EGRESS else max(number, wanted.end_port or 0)
    return number <= packet.port <= last
