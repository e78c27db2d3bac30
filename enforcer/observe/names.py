"""Adds names to a kernel event: the two ends, what decided, and the file and line of that.

The feed calls `see` for each event. This happens when the event is read, not when it is shown,
because pods and policies go; and a directory caches its lookups, because a flood of drops names the
same few.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from enforcer.agent.state import NodeState
from enforcer.datapath.flows import DropReason, EventFlag, FlowRecord, ForwardReason
from enforcer.policy.services import Serving
from enforcer.policy.tables import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    AddressEntry,
    Dir,
    EndpointEntry,
    Tables,
)
from generators.objects import Direction, NetworkPolicy, Pod, Workload, policy_of
from generators.reachability.origins import origin_of
from generators.reachability.protocols import PORT_PROTOCOLS
from generators.reachability.verdicts import Verdict, for_packets

IDENTITY_WORLD = 2
BY_RULE = (
    DropReason.POLICY_DENY,
    DropReason.PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL,
)
"""Drops that a rule is to be named for."""
REMEMBERED = 4096
"""Addresses that a directory has looked up."""


class MatchType(IntEnum):
    """How a rule fits, as Cilium numbers it."""

    NONE = 0
    L3_ONLY = 1
    L3_L4 = 2
    L4_ONLY = 3
    ALL = 4
    L3_PROTO = 5
    PROTO_ONLY = 6


@dataclass(frozen=True, slots=True)
class NamedParty:
    """One end of a flow by its names; empty fields are left out of the flow."""

    endpoint: int = 0
    identity: int = 0
    namespace: str = ""
    pod: str = ""
    tenant: str = ""
    labels: tuple[str, ...] = field(default=())
    workload: Workload | None = None


@dataclass(frozen=True, slots=True)
class Speaker:
    """What let in or refused: a policy's rule, or the wall's, and its line."""

    name: str
    origin: str = ""
    log: str = ""
    """The text that the policy wants its flows to carry."""


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """An event with names; `rule` and `policies` as in verdicts.Judgement."""

    record: FlowRecord
    source: NamedParty
    destination: NamedParty
    rule: str | None = None
    policies: tuple[str, ...] = ()
    speakers: tuple[Speaker, ...] = ()
    match: MatchType = MatchType.NONE
    revision: int = 0
    source_service: str = ""
    """`namespace/name`; empty where the end is none's."""
    destination_service: str = ""
    interface: str = ""
    """Name of the interface that it was seen at; empty when that is gone already."""

    @property
    def local(self) -> NamedParty:
        """The end that is a pod of this node."""
        inward = self.record.direction is Dir.INGRESS
        return self.destination if inward else self.source


