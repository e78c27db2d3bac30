"""Identities: pods that no rule in use can tell apart share one number.

A class belongs to an address, not to a pod, because an `ipBlock` may hold one address of a
dual-stack pod and not the other; and numbers are never reused, so that a map entry left behind can
never apply to another pod.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field

from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    PEER_CIDR,
    PEER_TENANT,
    RULE_NUMBER,
    Tables,
    cidr_of,
)
from generators.http import RuleSet
from generators.objects import BlockList, Labels, Peer, Selector
from generators.selectors import matches, matches_pod

TENANT_IDS = (1 << 30) - 1
"""Tenant ids are 1..TENANT_IDS: they share a 32-bit peer with PEER_TENANT."""


@dataclass(frozen=True, slots=True)
class PeerSelector:
    """A peer by selectors; `namespace` is its policy's, used when it names no namespaces."""

    namespace: str
    pods: Selector | None
    namespaces: Selector | None

    @classmethod
    def of(cls, peer: Peer, namespace: str) -> PeerSelector:
        """The peer of a policy of `namespace`, which is forgotten where it does not matter."""
        bound = namespace if peer.namespace_selector is None else ""
        return cls(bound, peer.pod_selector, peer.namespace_selector)

    def selects_namespace(self, namespace: str, labels: Labels) -> bool:
        """Whether pods of this namespace can be meant."""
        if self.namespaces is None:
            return namespace == self.namespace and self.pods is not None
        return matches(self.namespaces, labels)

    def selects_pod(self, labels: Labels, account: str) -> bool:
        """Whether a pod with these labels and this service account, in a namespace that can be
        meant, is meant.
        """
        return self.pods is None or matches_pod(self.pods, labels, account)


@dataclass(frozen=True, slots=True)
class PortName:
    """A named port of an egress rule: it is looked up in each peer pod."""

    name: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Shared:
    """A shared component of the tenant file, as a peer of the wall."""

    component: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A namespace in quarantine, as a peer of its own wall."""

    namespace: str


PeerTerm = PeerSelector | BlockList | PortName | Shared | Quarantine
"""A way in which rules can mean pods in particular."""


@dataclass(frozen=True, slots=True)
class PodClass:
    """All that rules in use can know of the pod at an address; equal classes share an identity."""

    tenant: str = ""
    quarantine: str = ""
    """The pod's namespace while a tenant label on it is without record."""
    shared: frozenset[str] = frozenset()
    """Shared components whose namespace the pod is in."""
    selectors: frozenset[PeerSelector] = frozenset()
    lists: frozenset[BlockList] = frozenset()
    """With a block that holds the address."""
    ports: tuple[tuple[str, str, int], ...] = ()
    """Named ports in use: (name, protocol, number) where this pod declares them."""

    @property
    def words(self) -> Iterable[PeerTerm]:
        """Every word that means these pods."""
        yield from self.selectors
        yield from self.lists
        yield from (PortName(name, protocol) for name, protocol, _ in self.ports)
        yield from map(Shared, self.shared)
        if self.quarantine:
            yield Quarantine(self.quarantine)

    def without(self, words: frozenset[PeerTerm]) -> PodClass:
        """What remains when some selectors, lists of blocks and port names are not looked at."""
        return PodClass(
            self.tenant,
            self.quarantine,
            self.shared,
            self.selectors - words,
            self.lists - words,
            tuple(p for p in self.ports if PortName(p[0], p[1]) not in words),
        )


@dataclass(slots=True)
class Numbering:
    """Numbers for equal things: the same key keeps its number, a number is never given twice."""

    next: int
    known: dict[Hashable, int] = field(default_factory=dict)
    promised: dict[Hashable, int] = field(default_factory=dict)
    """What had a number when an agent was last here, and has not asked for it yet."""

    def fresh(self) -> int:
        """A number that is not requested by key."""
        self.next += 1
        return self.next - 1

    def again(self, name: Callable[[], Hashable]) -> int:
        """The number that was promised to this name, which is made only if there are any left."""
        number = self.promised.pop(name(), None) if self.promised else None
        return self.fresh() if number is None else number

    def of(self, key: Hashable) -> int:
        """The number of `key`, a new one at the first time."""
        number = self.known.get(key)
        if number is None:
            number = self.known[key] = self.again(lambda: key)
        return number

    def promise(self, names: Mapping[str, int], following: int) -> None:
        """Keep these numbers for these names; `following`: the first that was never given."""
        self.promised.update(names)
        self.next = max(self.next, following, *(number + 1 for number in names.values()))

    def settle(self) -> None:
        """Keys that were not requested by now are gone."""
        self.promised.clear()

    def forget(self, key: Hashable) -> None:
        """Free the memory of gone keys; one that returns gets a new number."""
        self.known.pop(key, None)


