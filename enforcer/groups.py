"""Policy groups: the rules that hold for an endpoint, as entries by peer and port.

compile.py calls `policy_group` for each way in which policies combine on endpoints, walls.py uses
`entries` for the tenant wall. What may surprise: a peer gets entries of its own only where some
rule names it; then these hold all rules that match it, also those for any peer, so that the first
hit is the first rule in policy order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from enforcer.blocks import BlockIndex
from enforcer.identity import PeerSelector, PodClass, named_port
from enforcer.ports import EVERYTHING, PROTOCOLS, Ranked, Span, every_port, slots
from enforcer.tables import PEER_ANY, PEER_CIDR, Dir
from generators.addresses import parse_network
from generators.objects import Direction, IPBlock, NetworkPolicy, Pod, PolicyPort, Rule

DIRECTIONS: Mapping[Direction, Dir] = {
    Direction.INGRESS: Dir.INGRESS,
    Direction.EGRESS: Dir.EGRESS,
}

Number = Callable[[str], int]
"""Rule name -> rule id."""


@dataclass(frozen=True, slots=True)
class Group:
    """The content of a policy group; equal content is one group."""

    policy: frozenset[tuple[int, int, int, Dir, int]] = frozenset()
    """(peer, port, protocol, direction, rule id)"""
    ranges: frozenset[tuple[int, int, int, int, Dir, int]] = frozenset()
    """(peer, port, length, protocol, direction, rule id)"""
    isolating: tuple[tuple[Dir, tuple[str, ...]], ...] = ()
    """The policies that isolate in each isolated direction."""
    wall: str = ""
    """Of a tenant wall: the rule that a denial names."""

    @property
    def uses_cidr(self) -> bool:
        """Whether an entry names a block of addresses."""
        return any(peer >= PEER_CIDR for peer, *_ in (*self.policy, *self.ranges))


@dataclass(frozen=True, slots=True)
class World:
    """The peers that rules can mean: classes of pods, and blocks of addresses."""

    classes: Mapping[PodClass, int]
    """Class -> identity."""
    prefixes: Mapping[str, int]
    """Block -> cidr id."""
    blocks: BlockIndex


@dataclass(frozen=True, slots=True)
class Isolation:
    """The policies that select a pod in each direction, in name order."""

    ingress: tuple[NetworkPolicy, ...] = ()
    egress: tuple[NetworkPolicy, ...] = ()

    def of(self, direction: Direction) -> tuple[NetworkPolicy, ...]:
        """Those of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    @property
    def rules(self) -> Iterable[tuple[Direction, NetworkPolicy, Rule]]:
        """Every rule that counts, in policy order."""
        for direction in Direction:
            for policy in self.of(direction):
                for rule in policy.rules(direction):
                    yield direction, policy, rule


def rule_name(policy: NetworkPolicy, direction: Direction, index: int) -> str:
    """`namespace/policy#ingress[0]`."""
    return f"{policy.key}#{direction.value.lower()}[{index}]"


def policy_group(isolation: Isolation, endpoint: Pod, world: World, number: Number) -> Group:
    """What the policies let in and out of an endpoint (its port names count for ingress)."""
    policy: set[tuple[int, int, int, Dir, int]] = set()
    ranges: set[tuple[int, int, int, int, Dir, int]] = set()
    isolating: list[tuple[Dir, tuple[str, ...]]] = []
    for direction in Direction:
        policies = isolation.of(direction)
        if not policies:
            continue
        isolating.append((DIRECTIONS[direction], tuple(p.key for p in policies)))
        rules = [
            _numbered(number(rule_name(p, direction, index)), p.namespace, rule)
            for p in policies
            for index, rule in enumerate(p.rules(direction))
        ]
        opened = _openings(rules, direction, endpoint, world)
        exact, prefixes = entries(opened, [r.number for r in rules], DIRECTIONS[direction])
        policy |= exact
        ranges |= prefixes
    return Group(frozenset(policy), frozenset(ranges), tuple(isolating))


