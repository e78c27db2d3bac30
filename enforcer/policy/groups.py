"""Policy groups: the rules that hold for an endpoint, as entries by peer and port.

The compiler asks a group's definition for the entries of one peer at a time, so that a new peer
costs only its own entries. A peer gets entries of its own only where some rule names it; then these
hold all rules that match it, also those for any peer, so that the first hit is the first rule in
policy order. Rules that deny come before all others, so that each slot of a peer denies where any
of them matches. Those with HTTP rules come last, where all that match a slot speak together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from enforcer.policy.buckets import EMPTY, Bucket, bucket
from enforcer.policy.identity import PeerSelector, PeerTerm, PodClass, PortName
from enforcer.policy.ports import EVERYTHING, Ranked, Span, every_port, pieces
from enforcer.policy.tables import (
    ICMP_PORT,
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNKNOWN,
    PEER_ANY,
    PROTO_ANY,
    RULE_REDIRECT,
    Dir,
    EndpointFlag,
    place_peer,
    rule_flags,
)
from generators.http import HttpRule, RuleSet
from generators.objects import (
    NOBODY,
    BlockList,
    ContainerPort,
    Direction,
    NetworkPolicy,
    NodePeer,
    PolicyPort,
    Rule,
)
from generators.reachability.protocols import ICMP_NUMBERS, ICMP_PROTOCOLS, WITH_PORTS, named_port

DIRECTIONS: Mapping[Direction, Dir] = {
    Direction.INGRESS: Dir.INGRESS,
    Direction.EGRESS: Dir.EGRESS,
}
ISOLATED: Mapping[Direction, EndpointFlag] = {
    Direction.INGRESS: EndpointFlag.ISOLATED_INGRESS,
    Direction.EGRESS: EndpointFlag.ISOLATED_EGRESS,
}

ICMP_TYPES: Mapping[str, int] = {name: ICMP_NUMBERS[of] for of, name in ICMP_PROTOCOLS.items()}
"""IANA numbers of the protocols whose types rules may name."""

PLACES: Mapping[NodePeer, int] = {
    NodePeer.HOST: IDENTITY_HOST,
    NodePeer.REMOTE_NODE: IDENTITY_REMOTE_NODE,
}
"""Nodes as peers, by the identity of their addresses."""

CIDR_PLACES: tuple[int | None, ...] = (None, IDENTITY_UNKNOWN, *PLACES.values())
"""As what a group may look at a block's addresses: whoever has them, outside, or nodes."""

Number = Callable[[str], int]
"""Rule name -> rule id."""
NumberSet = Callable[[RuleSet], int]
"""What judges requests -> rule id."""


@dataclass(frozen=True, slots=True)
class Asks:
    """The peers that egress rules name, however coarsely: by words, or any peer at some ports."""

    words: frozenset[PeerTerm] = frozenset()
    anyone: frozenset[Span] = frozenset()
    nodes: bool = False
    """Other nodes."""

    @classmethod
    def of(cls, asks: Iterable[Asks]) -> Asks:
        """Whom any of these names."""
        found = [each for each in asks if each is not ASKS_NOBODY]
        words = frozenset[PeerTerm]().union(*(each.words for each in found))
        anyone = frozenset[Span]().union(*(each.anyone for each in found))
        return cls(words, anyone, any(each.nodes for each in found))

    def at(self, protocol: int, port: int) -> bool:
        """Whether every peer may be called at a port."""
        return any(
            span.protocol in (PROTO_ANY, protocol) and span.first <= port <= span.last
            for span in self.anyone
        )


ASKS_NOBODY = Asks()


