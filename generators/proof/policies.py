"""Policies and tenant wall as rows: what the evaluator decides for one packet, for all at once.

The order is that of reachability/reference.py, and who a peer is comes from
reachability/matching.py; that both decide alike is a property test.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from generators.cluster import in_pod_range
from generators.isolation.policies import is_ours
from generators.objects import Direction, NetworkPolicy, Peer, Pod, Rule
from generators.proof.ends import Ends, PeerEnd
from generators.proof.letters import Alphabet, file_cuts
from generators.proof.rows import Area, Masks, Row, cut, row_of
from generators.reachability.matching import peer_matches
from generators.reachability.packets import Packet, Party
from generators.reachability.protocols import CARRIER_NUMBERS, TUNNEL_PORTS, WITH_PORTS, named_port
from generators.reachability.reference import Entry, Evaluator

NOTHING: Masks = (0, 0, 0)


class PolicyRows:
    """Rows of pods of one cluster and family."""

    def __init__(self, evaluator: Evaluator, ends: Ends, alphabet: Alphabet) -> None:
        self._evaluator, self._ends, self._alphabet = evaluator, ends, alphabet
        self._coarse = Alphabet.of(ends.family, file_cuts(evaluator.cluster))
        self._components = {
            namespace: tuple(c.name for c in config.shared if namespace in c.namespaces)
            for config in (evaluator.cluster.config,)
            if config is not None
            for namespace in evaluator.cluster.namespaces
        }
        self._peers: dict[Hashable, int] = {}
        self._walls: dict[Hashable, int] = {}
        self._kinds: dict[Hashable, tuple[int, PeerEnd]] = {}
        self._ports: dict[Hashable, int] = {}
        for index, end in enumerate(ends.all):
            kind = self._kind(end)
            bits, first = self._kinds.get(kind, (0, end))
            self._kinds[kind] = bits | 1 << index, first

    # Who enters

    def ingress(self, pod: Pod, address: str) -> Row:
        """What the wall and the policies around a pod make of everybody."""
        passing = self._ends.own(pod) | (self._ends.host(pod.node) & ~self._ends.masked)
        others = self._ends.everybody & ~passing
        audited = pod.namespace in self._evaluator.audited
        reports = self._evaluator.reports_only(pod)
        found: dict[Masks, int] = {NOTHING: passing}
        for kept, ends in self._kept_out(pod, address, others).items():
            for part, (dropped, tried, judged) in self._judged(Direction.INGRESS, pod, ends):
                if audited:
                    masks = 0, kept | dropped | tried, 0
                elif reports:
                    masks = dropped, (kept | tried) & ~dropped, judged & ~kept
                else:
                    masks = kept | dropped, tried & ~kept, judged & ~kept
                found[masks] = found.get(masks, 0) | part
        return row_of(found)

    def permitted(self, pod: Pod) -> Iterator[Area]:
        """What the policies of users in the pod's own namespace allow to enter."""
        for policy in self._evaluator.speaking(Direction.INGRESS, pod):
            if policy.namespace != pod.namespace or is_ours(policy.labels):
                continue
            for rule in policy.ingress:
                if not rule.deny:
                    yield from self._areas(Direction.INGRESS, policy, rule, pod)

    def _kept_out(self, pod: Pod, address: str, others: int) -> dict[int, int]:
        """Letters that the wall keeps out -> of whom."""
        subject = Party(pod.key, address, pod)
        tenancy = self._tenancy(pod.namespace)
        found: dict[int, int] = {}
        for kind, (bits, end) in self._kinds.items():
            ends = bits & others
            if not ends:
                continue
            kept = self._walls.get((tenancy, kind))
            if kept is None:
                kept = self._walls[tenancy, kind] = self._kept_letters(pod, subject, end)
            found[kept] = found.get(kept, 0) | ends
        return found

    def _kept_letters(self, pod: Pod, subject: Party, end: PeerEnd) -> int:
        kept = 0
        for index, letter in enumerate(self._coarse.letters):
            protocol = self._alphabet.protocol_name(letter.number)
            packet = Packet(end.party, subject, protocol, letter.first)
            if self._evaluator.wall(pod, packet).entry is Entry.KEPT_OUT:
                kept |= 1 << index
        return self._alphabet.refined(self._coarse, kept)

    def _kind(self, end: PeerEnd) -> Hashable:
        """Ends of a kind are the same to every wall."""
        party = end.party
        if party.pod is not None:
            return self._tenancy(party.pod.namespace), self._components.get(party.pod.namespace)
        if party.node is not None:
            return "node"
        return in_pod_range(self._evaluator.cluster, party.address)

    def _tenancy(self, namespace: str) -> Hashable:
        if namespace in self._evaluator.quarantined:
            return "quarantine", namespace
        return "tenant", self._evaluator.cluster.tenants.get(namespace)

    # Whom it may call

    def egress(self, pod: Pod) -> Row:
        """What the policies around a pod make of what it sends; of no Service."""
        own, host = self._ends.own(pod), self._ends.host(pod.node)
        nodes = (self._ends.nodes | host) & ~own
        banned = 0 if self._may_carry(pod) else self._carriers
        audited = pod.namespace in self._evaluator.audited
        found: dict[Masks, int] = {NOTHING: own}
        found[banned, 0, 0] = found.get((banned, 0, 0), 0) | (host & ~own)
        rest = self._ends.everybody & ~own & ~host
        for part, (dropped, tried, judged) in self._judged(Direction.EGRESS, pod, rest):
            hard, soft = (0, dropped | tried) if audited else (dropped, tried)
            for ends, lost in ((part & nodes, banned), (part & ~nodes, 0)):
                masks = hard | lost, soft & ~lost, judged & ~lost
                found[masks] = found.get(masks, 0) | ends
        return row_of(found)

    def _may_carry(self, pod: Pod) -> bool:
        config = self._evaluator.cluster.config
        return config is not None and pod.namespace in config.encapsulating

    @property
    def _carriers(self) -> int:
        found = 0
        for number in CARRIER_NUMBERS:
            found |= self._alphabet.protocol(number)
        for port in TUNNEL_PORTS:
            found |= self._alphabet.span(WITH_PORTS["UDP"], port, port)
        return found

    # Policies

    def _judged(
        self, direction: Direction, pod: Pod, everybody: int
    ) -> Iterator[tuple[int, Masks]]:
        """Parts of the ends, with what policies drop of theirs, what one on trial would, and what
        HTTP rules judge.
        """
        speaking = self._evaluator.speaking(direction, pod)
        isolating = tuple(p for p in speaking if direction in p.directions)
        tried = isolating == (self._evaluator.trials.get(pod.namespace),)
        reports = tried or pod.namespace in self._evaluator.audited
        areas = (
            (area.ends, _kinds(rule, area.letters))
            for policy in speaking
            for rule in policy.rules(direction)
            for area in self._areas(direction, policy, rule, pod)
        )
        for ends, (denied, allowed, asked) in cut(areas, everybody):
            closed = self._alphabet.full & ~allowed & ~asked & ~denied if isolating else 0
            judged = 0 if reports or not isolating else asked & ~allowed & ~denied
            yield ends, (denied, closed, judged) if tried else (denied | closed, 0, judged)

    def _areas(
        self, direction: Direction, policy: NetworkPolicy, rule: Rule, pod: Pod
    ) -> Iterator[Area]:
        """What a rule means: its peers, each with its ports."""
        peers: tuple[Peer | None, ...] = rule.peers or (None,)
        for item in peers:
            ends = self._ends.everybody
            if item is not None:
                ends = self._meant(direction, policy, item, pod)
            if not rule.ports:
                yield Area(ends, self._alphabet.full)
            elif direction is Direction.INGRESS:
                yield Area(ends, self._letters(rule, pod))
            else:
                yield from self._called(rule, item, ends)

    def _called(self, rule: Rule, item: Peer | None, ends: int) -> Iterator[Area]:
        """Towards ports of others: a name is a number of each pod that is called."""
        by_block = item is not None and item.ip_block is not None
        numbered = 0
        for wanted in rule.ports:
            if not isinstance(wanted.port, str):
                numbered |= self._alphabet.of_rule(wanted, None)
        yield Area(ends, numbered)
        named = [port for port in rule.ports if isinstance(port.port, str)]
        if not named or by_block:
            return
        for bits, end in self._ends.classes:
            if end.party.pod is None or not bits & ends:
                continue
            letters = 0
            for wanted in named:
                number = named_port(end.party.pod.ports, wanted.port, wanted.protocol)
                letters |= self._alphabet.of_rule(wanted, number, one=True)
            if letters:
                yield Area(bits & ends, letters)

    def _letters(self, rule: Rule, pod: Pod) -> int:
        """The ports of a rule about what enters a pod."""
        found = 0
        for wanted in rule.ports:
            number = named_port(pod.ports, wanted.port, wanted.protocol)
            key = wanted, number
            letters = self._ports.get(key)
            if letters is None:
                letters = self._ports[key] = self._alphabet.of_rule(wanted, number)
            found |= letters
        return found

    def _meant(self, direction: Direction, policy: NetworkPolicy, item: Peer, pod: Pod) -> int:
        """The ends that an item of `from` or `to` means."""
        near = policy.namespace if item.namespace_selector is None else ""
        key = item, near, pod.node if item.node is not None else ""
        found = self._peers.get(key)
        if found is not None:
            return found
        subject, bits = Party(pod.key, "", pod), 0
        for ends, end in self._ends.classes:
            ways = (end.party, subject) if direction is Direction.INGRESS else (subject, end.party)
            packet = Packet(*ways, "TCP", 0)
            if peer_matches(self._evaluator.namespaces, direction, policy, item, packet):
                bits |= ends
        self._peers[key] = bits
        return bits


def _kinds(rule: Rule, letters: int) -> Masks:
    """The letters of a rule as those that it denies, allows, or leaves to HTTP rules."""
    if rule.deny:
        return letters, 0, 0
    return (0, 0, letters) if rule.http else (0, letters, 0)


def unite(areas: Iterable[Area], everybody: int) -> Iterator[tuple[int, int]]:
    """Parts of everybody, and all letters of the areas over them."""
    for ends, (letters, _, _) in cut(((a.ends, (a.letters, 0, 0)) for a in areas), everybody):
        yield ends, letters
