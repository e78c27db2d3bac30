"""Tables read as the kernel reads them: the second of the three engines.

`judge` is one direction of one packet, in the order of bpf/ringfence.c and bpf/lib/policy.h; change
one and you change both. datapath/engine.py makes the engine `maps` of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNKNOWN,
    PEER_ANY,
    PEER_TENANT,
    PORT_ANY,
    PROTO_ANY,
    RULE_DENY,
    RULE_NUMBER,
    RULE_REDIRECT,
    AddressEntry,
    AddressFlag,
    CidrFlag,
    Dir,
    EndpointEntry,
    EndpointFlag,
    PolicyKey,
    RangeKey,
    Tables,
    cidr_peer,
    place_peer,
)
from generators.addresses import Family, contains, parse_network
from generators.reachability.protocols import ICMP_NUMBERS, PORT_PROTOCOLS, WITH_PORTS, encapsulates
from generators.reachability.services import Backend, ServiceKey
from generators.reachability.verdicts import Judgement, Reason, Verdict, of_backends

PROTO_ICMP = ICMP_NUMBERS[Family.IPV4]
PROTO_ICMPV6 = ICMP_NUMBERS[Family.IPV6]
NOBODY = AddressEntry(IDENTITY_UNKNOWN)
NODES = (IDENTITY_HOST, IDENTITY_REMOTE_NODE)
ISOLATED: Mapping[Dir, EndpointFlag] = {
    Dir.INGRESS: EndpointFlag.ISOLATED_INGRESS,
    Dir.EGRESS: EndpointFlag.ISOLATED_EGRESS,
}


@dataclass(frozen=True, slots=True)
class EndpointPacket:
    """The first packet of a connection as one endpoint's programs see it."""

    direction: Dir
    own: str
    peer: str
    protocol: int
    port: int
    from_socket: bool = False
    """It comes from a local socket of the node: the proof that a node address is no mask."""


def judge(tables: Tables, ifindex: int, packet: EndpointPacket) -> Judgement:
    """The verdict of the programs at one interface."""
    endpoint = tables.endpoints[ifindex]
    if packet.peer == packet.own:
        return Judgement(Verdict.FORWARDED, Reason.SELF)
    if _is_prohibited(tables, endpoint, packet):
        return Judgement(Verdict.DROPPED, Reason.ENCAP_PROHIBITED)
    backends = _backends(tables, endpoint, packet)
    if backends is None:
        return _judge(tables, endpoint, packet)
    answers = [
        _judge(tables, endpoint, replace(packet, peer=b.address, port=b.port)) for b in backends
    ]
    if not answers:
        policies = tables.isolating[endpoint.group, packet.direction]
        return _denied(endpoint, packet.direction, Reason.POLICY_DENIED, policies)
    return of_backends(answers)


def _backends(
    tables: Tables, endpoint: EndpointEntry, packet: EndpointPacket
) -> tuple[Backend, ...] | None:
    """What stands behind the Service that the packet calls; None where it calls none."""
    if packet.direction is Dir.INGRESS or EndpointFlag.ISOLATED_EGRESS not in endpoint.flags:
        return None
    called = tables.addresses.get(packet.peer, NOBODY)
    if called.identity != IDENTITY_UNKNOWN or packet.protocol not in PORT_PROTOCOLS:
        return None
    key = ServiceKey(packet.peer, packet.port, PORT_PROTOCOLS[packet.protocol])
    closed = packet.port and AddressFlag.SERVICE in called.flags
    return tables.services.get(key, () if closed else None)


def _judge(tables: Tables, endpoint: EndpointEntry, packet: EndpointPacket) -> Judgement:
    peer = tables.addresses.get(packet.peer, NOBODY)
    if peer.identity == IDENTITY_HOST and (packet.direction is Dir.EGRESS or packet.from_socket):
        return Judgement(Verdict.FORWARDED, Reason.HOST)
    policy = _policy(tables, endpoint, peer, packet)
    refused = _wall(tables, endpoint, peer, packet)
    if refused is None:
        return policy
    rule = tables.walls[endpoint.wall]
    if EndpointFlag.WALL_AUDIT not in endpoint.flags:
        return Judgement(Verdict.DROPPED, refused, rule, policy.policies)
    if policy.verdict is Verdict.DROPPED:
        return policy
    return Judgement(Verdict.AUDIT, refused, rule, policy.policies)


def _is_prohibited(tables: Tables, endpoint: EndpointEntry, packet: EndpointPacket) -> bool:
    """Whether the packet carries others to a node."""
    if packet.direction is Dir.INGRESS or EndpointFlag.ENCAPSULATES in endpoint.flags:
        return False
    name = PORT_PROTOCOLS.get(packet.protocol, f"IP/{packet.protocol}")
    peer = tables.addresses.get(packet.peer, NOBODY)
    return peer.identity in NODES and encapsulates(name, packet.port)