class Definition(Protocol):
    """What a group means, whoever the peers are; equal keys mean the same."""

    @property
    def key(self) -> object:
        """Equal for equal meanings."""

    @property
    def lasting(self) -> object:
        """The same, equal in every process."""

    @property
    def tenant(self) -> int:
        """The tenant whose trie holds its blocks."""

    @property
    def words(self) -> frozenset[PeerTerm]:
        """The words by which it names peers."""

    @property
    def asks(self) -> Asks:
        """Whom its endpoints may call."""

    @property
    def needs(self) -> EndpointFlag:
        """What its endpoints' programs have to look at."""

    @property
    def isolating(self) -> Mapping[Dir, tuple[str, ...]]:
        """The policies that isolate, in each isolated direction."""

    @property
    def wall(self) -> str:
        """Of a tenant wall: the rule that a denial names."""

    @property
    def rule_sets(self) -> frozenset[int]:
        """The numbers of what judges requests in the entries that it was asked for."""

    def fixed(self) -> Mapping[int, Bucket]:
        """Peers that are there whatever pods there are."""

    def for_pods(self, pods: PodClass) -> Bucket:
        """Entries of a class of pods; empty where no rule means them in particular."""

    @property
    def lists(self) -> frozenset[BlockList]:
        """The lists of blocks among the words."""

    @property
    def places(self) -> tuple[int | None, ...]:
        """Who of the addresses that lists hold is a peer of its own; None: all of them are one."""

    def for_lists(self, lists: frozenset[BlockList], place: int | None) -> Bucket:
        """Entries of the addresses that some of these lists hold, and no other list in use."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """The policies that select a pod in each direction, in name order."""

    ingress: tuple[NetworkPolicy, ...] = ()
    egress: tuple[NetworkPolicy, ...] = ()

    @classmethod
    def by(cls, policies: Sequence[NetworkPolicy]) -> Isolation:
        """Those of the policies that have anything to say, in each direction."""
        return cls(*(_speaking(policies, direction) for direction in Direction))

    def of(self, direction: Direction) -> tuple[NetworkPolicy, ...]:
        """Those of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def port_numbers(self, ports: Sequence[ContainerPort]) -> tuple[int | None, ...]:
        """What the port names of ingress rules mean on a pod with these ports."""
        return tuple(
            named_port(ports, port.port, port.protocol)
            for policy in self.ingress
            for rule in policy.ingress
            for port in rule.ports
            if isinstance(port.port, str)
        )


def _speaking(policies: Sequence[NetworkPolicy], direction: Direction) -> tuple[NetworkPolicy, ...]:
    """Where nothing isolates, only what denies matters."""
    found = tuple(policy for policy in policies if policy.speaks(direction))
    closes = any(direction in policy.directions for policy in found)
    denies = any(rule.deny for policy in found for rule in policy.rules(direction))
    return found if closes or denies else ()


class PolicyGroup:
    """The meaning of the policies that isolate an endpoint with these ports."""

    wall = ""

    def __init__(
        self,
        tenant: int,
        key: object,
        isolation: Isolation,
        ports: Sequence[ContainerPort],
        number: Number,
        number_set: NumberSet,
    ) -> None:
        self.key = key
        self.tenant = tenant
        self.lasting = (
            tenant,
            *(
                tuple((p.key, d in p.directions, _lasting(p.rules(d))) for p in isolation.of(d))
                for d in Direction
            ),
            isolation.port_numbers(ports),
        )
        self._sides = tuple(
            _Side(direction, isolation.of(direction), ports, number, number_set)
            for direction in Direction
            if isolation.of(direction)
        )
        self.words = frozenset(word for side in self._sides for word in side.by_word)
        self.lists = frozenset(word for word in self.words if isinstance(word, BlockList))
        self.asks = ASKS_NOBODY
        for side in self._sides:
            if side.dir is Dir.EGRESS:
                spans = frozenset(span for _, span in side.anyone)
                nodes = IDENTITY_REMOTE_NODE in side.by_place
                self.asks = Asks(frozenset(side.by_word), spans, nodes)
        self.isolating: Mapping[Dir, tuple[str, ...]] = {
            side.dir: side.policies for side in self._sides
        }
        needs = EndpointFlag(0)
        for side in self._sides:
            needs |= side.needs
        self.needs = needs
        self.places: tuple[int | None, ...] = (None,)
        if EndpointFlag.USES_PLACES in needs:
            self.places = (IDENTITY_UNKNOWN, *PLACES.values())

    def fixed(self) -> Mapping[int, Bucket]:
        """What anybody may do, and nodes."""
        found = {PEER_ANY: _joined(side.entries(side.anyone) for side in self._sides)}
        for place in PLACES.values():
            found[place_peer(place)] = _joined(
                side.entries(side.open_to_place(place)) for side in self._sides
            )
        return {peer: entries for peer, entries in found.items() if entries}

    def for_pods(self, pods: PodClass) -> Bucket:
        """For a class of pods; empty where no rule means these pods in particular."""
        return _joined(side.entries(side.open_to_pods(pods)) for side in self._sides)

    def for_lists(self, lists: frozenset[BlockList], place: int | None) -> Bucket:
        """For addresses that these lists hold; empty where no rule here names any of them."""
        return _joined(side.entries(side.open_to_lists(lists, place)) for side in self._sides)

    @property
    def rule_sets(self) -> frozenset[int]:
        """Of all entries that were asked for so far."""
        return frozenset(number for side in self._sides for number in side.sets.values())


