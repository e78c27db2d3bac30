"""Identities: pods that no rule in use can tell apart share one number.

compile.py asks here for the class of each pod address and for its number. What may surprise: a
class belongs to an address, not to a pod, because an `ipBlock` may hold one address of a
dual-stack pod and not the other; and numbers are never given twice, so that a map entry left
behind can never speak for somebody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from enforcer.blocks import BlockIndex
from enforcer.tables import FIRST_POD_IDENTITY, PEER_CIDR, PEER_TENANT, Tables
from generators.objects import IPBlock, Labels, Namespace, Peer, Pod, Selector
from generators.selectors import matches

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

    def selects(self, namespace: str, namespace_labels: Labels, pod_labels: Labels) -> bool:
        """Whether a pod with these labels is meant."""
        if self.namespaces is None:
            if namespace != self.namespace or self.pods is None:
                return False
        elif not matches(self.namespaces, namespace_labels):
            return False
        return self.pods is None or matches(self.pods, pod_labels)


@dataclass(frozen=True, slots=True)
class PodClass:
    """All that rules in use can know of the pod at an address; equal classes share an identity."""

    tenant: str = ""
    quarantine: str = ""
    """The pod's namespace while a tenant label on it is without record."""
    shared: frozenset[str] = frozenset()
    """Shared components whose namespace the pod is in."""
    selectors: frozenset[PeerSelector] = frozenset()
    blocks: frozenset[IPBlock] = frozenset()
    ports: tuple[tuple[str, str, int], ...] = ()
    """Named ports in use: (name, protocol, number) where this pod declares them."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The selectors, blocks and port names by which the policies in use name peers."""

    selectors: frozenset[PeerSelector] = frozenset()
    blocks: frozenset[IPBlock] = frozenset()
    port_names: frozenset[tuple[str, str]] = frozenset()
    """(name, protocol) of egress rules: they are looked up in each peer pod."""


def named_port(pod: Pod, name: str, protocol: str) -> int | None:
    """The number behind a port's name in this pod; the first container that declares it wins."""
    for port in pod.ports:
        if port.name == name and port.protocol == protocol:
            return port.port
    return None


class Classifier:
    """Sorts pods into classes for one compilation; pods with equal labels are matched once."""

    def __init__(
        self,
        words: Vocabulary,
        namespaces: Mapping[str, Namespace],
        tenants: Mapping[str, str],
        quarantined: frozenset[str],
        shared: Mapping[str, frozenset[str]],
    ) -> None:
        self._words = words
        self._blocks = BlockIndex(words.blocks)
        self._namespaces = namespaces
        self._tenants = tenants
        self._quarantined = quarantined
        self._shared = shared
        self._selected: dict[Hashable, frozenset[PeerSelector]] = {}

    def classify(self, pod: Pod, address: str) -> PodClass:
        """The class of one address of a pod."""
        ports = (
            (name, protocol, named_port(pod, name, protocol))
            for name, protocol in sorted(self._words.port_names)
        )
        return PodClass(
            tenant=self._tenants.get(pod.namespace, ""),
            quarantine=pod.namespace if pod.namespace in self._quarantined else "",
            shared=self._shared.get(pod.namespace, frozenset()),
            selectors=self._selectors(pod),
            blocks=self._blocks.holding(ip_network(address)),
            ports=tuple((n, protocol, port) for n, protocol, port in ports if port is not None),
        )

    def _selectors(self, pod: Pod) -> frozenset[PeerSelector]:
        key = (pod.namespace, tuple(sorted(pod.labels.items())))
        found = self._selected.get(key)
        if found is None:
            labels = self._namespaces[pod.namespace].labels
            found = frozenset(
                s for s in self._words.selectors if s.selects(pod.namespace, labels, pod.labels)
            )
            self._selected[key] = found
        return found


@dataclass(slots=True)
class Numbering:
    """Numbers for equal things: the same key keeps its number, a number is never given twice."""

    next: int
    known: dict[Hashable, int] = field(default_factory=dict)

    def of(self, key: Hashable) -> int:
        """The number of `key`, a new one at the first time."""
        number = self.known.get(key)
        if number is None:
            number = self.known[key] = self.next
            self.next += 1
        return number

    def forget_all_but(self, keys: Iterable[Hashable]) -> None:
        """Free memory of keys that are gone; should one return, it gets a new number."""
        kept = set(keys)
        self.known = {k: n for k, n in self.known.items() if k in kept}


@dataclass(slots=True)
class Registry:
    """The only memory between two compilations: which thing has which number."""

    identities: Numbering = field(default_factory=lambda: Numbering(FIRST_POD_IDENTITY))
    groups: Numbering = field(default_factory=lambda: Numbering(1))
    cidrs: Numbering = field(default_factory=lambda: Numbering(1))
    endpoints: Numbering = field(default_factory=lambda: Numbering(1))
    rules: Numbering = field(default_factory=lambda: Numbering(1))

    @classmethod
    def following(cls, kernel: Tables) -> Registry:
        """A registry whose new numbers cannot be taken for those of another process in the kernel.

        Endpoints keep their numbers: the kernel's connections are filed under them.
        """
        policy = [(k.group, k.peer) for k in kernel.policy]
        policy += [(k.group, k.peer) for k in kernel.ranges]
        entries = kernel.endpoints.values()
        groups = [g for g, _ in policy] + [e.group for e in entries] + [e.wall for e in entries]
        identities = [a.identity for a in kernel.addresses.values()]
        identities += [peer for _, peer in policy if peer < PEER_TENANT]
        cidrs = [c.cidr for c in kernel.cidrs.values()]
        cidrs += [peer - PEER_CIDR for _, peer in policy if peer >= PEER_CIDR]
        rules = [*kernel.policy.values(), *kernel.ranges.values()]
        return cls(
            identities=Numbering(max([FIRST_POD_IDENTITY - 1, *identities]) + 1),
            groups=Numbering(max([0, *groups]) + 1),
            cidrs=Numbering(max([0, *cidrs]) + 1),
            endpoints=Numbering(
                max([0, *(e.endpoint for e in entries)]) + 1,
                {(ifindex, e.ip4, e.ip6): e.endpoint for ifindex, e in kernel.endpoints.items()},
            ),
            rules=Numbering(max([0, *rules]) + 1),
        )

    def forget_all_but(
        self, classes: Iterable[Hashable], groups: Iterable[Hashable], cidrs: Iterable[Hashable]
    ) -> None:
        """Free the memory of what is gone. Rules stay: flows of a while ago still name them."""
        self.identities.forget_all_but(classes)
        self.groups.forget_all_but(groups)
        self.cidrs.forget_all_but(cidrs)


def tenant_ids(names: Iterable[str]) -> Mapping[str, int]:
    """A number for each tenant, made from its name, so that every node and every restart agrees.

    Two names with one hash: the later in name order takes the next free number.
    """
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(set(names)):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % TENANT_IDS + 1
        while number in taken:
            number = number % TENANT_IDS + 1
        taken.add(number)
        ids[name] = number
    return ids