def entries(
    opened: Mapping[int, Sequence[Ranked]], rules: Sequence[int], direction: Dir
) -> tuple[
    set[tuple[int, int, int, Dir, int]],
    set[tuple[int, int, int, int, Dir, int]],
]:
    """Entries of one direction: what is open to each peer, ranks being indexes into `rules`."""
    policy: set[tuple[int, int, int, Dir, int]] = set()
    ranges: set[tuple[int, int, int, int, Dir, int]] = set()
    for peer, allowed in opened.items():
        found = slots(allowed)
        for (port, protocol), rank in found.exact.items():
            policy.add((peer, port, protocol, direction, rules[rank]))
        for (port, length, protocol), rank in found.prefixes.items():
            ranges.add((peer, port, length, protocol, direction, rules[rank]))
    return policy, ranges


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A rule with its id and what its peers are."""

    number: int
    rule: Rule
    selectors: frozenset[PeerSelector]
    blocks: frozenset[IPBlock]


def _numbered(number: int, namespace: str, rule: Rule) -> _Numbered:
    return _Numbered(
        number,
        rule,
        frozenset(PeerSelector.of(p, namespace) for p in rule.peers if p.ip_block is None),
        frozenset(p.ip_block for p in rule.peers if p.ip_block is not None),
    )


def _openings(
    rules: Sequence[_Numbered], direction: Direction, endpoint: Pod, world: World
) -> Mapping[int, Sequence[Ranked]]:
    """What each peer may do. Peers that no rule names are answered by PEER_ANY."""
    opened: dict[int, Sequence[Ranked]] = {}
    for pod_class, identity in world.classes.items():
        found = _open_to_pods(rules, direction, endpoint, pod_class)
        if found:
            opened[identity] = found
    for prefix, cidr in world.prefixes.items():
        held = world.blocks.holding(parse_network(prefix))
        found = _open_to_block(rules, direction, endpoint, held)
        if found:
            opened[PEER_CIDR | cidr] = found
    anyone = [
        (rank, span)
        for rank, r in enumerate(rules)
        if not r.rule.peers
        for span in _numeric(r.rule, direction, endpoint)
    ]
    if anyone:
        opened[PEER_ANY] = anyone
    return opened


def _open_to_pods(
    rules: Sequence[_Numbered], direction: Direction, endpoint: Pod, pods: PodClass
) -> Sequence[Ranked]:
    """For a class of pods; empty where no rule means these pods in particular."""
    found: list[Ranked] = []
    particular = False
    for rank, r in enumerate(rules):
        selected = not r.selectors.isdisjoint(pods.selectors)
        if r.rule.peers and not selected and r.blocks.isdisjoint(pods.blocks):
            continue
        spans = list(_numeric(r.rule, direction, endpoint))
        if direction is Direction.EGRESS and (selected or not r.rule.peers):
            named = list(_named_by_peer(r.rule, pods))
            particular = particular or bool(named)
            spans += named
        particular = particular or bool(r.rule.peers)
        found += [(rank, span) for span in spans]
    return found if particular else []


def _open_to_block(
    rules: Sequence[_Numbered], direction: Direction, endpoint: Pod, held: frozenset[IPBlock]
) -> Sequence[Ranked]:
    """For addresses that these blocks hold; empty where none of them is in a rule."""
    found: list[Ranked] = []
    particular = False
    for rank, r in enumerate(rules):
        inside = not r.blocks.isdisjoint(held)
        if r.rule.peers and not inside:
            continue
        particular = particular or inside
        found += [(rank, span) for span in _numeric(r.rule, direction, endpoint)]
    return found if particular else []


def _numeric(rule: Rule, direction: Direction, endpoint: Pod) -> Iterable[Span]:
    """What a rule opens to every peer: names count only where the endpoint is asked."""
    if not rule.ports:
        yield EVERYTHING
    for port in rule.ports:
        if not isinstance(port.port, str):
            yield _span(port)
        elif direction is Direction.INGRESS:
            resolved = named_port(endpoint, port.port, port.protocol)
            if resolved is not None:
                yield Span(PROTOCOLS[port.protocol], resolved, resolved)


def _named_by_peer(rule: Rule, pods: PodClass) -> Iterable[Span]:
    for port in rule.ports:
        for name, protocol, number in pods.ports:
            if (port.port, port.protocol) == (name, protocol):
                yield Span(PROTOCOLS[protocol], number, number)


def _span(port: PolicyPort) -> Span:
    if not isinstance(port.port, int):
        return every_port(port.protocol)
    return Span(PROTOCOLS[port.protocol], port.port, port.end_port or port.port)
