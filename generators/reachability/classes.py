"""The engine `evaluate`: pods that nothing can tell apart are asked about once.

A verdict depends on a pod by its namespace, by which selectors match its labels, by the ports that
policies call by name, and by the blocks that hold its address; where the other end may be a node,
also by its own node. Pods that are alike in all of it form a class, and every pair of two classes
gets the answer of its first pair from `reference.py`. So do ports that nothing in the cluster tells
apart, and families where no block does. A pod and itself, addresses and Services are asked about
one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from generators.addresses import Family, family, parse_address, parse_network
from generators.cluster import Cluster
from generators.objects import Labels, NetworkPolicy, Peer, Pod, PolicyPort, Selector
from generators.reachability.grid import VerdictTable
from generators.reachability.matrix import PortProtocol, Questions
from generators.reachability.packets import Question
from generators.reachability.protocols import ICMP, TUNNEL_PORTS, named_port
from generators.reachability.reference import Evaluator
from generators.reachability.verdicts import Cell
from generators.references import resolved
from generators.selectors import matches


@dataclass(frozen=True, slots=True)
class Member:
    """The class of one end; `place` sets apart what only a node at the other end could see."""

    alike: Hashable
    place: Hashable
    on_pod_network: bool


class Classes:
    """Which pods of one cluster are alike; asked by name and address family."""

    def __init__(self, cluster: Cluster) -> None:
        policies = [resolved(p, cluster.services, cluster.slices) for p in cluster.policies]
        peers = [peer for policy in policies for peer in _peers(policy)]
        subjects = [policy.pod_selector for policy in policies]
        named = [port for policy in policies for port in _named_ports(policy)]
        self._pods = {pod.key: pod for pod in cluster.pods}
        self._selectors = tuple(dict.fromkeys([*subjects, *_pod_selectors(peers)]))
        self._named = tuple(dict.fromkeys(named))
        self._blocks = _Blocks(peers)
        self.bounds = _port_bounds(cluster, self._named)
        """The port numbers at which an answer may begin to differ, sorted."""
        self._matched: dict[frozenset[tuple[str, str]], tuple[int, ...]] = {}
        self._members: dict[tuple[str, Family], Member] = {}
        self._numbers: dict[Hashable, int] = {}

    def of(self, name: str, of: Family) -> Member:
        """The class of the end that a question calls `name`."""
        found = self._members.get((name, of))
        if found is None:
            pod = self._pods.get(name)
            found = self._member(pod, of) if pod is not None else Member(name, name, False)
            self._members[name, of] = found
        return found

    def port(self, number: int) -> int:
        """Stands for all ports that nothing tells apart from this one."""
        return bisect_right(self.bounds, number)

    def blocks_of(self, address: str) -> tuple[tuple[int, int, int], ...]:
        """The blocks of policies that hold an address, as values to compare."""
        return self._blocks.holding(address)

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Every block: IP version, length and first address."""
        return self._blocks.every()

    def _member(self, pod: Pod, of: Family) -> Member:
        alike = (
            pod.namespace,
            self._selected(pod.selectable),
            tuple(named_port(pod.ports, p.port, p.protocol) for p in self._named),
            tuple(self._blocks.holding(ip) for ip in pod.ips if family(ip) is of),
        )
        if pod.host_network:
            # It is its node to others, and no pod of its own.
            return Member(pod.key, pod.key, False)
        number = self._numbers.setdefault(alike, len(self._numbers))
        return Member(number, (number, pod.node), True)

    def _selected(self, labels: Labels) -> tuple[int, ...]:
        key = frozenset(labels.items())
        found = self._matched.get(key)
        if found is None:
            found = tuple(i for i, s in enumerate(self._selectors) if matches(s, labels))
            self._matched[key] = found
        return found