class Directory:
    """Names behind numbers and addresses, as of one state and the tables shortly before it."""

    def __init__(self, state: NodeState, node: str, past: tuple[Tables, ...] = ()) -> None:
        self._state = state
        self._node = node
        self._tables = (state.tables, *past)
        self._endpoints: Mapping[str, EndpointEntry] = {
            address: entry
            for entry in state.tables.endpoints.values()
            for address in (*entry.ip4, *entry.ip6)
        }
        self._parties: dict[str, NamedParty | None] = {}
        self._speakers: dict[str, Speaker] = {}
        self._serving: dict[str, tuple[Serving, ...]] = {}
        self._interfaces: dict[int, str] = {}

    def see(self, record: FlowRecord) -> NamedEvent:
        """Put names to an event."""
        inward = record.direction is Dir.INGRESS
        near, far = self._near(record), self._far(record)
        replies = EventFlag.REPLY in record.flags
        rule, policies = self._decided(record)
        return NamedEvent(
            record,
            far if inward else near,
            near if inward else far,
            rule,
            policies,
            self._who_spoke(record, rule),
            self._match(record, rule),
            self._state.revision,
            self._service(record, record.source, record.source_port, calls=not replies),
            self._service(record, record.destination, record.destination_port, calls=replies),
            self._interface(record.ifindex),
        )

    def _service(self, record: FlowRecord, address: str, port: int, *, calls: bool) -> str:
        """The Service of an end, the first by name; whoever calls speaks from any port."""
        protocol = PORT_PROTOCOLS.get(record.protocol)
        if protocol is None or not address:
            return ""
        known = self._serving.get(address)
        if known is None:
            if len(self._serving) >= REMEMBERED:
                self._serving.clear()
            known = self._serving[address] = self._state.serving(address)
        for item in known:
            if calls or (protocol, port) in item.ports:
                return item.service
        return ""

    def _interface(self, ifindex: int) -> str:
        if ifindex not in self._interfaces:
            try:
                self._interfaces[ifindex] = socket.if_indextoname(ifindex)
            except OSError:
                self._interfaces[ifindex] = ""
        return self._interfaces[ifindex]

    def party(self, address: str) -> NamedParty | None:
        """The pod or node that has an address now."""
        if address not in self._parties:
            if len(self._parties) >= REMEMBERED:  # a flood of forged addresses
                self._parties.clear()
            self._parties[address] = self._look_up(address)
        return self._parties[address]

    def _look_up(self, address: str) -> NamedParty | None:
        state = self._state
        pod = state.owners.get(address)
        if pod is None:
            node = state.nodes.get(address)
            if node is None:
                return None
            own = node == self._node
            return NamedParty(identity=IDENTITY_HOST if own else IDENTITY_REMOTE_NODE)
        endpoint = self._endpoints.get(address)
        entry = state.tables.addresses.get(address, AddressEntry(0))
        return self._pod(pod, endpoint.endpoint if endpoint is not None else 0, entry.identity)

    def _pod(self, pod: Pod, endpoint: int, identity: int) -> NamedParty:
        return NamedParty(
            endpoint=endpoint,
            identity=identity,
            namespace=pod.namespace,
            pod=pod.name,
            tenant=self._state.tenants.get(pod.namespace, ""),
            labels=tuple(f"k8s:{key}={value}" for key, value in sorted(pod.labels.items())),
            workload=pod.workload,
        )

    def _near(self, record: FlowRecord) -> NamedParty:
        """The pod behind the interface, whatever address the packet claims for it."""
        address = record.destination if record.direction is Dir.INGRESS else record.source
        known = self.party(address) if address else None
        if known is not None and known.endpoint == record.endpoint:
            return known
        pod = self._state.pods.get(record.ifindex)
        if pod is None:
            return known or NamedParty(endpoint=record.endpoint)
        own = next(iter(pod.ips), "")
        entry = self._state.tables.addresses.get(own, AddressEntry(0))
        return self._pod(pod, record.endpoint, entry.identity)

    def _far(self, record: FlowRecord) -> NamedParty:
        address = record.source if record.direction is Dir.INGRESS else record.destination
        known = self.party(address) if address else None
        return known or NamedParty(identity=record.identity or IDENTITY_WORLD)

    # Who decided

    def _decided(self, record: FlowRecord) -> tuple[str | None, tuple[str, ...]]:
        endpoint = self._state.tables.endpoints.get(record.ifindex)
        policies = self.isolating(endpoint.group, record.direction) if endpoint is not None else ()
        if record.reason in (DropReason.TENANT_WALL, DropReason.UNKNOWN_SENDER):
            if record.direction is Dir.EGRESS:
                return self._wall_of(record.destination), policies
            return self._wall(record.group, endpoint), policies
        named = for_packets(record.verdict) is Verdict.FORWARDED or record.reason in BY_RULE
        if named and record.rule:
            return self._state.tables.rules.get(record.rule), policies
        return None, policies

    @property
    def revision(self) -> int:
        """Of the state."""
        return self._state.revision

    def isolating_at(self, address: str, direction: Dir) -> tuple[str, ...]:
        """The policies that isolate the pod of an address."""
        endpoint = self._endpoints.get(address)
        return self.isolating(endpoint.group, direction) if endpoint is not None else ()

    def isolating(self, group: int, direction: Dir) -> tuple[str, ...]:
        """The policies behind a policy group, or the wall behind the wall's group."""
        for tables in self._tables:
            if group in tables.walls:
                return (tables.walls[group],)
            if (group, direction) in tables.isolating:
                return tables.isolating[group, direction]
        return ()

    def _wall(self, group: int, endpoint: EndpointEntry | None) -> str | None:
        """The wall that spoke; in audit mode the event carries the group that let through."""
        for tables in self._tables:
            if group in tables.walls:
                return tables.walls[group]
            if endpoint is not None and endpoint.wall in tables.walls:
                return tables.walls[endpoint.wall]
        return None

    def _wall_of(self, address: str) -> str | None:
        """The wall around the owner of an address, as the sender's node knows it."""
        pod = self._state.owners.get(address)
        tenant = self._state.tenants.get(pod.namespace) if pod is not None else None
        return f"tenant/{tenant}#wall" if tenant else None

    def _who_spoke(self, record: FlowRecord, rule: str | None) -> tuple[Speaker, ...]:
        if for_packets(record.verdict) is Verdict.FORWARDED or rule is not None:
            return (self.speaker(rule),) if rule is not None else ()
        names = self.isolating(record.group, record.direction) if record.group else ()
        return tuple(map(self.speaker, names))

    def speaker(self, name: str) -> Speaker:
        """A rule's or policy's name, with the line of the file that it comes from."""
        if name not in self._speakers:
            state = self._state
            origin = origin_of(name, state.policies, state.tenants, state.config)
            policy = state.policies.get(policy_of(name)[0])
            log = policy.log if policy is not None else ""
            self._speakers[name] = Speaker(name, origin, log)
        return self._speakers[name]

    def _match(self, record: FlowRecord, rule: str | None) -> MatchType:
        if for_packets(record.verdict) is not Verdict.FORWARDED:
            return MatchType.NONE
        if record.reason is ForwardReason.HOST:
            return MatchType.L3_ONLY
        if record.reason is ForwardReason.NOT_ISOLATED:
            return MatchType.ALL
        policy = self._state.policies.get(policy_of(rule)[0]) if rule else None
        return rule_match(policy, rule) if policy is not None and rule else MatchType.NONE


def rule_match(policy: NetworkPolicy, rule: str) -> MatchType:
    """How the rule `...#ingress[2]` of a policy names those that it lets in."""
    named = (
        found
        for direction in Direction
        for index, found in enumerate(policy.rules(direction))
        if policy.rule_name(direction, index) == rule
    )
    found = next(named, None)
    if found is None:
        return MatchType.NONE
    numbered = any(port.port is not None for port in found.ports)
    if found.peers:
        if numbered:
            return MatchType.L3_L4
        return MatchType.L3_PROTO if found.ports else MatchType.L3_ONLY
    if numbered:
        return MatchType.L4_ONLY
    return MatchType.PROTO_ONLY if found.ports else MatchType.ALL
