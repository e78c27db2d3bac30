"""Are tenants apart? Decided for all packets, on policies, compiled entries and a kernel's maps.

Two claims for each endpoint. Nothing enters a tenant's pod but what the tenant file permits, and in
mode overridable what policies of its own namespace allow; egress policies of senders do not count,
because their owners may delete them. And all layers say the same of every packet, either way.
What is found is the smallest packet of each kind, between two tenants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise, product

from enforcer.datapath.engine import CompiledNode, compile_node
from enforcer.policy.interpret import EndpointPacket
from enforcer.policy.tables import ICMP_PORT, Dir
from enforcer.proof import entries
from enforcer.proof.entries import Entries
from generators.addresses import Family, family
from generators.cluster import Cluster
from generators.objects import Pod
from generators.proof.ends import Block, Ends, PeerEnd, block_of
from generators.proof.file import Permits
from generators.proof.letters import Alphabet, Cuts, cuts_of
from generators.proof.policies import PolicyRows, unite
from generators.proof.rows import Area, Row, Stretch, members
from generators.reachability.classes import Classes
from generators.reachability.protocols import ICMP_NUMBERS
from generators.reachability.reference import Evaluator
from generators.reachability.verdicts import Verdict
from generators.tenants.model import Mode

POLICIES = "policies"
"""The layer that everything else is made of."""
ENTRIES = "entries"
"""What the compiler makes of it for a node."""
MAPS = "maps"
"""What a node's kernel holds."""
_ENOUGH = 2
"""Pods that are alike in everything: the second sees the first as others do."""


class Flaw(StrEnum):
    """What is wrong with a packet."""

    OPEN = "open"  # it enters, and the tenant file does not permit it
    DIFFERS = "differs"  # two layers do not say the same of it


@dataclass(frozen=True, slots=True, order=True)
class Counterexample:
    """A packet for which a claim does not hold; `source` and `destination` as `trace` takes them.

    `said`: the verdict of each layer. `packet` and `place` are for who wants to replay it: what the
    programs see, and node, layer and interface.
    """

    family: str
    rank: int
    source: str
    destination: str
    protocol: str
    port: int
    kind: Flaw
    direction: str
    said: tuple[tuple[str, Verdict], ...]
    source_tenant: str | None = field(compare=False)
    destination_tenant: str | None = field(compare=False)
    masked: bool = False
    """The source is not the node whose address it is, but who hides behind it."""
    node: str = ""
    packet: EndpointPacket = field(compare=False, kw_only=True)

    @property
    def subject(self) -> str:
        """The pod whose side it is about."""
        return self.destination if self.direction == Dir.INGRESS.name else self.source


@dataclass(frozen=True, slots=True)
class Proof:
    """The answer; without counterexamples the tenants are apart and all layers agree."""

    classes: int
    """Packet classes that were decided: who, whom, protocol, ports and direction."""
    counterexamples: tuple[Counterexample, ...]
    """Smallest first, one for each pair of tenants and kind; open ones before others."""

    @property
    def apart(self) -> bool:
        """Nothing enters a tenant that may not."""
        return all(found.kind is not Flaw.OPEN for found in self.counterexamples)

    @property
    def agrees(self) -> bool:
        """All layers say the same."""
        return all(found.kind is not Flaw.DIFFERS for found in self.counterexamples)


@dataclass(slots=True)
class _Findings:
    """Of all nodes and families so far."""

    classes: int = 0
    smallest: dict[Hashable, Counterexample] = field(default_factory=dict)

    def add(self, found: Counterexample) -> None:
        layers = tuple(name for name, verdict in found.said if verdict is not Verdict.DROPPED)
        key = found.kind, found.source_tenant, found.destination_tenant, layers, found.direction
        known = self.smallest.get(key)
        if known is None or found < known:
            self.smallest[key] = found