class _Blocks:
    """All blocks and excepts that policies name, found by address."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for peer in peers:
            block = peer.ip_block
            for cidr in (block.cidr, *block.excepts) if block is not None else ():
                network = parse_network(cidr)
                of_length = (network.version, network.prefixlen)
                self._by_length.setdefault(of_length, set()).add(int(network.network_address))

    def every(self) -> Iterator[tuple[int, int, int]]:
        """Each block, by IP version, length and first address."""
        for (version, length), starts in self._by_length.items():
            yield from ((version, length, start) for start in sorted(starts))

    def holding(self, ip: str) -> tuple[tuple[int, int, int], ...]:
        """Each block that holds the address, by IP version, length and first address."""
        address = parse_address(ip)
        value, bits = int(address), address.max_prefixlen
        found = []
        for (version, length), starts in self._by_length.items():
            if version == address.version:
                start = value >> (bits - length) << (bits - length)
                found += [(version, length, start)] if start in starts else []
        return tuple(sorted(found))


def _port_bounds(cluster: Cluster, named: Iterable[PolicyPort]) -> tuple[int, ...]:
    """The numbers at which an answer may begin to differ: what rules and the tenant file name."""
    spans = [(port, port) for port in TUNNEL_PORTS]
    for policy in cluster.policies:
        for rule in (*policy.ingress, *policy.egress):
            for port in rule.ports:
                if isinstance(port.port, int):
                    spans.append((port.port, port.end_port or port.port))
    for wanted in named:
        numbers = (named_port(pod.ports, wanted.port, wanted.protocol) for pod in cluster.pods)
        last = wanted.end_port or 0
        spans += [(n, end) for n in numbers if n is not None for end in (n, max(n, last))]
    if cluster.config is not None:
        tenants = cluster.config.tenants.values()
        lists = [part.ports for part in cluster.config.shared]
        lists += [grant.ports for t in tenants for grant in (*t.allow_from, *t.allow_to)]
        spans += [port.span for ports in lists for port in ports]
    return tuple(sorted({edge for low, high in spans for edge in (low, high + 1)}))


def _peers(policy: NetworkPolicy) -> Iterator[Peer]:
    for rule in (*policy.ingress, *policy.egress):
        yield from rule.peers


def _pod_selectors(peers: Iterable[Peer]) -> Iterator[Selector]:
    for peer in peers:
        if peer.pod_selector is not None:
            yield peer.pod_selector


def _named_ports(policy: NetworkPolicy) -> Iterator[PolicyPort]:
    for rule in (*policy.ingress, *policy.egress):
        yield from (port for port in rule.ports if isinstance(port.port, str))


class Answers:
    """The evaluator's answers, each pair of classes asked once."""

    def __init__(self, cluster: Cluster) -> None:
        self.classes = Classes(cluster)
        self._evaluator = Evaluator(cluster)
        self._known: dict[Hashable, Cell] = {}

    def cell(self, question: Question) -> Cell:
        """The answer, under the names of the first pair of the same two classes."""
        key = self._key(question)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._evaluator.cell(question)
        return found

    def _key(self, question: Question) -> Hashable:
        source = self.classes.of(question.source, question.family)
        destination = self.classes.of(question.destination, question.family)
        what = (question.protocol, question.port, question.family)
        if not destination.on_pod_network:
            # A Service may lead back to the source: it is asked about for each pod.
            return (question.source, question.destination, *what)
        if not source.on_pod_network:
            return (question.source, destination.place, *what)
        itself = question.source == question.destination
        port = self.classes.port(question.port)
        # Rules about types of ICMP are of one family.
        of = question.family if question.protocol == ICMP else None
        return (source.alike, destination.alike, itself, question.protocol, port, of)


def evaluate(cluster: Cluster, questions: Iterable[Question]) -> Iterator[Cell]:
    """An answer for each question, in order; made as they are taken."""
    answers = Answers(cluster)
    for question in questions:
        yield named(question, answers.cell(question))


def named(question: Question, found: Cell) -> Cell:
    """The answer of a pair of classes under the names of the question."""
    return Cell(
        question.source,
        question.destination,
        question.protocol,
        question.port,
        question.family,
        found.verdict,
        found.egress,
        found.ingress,
    )


def table(
    cluster: Cluster,
    asked: Questions,
    progress: Callable[[Iterable[str], int], Iterator[str]] = lambda names, _: iter(names),
) -> VerdictTable:
    """All answers as a grid draws them, without a cell for each pair of pods."""
    answers = Answers(cluster)
    found = VerdictTable(tuple(asked.destinations))
    what = [(wanted, of) for wanted in asked.ports for of in Family]
    rounds = [(wanted, of, _Columns(answers, asked, wanted, of)) for wanted, of in what]
    for source in progress(asked.sources, len(asked.sources)):
        for wanted, of, columns in rounds:
            if of in asked.sources[source]:
                found.draw((wanted.port, wanted.protocol), of, source, columns.row(source))
    return found


class _Columns:
    """The destinations of one port and family, those that are alike together."""

    def __init__(
        self, answers: Answers, asked: Questions, wanted: PortProtocol, of: Family
    ) -> None:
        self._answers, self._asked, self._wanted, self._of = answers, asked, wanted, of
        self._groups: list[list[str]] = [[]]
        """The first is of those that do not have the family."""
        self._places: list[int] = []
        self._column = {name: index for index, name in enumerate(asked.destinations)}
        known: dict[Hashable, int] = {}
        for name, families in asked.destinations.items():
            group = 0
            if of in families:
                group = known.setdefault(answers.classes.of(name, of), len(known) + 1)
                self._groups += [[]] if group == len(self._groups) else []
            self._groups[group].append(name)
            self._places.append(group)

    def row(self, source: str) -> list[Cell | None]:
        """The answer for each destination, None where nothing was asked."""
        cells: list[Cell | None] = [None]
        for names in self._groups[1:]:
            other = next((name for name in names[:2] if name != source), source)
            cells.append(self._cell(source, other))
        row = [cells[place] for place in self._places]
        own = self._column.get(source)
        if own is not None and self._places[own]:
            row[own] = self._cell(source, source)
        return row

    def _cell(self, source: str, destination: str) -> Cell | None:
        if not self._asked.is_asked(source, destination):
            return None
        wanted = self._wanted
        question = Question(source, destination, wanted.protocol, wanted.port, self._of)
        return self._answers.cell(question)