class _Side:
    """One direction of a group: its rules, found by the words that they use."""

    def __init__(
        self,
        direction: Direction,
        policies: Sequence[NetworkPolicy],
        ports: Sequence[ContainerPort],
        number: Number,
        number_set: NumberSet,
    ) -> None:
        self.sets: dict[tuple[int, ...], int] = {}
        """Ranks of rules with HTTP rules -> the number of what they say together."""
        self._number_set = number_set
        self._direction = direction
        self._judging: dict[int, tuple[str, tuple[HttpRule, ...]]] = {}
        self.dir = DIRECTIONS[direction]
        self.policies = tuple(p.key for p in policies if direction in p.directions)
        self.rules: list[int] = []
        self.by_word: dict[PeerTerm, list[int]] = {}
        self.anyone: list[Ranked] = []
        self.needs = ISOLATED[direction]
        self.by_place: dict[int, list[int]] = {}
        self._spans: list[list[Span]] = []
        self._names: list[tuple[PolicyPort, ...]] = []
        self._to_anyone: list[int] = []
        found = [
            (policy, index, rule)
            for policy in policies
            for index, rule in enumerate(policy.rules(direction))
        ]
        denying = [place for place in found if place[2].deny]
        for place, (_, _, rule) in enumerate(denying):
            if not rule.peers and not rule.ports:
                # Nobody gets past it, so what stands behind takes no entries.
                found = denying = denying[: place + 1]
                break
        for policy, index, rule in denying:
            named = number(policy.rule_name(direction, index))
            self._add(named | rule_flags(rule), policy, rule, ports)
        if denying:
            self.needs |= EndpointFlag.USES_DENY
        if not self.policies:
            # Nothing closes the direction: what is not denied passes.
            opening = denying[0][0]
            self._add(number(opening.opening(direction)), opening, Rule(), ports)
            return
        for policy, index, rule in found:
            if not rule.deny and not rule.http:
                named = number(policy.rule_name(direction, index))
                self._add(named | rule_flags(rule), policy, rule, ports)
        for policy, index, rule in found:
            if rule.http:
                self._judging[len(self.rules)] = policy.rule_name(direction, index), rule.http
                self._add(0, policy, rule, ports)

    def entries(self, allowed: Sequence[Ranked]) -> Bucket:
        """Entries of this direction for one peer."""
        if not self._judging:
            return bucket(allowed, self.rules, self.dir)
        judged = [(rank, span) for rank, span in allowed if rank in self._judging]
        plain = [(rank, span) for rank, span in allowed if rank not in self._judging]
        rules, more = list(self.rules), []
        for ranks, span in pieces(judged):
            more.append((len(rules), span))
            rules.append(self._set(ranks) | RULE_REDIRECT)
        return bucket([*plain, *more], rules, self.dir)

    def _set(self, ranks: tuple[int, ...]) -> int:
        if ranks not in self.sets:
            parts = [self._judging[rank] for rank in ranks]
            named = tuple((f"{name}.{rule.name}", rule) for name, https in parts for rule in https)
            self.sets[ranks] = self._number_set(RuleSet(self._direction.value, parts[0][0], named))
        return self.sets[ranks]

    def _add(
        self, number: int, policy: NetworkPolicy, rule: Rule, ports: Sequence[ContainerPort]
    ) -> None:
        rank = len(self.rules)
        self.rules.append(number)
        spans = list(_numeric(rule, self.dir, ports))
        names = tuple(p for p in rule.ports if isinstance(p.port, str))
        names = names if self.dir is Dir.EGRESS else ()
        self._spans.append(spans)
        self._names.append(names)
        ranged = any(span.first != span.last and not span.whole for span in spans)
        if ranged:
            self.needs |= EndpointFlag.USES_RANGE
        words: set[PeerTerm] = set(rule.block_lists)
        if rule.block_lists:
            self.needs |= EndpointFlag.USES_CIDR
        if any(blocks.outside for blocks in rule.block_lists):
            self.needs |= EndpointFlag.USES_PLACES
        for peer in rule.selecting:
            if peer.node is not None:
                self.by_place.setdefault(PLACES[peer.node], []).append(rank)
                self.needs |= EndpointFlag.USES_PLACES
            elif peer != NOBODY:
                words.add(PeerSelector.of(peer, policy.namespace))
        if not rule.peers:
            self._to_anyone.append(rank)
            self.anyone += [(rank, span) for span in spans]
        for word in words:
            self.by_word.setdefault(word, []).append(rank)
        for port in names:
            # Pods that declare the name are a class of their own, whatever selects them.
            self.by_word.setdefault(PortName(str(port.port), port.protocol), [])

    def open_to_pods(self, pods: PodClass) -> Sequence[Ranked]:
        selected = {rank for word in pods.selectors for rank in self.by_word.get(word, ())}
        inside = {rank for word in pods.lists for rank in self.by_word.get(word, ())}
        particular = bool(selected or inside)
        found: list[Ranked] = []
        for rank in sorted({*selected, *inside, *self._to_anyone}):
            found += [(rank, span) for span in self._spans[rank]]
            if rank in selected or rank not in inside:
                named = list(self._named_by_peer(rank, pods))
                particular = particular or bool(named)
                found += [(rank, span) for span in named]
        return found if particular else []

    def open_to_lists(self, lists: frozenset[BlockList], place: int | None) -> Sequence[Ranked]:
        is_node = place is not None and place != IDENTITY_UNKNOWN
        inside = [
            rank
            for word in lists
            if not (is_node and word.outside)
            for rank in self.by_word.get(word, ())
        ]
        there = self.by_place.get(place, ()) if place is not None else ()
        return self._for_all((*inside, *there)) if inside else []

    def open_to_place(self, place: int) -> Sequence[Ranked]:
        there = self.by_place.get(place, ())
        return self._for_all(there) if there else []

    def _for_all(self, ranks: Iterable[int]) -> Sequence[Ranked]:
        """What these rules open to peers that are no pods, with those for everybody."""
        found = sorted({*ranks, *self._to_anyone})
        return [(rank, span) for rank in found for span in self._spans[rank]]

    def _named_by_peer(self, rank: int, pods: PodClass) -> Iterable[Span]:
        for name, protocol, number in pods.ports:
            for port in self._names[rank]:
                if (port.port, port.protocol) == (name, protocol):
                    yield Span(WITH_PORTS[protocol], number, number)