class Prover:
    """Decides one cluster, a node at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._evaluator, self._classes = Evaluator(cluster), Classes(cluster)
        self._cuts = cuts_of(cluster, self._classes.bounds)
        self._blocks = {*self._classes.blocks(), *map(block_of, cluster.pod_cidrs)}
        self._grounds: dict[tuple[Family, _Beside], _Ground] = {}
        """Those of the last node, by family: the next one mostly needs the same."""
        self._found = _Findings()
        self._pods: dict[str, dict[Family, list[tuple[Pod, str]]]] = {}
        for address, pod in sorted(self._evaluator.owners.items(), key=lambda o: o[1].key):
            here = self._pods.setdefault(pod.node, defaultdict(list))
            here[family(address)].append((pod, address))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those with pods, also "", where pods are that no node has yet; sorted."""
        return tuple(sorted(self._pods))

    def decide(self, node: str, layers: Mapping[str, CompiledNode]) -> None:
        """The pods of one node, by policies and by each of these layers."""
        beside = self._beside(layers)
        for of, pods in self._pods.get(node, {}).items():
            _Node(self, node, self._ground(of, beside), layers).decide(pods)

    def _beside(self, layers: Mapping[str, CompiledNode]) -> _Beside:
        cuts, addresses, blocks = self._cuts, set[str](), set[Block]()
        for held in layers.values():
            cuts |= entries.cuts_of(held.tables)
            addresses |= held.tables.addresses.keys()
            blocks.update(entries.blocks_of(held.tables))
        known = self._evaluator.owners.keys() | self._evaluator.node_addresses.keys()
        return _Beside(cuts, frozenset(addresses - known), frozenset(blocks - self._blocks))

    def _ground(self, of: Family, beside: _Beside) -> _Ground:
        found = self._grounds.get((of, beside))
        if found is None:
            alphabet = Alphabet.of(of, beside.cuts)
            found = _Ground(self._evaluator, self._classes, alphabet, beside)
            self._grounds = {k: v for k, v in self._grounds.items() if k[0] is not of}
            self._grounds[of, beside] = found
        return found

    def proof(self) -> Proof:
        """Of all that was decided so far."""
        ranked = sorted(self._found.smallest.values(), key=lambda c: (c.kind != Flaw.OPEN, c))
        return Proof(self._found.classes, tuple(ranked))


class _Ground:
    """All ends of a family, and what file and policies make of them; the same for many nodes."""

    def __init__(
        self, evaluator: Evaluator, classes: Classes, alphabet: Alphabet, beside: _Beside
    ) -> None:
        self.alphabet = alphabet
        self.ends = Ends(evaluator, classes, alphabet.family, beside.addresses, beside.blocks)
        self.policies = PolicyRows(evaluator, self.ends, alphabet)
        self.file = Permits(evaluator, self.ends, alphabet)
        self.tenants: dict[str | None, int] = defaultdict(int)
        """All ends by tenant."""
        rest = self.ends.everybody
        for namespace, bits in self.ends.by_namespace.items():
            self.tenants[evaluator.cluster.tenants.get(namespace)] |= bits
            rest &= ~bits
        self.tenants[None] |= rest


def prove_entries(
    cluster: Cluster, shown: Callable[[Sequence[str]], Iterable[str]] = iter
) -> Proof:
    """Of policies and the entries of every node; `shown` may tell how many nodes are done."""
    prover = Prover(cluster)
    for node in shown(prover.nodes):
        prover.decide(node, {ENTRIES: compile_node(cluster, node)})
    return prover.proof()


@dataclass(frozen=True, slots=True)
class _Beside:
    """What only tables know of: ports, addresses and blocks that the objects do not name."""

    cuts: Cuts
    addresses: frozenset[str]
    blocks: frozenset[Block]