@dataclass(slots=True)
class Registry:
    """Which thing has which number."""

    identities: Numbering = field(default_factory=lambda: Numbering(FIRST_POD_IDENTITY))
    groups: Numbering = field(default_factory=lambda: Numbering(1))
    cidrs: Numbering = field(default_factory=lambda: Numbering(1))
    endpoints: Numbering = field(default_factory=lambda: Numbering(1))
    rules: Numbering = field(default_factory=lambda: Numbering(1))
    generations: Numbering = field(default_factory=lambda: Numbering(1))
    rule_sets: dict[int, RuleSet] = field(default_factory=dict)
    """By the number that they have among the rules."""

    def of_set(self, found: RuleSet) -> int:
        """The number of what judges requests."""
        number = self.rules.of(found.name)
        self.rule_sets[number] = found
        return number

    def forget_rules(self, used: Set[int]) -> None:
        """Rules that no entry names; they would only become more."""
        for name in [name for name, number in self.rules.known.items() if number not in used]:
            self.rule_sets.pop(self.rules.known[name], None)
            self.rules.forget(name)

    @classmethod
    def following(cls, kernel: Tables, generation: int = 1) -> Registry:
        """A registry whose new numbers cannot be taken for those of another process in the kernel.

        Endpoints keep their numbers: the kernel's connections are filed under them. Blocks keep
        theirs because they mean the same everywhere. `generation`: one that was never reached.
        """
        policy = [(k.group, k.peer) for k in kernel.policy]
        policy += [(k.group, k.peer) for k in kernel.ranges]
        entries = kernel.endpoints.values()
        groups = [g for g, _ in policy] + [g for e in entries for g in e.groups]
        identities = [a.identity for a in kernel.addresses.values()]
        identities += [peer for _, peer in policy if peer < PEER_TENANT]
        cidrs = [c.cidr for c in kernel.cidrs.values()]
        cidrs += [cidr_of(peer) for _, peer in policy if peer >= PEER_CIDR]
        rules = [r & RULE_NUMBER for r in (*kernel.policy.values(), *kernel.ranges.values())]
        return cls(
            identities=Numbering(max([FIRST_POD_IDENTITY - 1, *identities]) + 1),
            groups=Numbering(max([0, *groups]) + 1),
            cidrs=Numbering(
                max([0, *cidrs]) + 1,
                promised={key: entry.cidr for key, entry in kernel.cidrs.items()},
            ),
            endpoints=Numbering(
                max([0, *(e.endpoint for e in entries)]) + 1,
                {(ifindex, e.ip4, e.ip6): e.endpoint for ifindex, e in kernel.endpoints.items()},
            ),
            rules=Numbering(max([0, *rules]) + 1),
            generations=Numbering(max([generation, *(e.generation + 1 for e in entries)])),
        )


def tenant_ids(names: Iterable[str], among: int = TENANT_IDS) -> Mapping[str, int]:
    """A number for each tenant, made from its name, so that every node and every restart agrees.

    Two names with one hash: the later in name order takes the next free number.
    """
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(set(names)):
        number = _first_choice(name, among)
        while number in taken:
            number = number % among + 1
        taken.add(number)
        ids[name] = number
    return ids


def _first_choice(name: str, among: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % among + 1


class TenantNumbers:
    """`tenant_ids` of the tenants in use, kept up to date name by name."""

    def __init__(self, among: int = TENANT_IDS) -> None:
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}
        """The other way round."""
        self._among = among
        self._uses: Counter[str] = Counter()
        self._touched: dict[str, None] = {}
        self._crowded = False
        """A tenant's preferred number was taken."""

    def use(self, name: str) -> None:
        """One more place names the tenant."""
        self._uses[name] += 1
        self._touched[name] = None

    def leave(self, name: str) -> None:
        """One place less does."""
        self._uses[name] -= 1
        self._touched[name] = None

    def settle(self) -> bool:
        """Number new tenants, forget gone ones; returns whether a remaining one has another
        number."""
        before: dict[str, int] | None = None
        for name in self._touched:
            if not self._uses[name]:
                del self._uses[name]
                self.names.pop(self.ids.pop(name, 0), None)
                anew = self._crowded
            elif name in self.ids:
                continue
            else:
                number = _first_choice(name, self._among)
                anew = number in self.names
                if not anew:
                    self.ids[name], self.names[number] = number, name
            if anew and before is None:
                before = dict(self.ids)
        self._touched = {}
        return before is not None and self._number_all(before)

    def _number_all(self, before: Mapping[str, int]) -> bool:
        """From nothing, without a moment in which a name is missing."""
        self.ids.update(tenant_ids(self._uses, self._among))
        self.names.update({number: name for name, number in self.ids.items()})
        for number in self.names.keys() - self.ids.values():
            del self.names[number]
        self._crowded = any(_first_choice(n, self._among) != i for n, i in self.ids.items())
        return any(self.ids[n] != number for n, number in before.items() if n in self.ids)