def _lasting(rules: Iterable[Rule]) -> object:
    """What rules say, with a name for each list of blocks."""
    return tuple((r.selecting, r.block_lists, r.ports, r.deny, r.name, *r.http) for r in rules)


def _joined(buckets: Iterable[Bucket]) -> Bucket:
    joined = EMPTY
    for one in buckets:
        joined = one | joined if joined else one
    return joined


def _numeric(rule: Rule, direction: Dir, ports: Sequence[ContainerPort]) -> Iterable[Span]:
    """What a rule opens to every peer: names count only where the endpoint is asked."""
    if not rule.ports:
        yield EVERYTHING
    for port in rule.ports:
        if not isinstance(port.port, str):
            yield _span(port)
        elif direction is Dir.INGRESS:
            resolved = named_port(ports, port.port, port.protocol)
            if resolved is not None:
                last = max(resolved, port.end_port or resolved)
                yield Span(WITH_PORTS[port.protocol], resolved, last)


def _span(port: PolicyPort) -> Span:
    if not isinstance(port.port, int):
        return every_port(port.protocol)
    if port.protocol in ICMP_TYPES:
        return Span(ICMP_TYPES[port.protocol], ICMP_PORT | port.port, ICMP_PORT | port.port)
    return Span(WITH_PORTS[port.protocol], port.port, port.end_port or port.port)