class _Node:
    """One node and address family."""

    def __init__(
        self, of: Prover, node: str, ground: _Ground, layers: Mapping[str, CompiledNode]
    ) -> None:
        self._of, self._node, self._layers = of, node, layers
        self._ground, self._ends, self._alphabet = ground, ground.ends, ground.alphabet
        self._policies, self._file = ground.policies, ground.file
        self._entries = {
            name: Entries(held.tables, self._ends, self._alphabet) for name, held in layers.items()
        }

    def decide(self, pods: Sequence[tuple[Pod, str]]) -> None:
        asked: dict[Hashable, int] = defaultdict(int)
        senders = self._senders()
        for pod, address in pods:
            kind = self._kind(pod)
            asked[kind] += 1
            if asked[kind] > _ENOUGH:
                continue
            self._of._found.classes += 2 * senders * len(self._alphabet.letters)
            self._enters(pod, address)
            self._leaves(pod, address)

    def _senders(self) -> int:
        """Ends that neither policies nor any map tell apart."""
        kinds = {
            (number, *(each.owner(index) for each in self._entries.values()))
            for number, (bits, _) in enumerate(self._ends.classes)
            for index in members(bits)
        }
        return len(kinds)

    def _kind(self, pod: Pod) -> Hashable:
        """Pods of a kind are judged alike by every layer."""
        held = tuple(
            entries.signature(each.tables.endpoints.get(each.interfaces.get(pod.key, 0)))
            for each in self._layers.values()
        )
        return self._of._classes.of(pod.key, self._ends.family).alike, held

    def _enters(self, pod: Pod, address: str) -> None:
        rows = {POLICIES: self._policies.ingress(pod, address)}
        for name, held in self._layers.items():
            number = held.interfaces.get(pod.key)
            rows[name] = self._entries[name].row(Dir.INGRESS, pod, number)
        if self._file.keeps(pod):
            self._open(rows, pod, address)
        self._compare(rows, Dir.INGRESS, pod, address)

    def _leaves(self, pod: Pod, address: str) -> None:
        rows = {POLICIES: self._policies.egress(pod)}
        for name, held in self._layers.items():
            number = held.interfaces.get(pod.key)
            rows[name] = self._entries[name].row(Dir.EGRESS, pod, number)
        self._compare(rows, Dir.EGRESS, pod, address)

    def _permitted(self, pod: Pod) -> Iterator[Area]:
        yield from (permission.area for permission in self._file.permissions(pod))
        config = self._of.cluster.config
        quarantined = pod.namespace in self._of._evaluator.quarantined
        if config is not None and config.mode is Mode.OVERRIDABLE and not quarantined:
            yield from self._policies.permitted(pod)

    def _open(self, rows: Mapping[str, Row], pod: Pod, address: str) -> None:
        """What a layer lets in and the file does not permit."""
        full, unnamed = self._alphabet.full, self._unnamed(pod)
        for ends, permitted in unite(self._permitted(pod), self._ends.everybody):
            forbidden = full & ~permitted
            for name, row in rows.items() if forbidden else ():
                asked = ends & ~unnamed if name == POLICIES else ends
                for part in row:
                    letters, there = forbidden & ~part.dropped, asked & part.ends
                    if letters and there:
                        self._note(Flaw.OPEN, rows, Dir.INGRESS, (pod, address), there, letters)

    def _compare(self, rows: Mapping[str, Row], direction: Dir, pod: Pod, address: str) -> None:
        """What two layers do not say alike; the pod itself is beyond the reach of both."""
        others = self._ends.everybody & ~self._ends.own(pod)
        unnamed = self._unnamed(pod) if direction is Dir.INGRESS else self._ends.masked
        for first, second in pairwise(rows):
            asked = others & ~unnamed if first == POLICIES else others
            for one, other in product(rows[first], rows[second]):
                ends, letters = one.ends & other.ends & asked, _between(one, other)
                if ends and letters:
                    self._note(Flaw.DIFFERS, rows, direction, (pod, address), ends, letters)

    def _unnamed(self, pod: Pod) -> int:
        """Who hides behind an address that is the node's on an interface alone: policies are not
        asked about it.
        """
        return self._ends.host(pod.node) & self._ends.masked & ~self._ends.nodes

    def _note(
        self,
        kind: Flaw,
        rows: Mapping[str, Row],
        direction: Dir,
        subject: tuple[Pod, str],
        ends: int,
        letters: int,
    ) -> None:
        """The smallest packet of an area, for each tenant at the other end."""
        for tenant, bits in self._ground.tenants.items():
            there = ends & bits
            if there:
                index = (there & -there).bit_length() - 1
                self._of._found.add(
                    self._example(kind, rows, direction, subject, (index, tenant), letters)
                )

    def _example(
        self,
        kind: Flaw,
        rows: Mapping[str, Row],
        direction: Dir,
        subject: tuple[Pod, str],
        peer: tuple[int, str | None],
        letters: int,
    ) -> Counterexample:
        pod, address = subject
        index, tenant = peer
        end = self._ends.all[index]
        place = self._letter(letters)
        letter = self._alphabet.letters[place]
        protocol = self._alphabet.protocol_name(letter.number)
        names = (end.party.name, pod.key) if direction is Dir.INGRESS else (pod.key, end.party.name)
        own = self._of.cluster.tenants.get(pod.namespace)
        tenants = (tenant, own) if direction is Dir.INGRESS else (own, tenant)
        return Counterexample(
            family=self._ends.family.value,
            rank=place,
            source=names[0],
            destination=names[1],
            protocol=protocol,
            port=letter.first,
            kind=kind,
            direction=direction.name,
            said=tuple((name, _said(row, index, place)) for name, row in rows.items()),
            source_tenant=tenants[0],
            destination_tenant=tenants[1],
            masked=end.masked,
            node=self._node,
            packet=self._packet(direction, address, end, place),
        )

    def _letter(self, letters: int) -> int:
        """The lowest port that is one, else whatever there is."""
        found = [i for i, each in enumerate(self._alphabet.letters) if letters >> i & 1]
        return next((i for i in found if self._alphabet.letters[i].first), found[0])

    def _packet(self, direction: Dir, own: str, end: PeerEnd, place: int) -> EndpointPacket:
        letter = self._alphabet.letters[place]
        icmp = letter.number == ICMP_NUMBERS[self._ends.family]
        port = ICMP_PORT | letter.first if icmp else letter.first
        local = direction is Dir.INGRESS and end.is_node and not end.masked
        return EndpointPacket(
            direction, own, end.party.address, letter.number, port, from_socket=local
        )


def _between(one: Stretch, other: Stretch) -> int:
    """Letters of which two parts do not say the same."""
    found = 0
    for mine, theirs in zip(one.masks, other.masks, strict=True):
        found |= mine ^ theirs
    return found


def _said(row: Row, end: int, letter: int) -> Verdict:
    verdicts = Verdict.DROPPED, Verdict.AUDIT, Verdict.REDIRECTED
    for part in row:
        if part.ends >> end & 1:
            found = (v for v, mask in zip(verdicts, part.masks, strict=True) if mask >> letter & 1)
            return next(found, Verdict.FORWARDED)
    return Verdict.FORWARDED
