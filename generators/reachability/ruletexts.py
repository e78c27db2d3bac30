"""Rules in words: what one means, and why it does not match a packet."""

from __future__ import annotations

from collections.abc import Mapping

from generators.objects import Direction, Namespace, NetworkPolicy, Peer, PolicyPort, Rule
from generators.reachability.matching import block_holds, peer_matches, port_matches
from generators.reachability.packets import Packet
from generators.reachability.protocols import named_port, port_text
from generators.selectors import first_unmet, requirement_text, text

Namespaces = Mapping[str, Namespace]


def describe(rule: Rule) -> str:
    """The peers and ports of a rule."""
    peers = " or ".join(peer_text(item) for item in rule.peers) or "anybody"
    ports = " or ".join(policy_port_text(item) for item in rule.ports) or "any port"
    http = f"; HTTP {' or '.join(map(str, rule.http))}" if rule.http else ""
    return f"{'denies ' if rule.deny else ''}{peers}; {ports}{http}"


def why_not(
    namespaces: Namespaces,
    direction: Direction,
    policy: NetworkPolicy,
    rule: Rule,
    packet: Packet,
) -> str:
    """Which parts of a rule do not fit a packet."""
    reasons = []
    fitting: list[Peer | None] = [
        item for item in rule.peers if peer_matches(namespaces, direction, policy, item, packet)
    ]
    if rule.peers and not fitting:
        reasons += [_peer_miss(namespaces, direction, policy, p, packet) for p in rule.peers]
    for item in rule.ports:
        if not any(port_matches(direction, item, fit, packet) for fit in fitting or [None]):
            reasons.append(_port_miss(item, packet))
    return "; ".join(dict.fromkeys(reasons))


def peer_text(item: Peer) -> str:
    """One item of `from` or `to`, in a few words."""
    if item.ip_block is not None:
        holes = f" except {', '.join(item.ip_block.excepts)}" if item.ip_block.excepts else ""
        outside = " outside the cluster" if item.ip_block.outside else ""
        return f"{item.ip_block.cidr}{holes}{outside}"
    if item.node is not None:
        return f"entity {item.node.value}"
    if item.service is not None:
        named = item.service.name or f"selected by {text(item.service.selector)}"
        return f"Service {item.service.namespace or '<any>'}/{named}"
    if item.pod_selector is None and item.namespace_selector is None:
        return "nobody"
    pods = f"pods {text(item.pod_selector)}" if item.pod_selector is not None else "pods"
    if item.namespace_selector is None:
        return f"{pods} of this namespace"
    return f"{pods} in namespaces {text(item.namespace_selector)}"


def _peer_miss(
    namespaces: Namespaces,
    direction: Direction,
    policy: NetworkPolicy,
    item: Peer,
    packet: Packet,
) -> str:
    """Which part of a peer does not fit."""
    peer, wanted = packet.peer(direction), peer_text(item)
    if item.ip_block is not None:
        inside = block_holds(item.ip_block, peer.address)
        if inside and item.ip_block.outside:
            what = "a pod" if peer.pod is not None else "a node"
            return f"{peer.address} is {what}'s, and {wanted} holds only addresses of neither"
        return f"{peer.address} is {'' if inside else 'not '}in {wanted}"
    if item.node is not None:
        return f"{peer.name} is not {wanted}"
    if item.pod_selector is None and item.namespace_selector is None:
        return "it means nobody"
    if peer.pod is None:
        return f"{peer.name} is no pod that selectors can match ({wanted})"
    if item.namespace_selector is None and peer.pod.namespace != policy.namespace:
        return f"{peer.name} is not of namespace {policy.namespace} ({wanted})"
    if item.namespace_selector is not None:
        labels = namespaces[peer.pod.namespace].labels
        unmet = first_unmet(item.namespace_selector, labels)
        if unmet is not None:
            has = f"{unmet.key}={labels[unmet.key]}" if unmet.key in labels else f"no {unmet.key}"
            return f"namespace {peer.pod.namespace} has {has}, wanted {requirement_text(unmet)}"
    labels = peer.pod.selectable
    unmet = first_unmet(item.pod_selector, labels) if item.pod_selector else None
    if unmet is None:
        return f"{peer.name} does not fit {wanted}"
    has = f"{unmet.key}={labels[unmet.key]}" if unmet.key in labels else f"no {unmet.key}"
    return f"pod {peer.name} has {has}, wanted {requirement_text(unmet)}"


def policy_port_text(item: PolicyPort) -> str:
    """One item of `ports`, in a few words."""
    if item.protocol.startswith("ICMP"):
        return f"{item.protocol} type {item.port}"
    if item.port is None:
        return f"any {item.protocol} port"
    last = f"-{item.end_port}" if item.end_port not in (None, item.port) else ""
    if isinstance(item.port, str):
        return f'port "{item.port}"{last}/{item.protocol}'
    return f"port {item.port}{last}/{item.protocol}"


def _port_miss(item: PolicyPort, packet: Packet) -> str:
    asked = port_text(packet.port, packet.protocol)
    if not isinstance(item.port, str):
        return f"{asked} is not {policy_port_text(item)}"
    owner = packet.destination.pod
    number = named_port(owner.ports, item.port, item.protocol) if owner is not None else None
    if owner is None or number is None:
        return f"{packet.destination.name} has no {policy_port_text(item)}"
    if packet.port == number:
        return f"{policy_port_text(item)} means nothing towards an ipBlock"
    return f"{policy_port_text(item)} is {number} on {packet.destination.name}"