def _wall(
    tables: Tables, endpoint: EndpointEntry, peer: AddressEntry, packet: EndpointPacket
) -> Reason | None:
    """Why the wall keeps the peer out; None where it does not."""
    if packet.direction is Dir.EGRESS or EndpointFlag.WALL not in endpoint.flags:
        return None
    if peer.identity == IDENTITY_UNKNOWN:
        flags = _longest(tables, endpoint.tenant, packet.peer)[1]
        return Reason.UNKNOWN_SENDER if flags else None
    masked = peer.identity in NODES
    if masked and EndpointFlag.ALLOW_MASKED in endpoint.flags:
        return None
    peers = [peer.identity] + ([PEER_TENANT | peer.tenant] if peer.tenant else [])
    if _probe(tables, endpoint.wall, peers, packet) is not None:
        return None
    return Reason.UNKNOWN_SENDER if masked else Reason.TENANT_WALL


def _policy(
    tables: Tables, endpoint: EndpointEntry, peer: AddressEntry, packet: EndpointPacket
) -> Judgement:
    if ISOLATED[packet.direction] not in endpoint.flags:
        return Judgement(Verdict.FORWARDED, Reason.NOT_ISOLATED)
    peers = [] if peer.identity == IDENTITY_UNKNOWN else [peer.identity]
    if peer.tenant:
        peers.append(PEER_TENANT | peer.tenant)
    is_pod = peer.identity >= FIRST_POD_IDENTITY
    place = None if is_pod or EndpointFlag.USES_PLACES not in endpoint.flags else peer.identity
    if EndpointFlag.USES_CIDR in endpoint.flags:
        cidr = _longest(tables, endpoint.tenant, packet.peer)[0]
        peers += [cidr_peer(cidr, place)] if cidr else []
    peers += [place_peer(place)] if place is not None else []
    rule = _probe(tables, endpoint.group, [*peers, PEER_ANY], packet)
    isolating = tables.isolating.get((endpoint.group, packet.direction), ())
    if rule is not None and rule & RULE_DENY:
        audits = EndpointFlag.AUDIT in endpoint.flags
        verdict = Verdict.AUDIT if audits else Verdict.DROPPED
        return Judgement(verdict, Reason.POLICY_DENY, tables.rules.get(rule ^ RULE_DENY), isolating)
    if rule is None:
        icmp = PROTO_ICMPV6 if ":" in packet.own else PROTO_ICMP
        known = packet.protocol in (icmp, *WITH_PORTS.values())
        reason = Reason.POLICY_DENIED if known else Reason.UNKNOWN_L4_PROTOCOL
        return _denied(endpoint, packet.direction, reason, isolating)
    if not rule & RULE_REDIRECT:
        return Judgement(Verdict.FORWARDED, Reason.POLICY_ALLOWED, tables.rules[rule], isolating)
    http = tables.rule_sets[rule & RULE_NUMBER]
    if _only_reports(endpoint, packet.direction):
        return Judgement(Verdict.FORWARDED, Reason.POLICY_ALLOWED, http.rule, isolating)
    return Judgement(Verdict.REDIRECTED, Reason.L7, http.rule, isolating, http)


def _denied(
    endpoint: EndpointEntry, direction: Dir, reason: Reason, policies: tuple[str, ...]
) -> Judgement:
    """What no rule lets pass."""
    verdict = Verdict.AUDIT if _only_reports(endpoint, direction) else Verdict.DROPPED
    return Judgement(verdict, reason, None, policies)


def _only_reports(endpoint: EndpointEntry, direction: Dir) -> bool:
    """Whether policies cut nothing at an endpoint."""
    if direction is Dir.INGRESS and EndpointFlag.AUDIT_INGRESS in endpoint.flags:
        return True
    return EndpointFlag.AUDIT in endpoint.flags


def _probe(tables: Tables, group: int, peers: Iterable[int], packet: EndpointPacket) -> int | None:
    """The rule id of the first hit, in the order that tables.py fixes."""
    direction, protocol = packet.direction, packet.protocol
    for peer in peers:
        exact = tables.policy.get(PolicyKey(group, peer, packet.port, protocol, direction))
        if exact is not None:
            return exact
        for length in range(16, -1, -1):
            port = packet.port >> (16 - length) << (16 - length)
            key = RangeKey(group, peer, protocol, direction, port, length)
            if key in tables.ranges:
                return tables.ranges[key]
        for proto in (protocol, PROTO_ANY):
            wild = tables.policy.get(PolicyKey(group, peer, PORT_ANY, proto, direction))
            if wild is not None:
                return wild
    return None


def _longest(tables: Tables, tenant: int, address: str) -> tuple[int, CidrFlag]:
    """Cidr id and flags of the longest prefix in a tenant's trie that holds the address."""
    holding = [k for k in tables.cidrs if k.tenant == tenant and contains(k.prefix, address)]
    if not holding:
        return 0, CidrFlag(0)
    entry = tables.cidrs[max(holding, key=lambda k: parse_network(k.prefix).prefixlen)]
    return entry.cidr, entry.flags
