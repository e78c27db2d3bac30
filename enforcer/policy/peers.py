"""The pods of the cluster as peers: the owner of an address, and its class.

The compiler passes it pods, namespaces and words (the selectors, blocks and port names in use)
and then asks `settle` what that changed. Every change costs only what it touches: pods with equal
namespace, labels and named ports are one `PodShape`, which is matched with a selector once;
addresses of a kind in the same blocks are one `AddressSet`, which changes its class as a whole.

An identity may keep its number while its class changes, when words come or go that no rule used
both before and after, and all its members go along. To every rule that stays it means the same, so
nothing has to be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from enforcer.policy.blocks import BlockIndex, Lists, Net, NetIndex
from enforcer.policy.identity import (
    Numbering,
    PeerSelector,
    PeerTerm,
    PodClass,
    PortName,
)
from enforcer.policy.numbers import name_of_class
from enforcer.policy.walls import NamespaceFacts
from generators.objects import BlockList, ContainerPort, IPBlock, Labels, Operator, Pod
from generators.reachability.protocols import named_port

KindKey = tuple[str, tuple[tuple[str, str], ...], tuple[ContainerPort, ...], str]


@dataclass(slots=True, eq=False)
class Identity:
    """A number and the class that it means; `cells` are its members."""

    number: int
    pods: PodClass
    cells: dict[AddressSet, None] = field(default_factory=dict)

    @property
    def addresses(self) -> Iterable[str]:
        """Where these pods are."""
        return (address for cell in self.cells for address in cell.addresses)


@dataclass(slots=True, eq=False)
class AddressSet:
    """Addresses that nothing in use can tell apart."""

    kind: PodShape
    lists: Lists
    addresses: dict[str, None] = field(default_factory=dict)
    identity: Identity | None = None


@dataclass(slots=True, eq=False)
class PodShape:
    """Pods of one namespace with equal labels, named ports and service account."""

    key: KindKey
    labels: Labels
    account: str
    selectors: frozenset[PeerSelector]
    cells: dict[Lists, AddressSet] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Place:
    """A namespace: its facts about pods, the selectors that can match them, its kinds."""

    home: NamespaceFacts
    selectors: dict[PeerSelector, None] = field(default_factory=dict)
    kinds: dict[KindKey, PodShape] = field(default_factory=dict)


@dataclass(slots=True)
class Settled:
    """What the last changes did to identities."""

    added: list[Identity] = field(default_factory=list)
    removed: list[Identity] = field(default_factory=list)
    addresses: dict[str, Identity | None] = field(default_factory=dict)
    """Addresses whose identity, or whose owner's namespace, has changed."""


class Population:
    """All pods on the pod network."""

    def __init__(self, numbers: Numbering) -> None:
        self.owners: dict[str, Pod] = {}
        self._numbers = numbers
        self._rivals: dict[str, list[Pod]] = {}
        self._order: dict[str, int] = {}
        self._latest = 0
        self._places: dict[str, _Place] = {}
        self._by_label: dict[tuple[str, str], dict[str, None]] = {}
        self._selectors: dict[PeerSelector, dict[str, None]] = {}
        """Selector in use -> namespaces whose pods it can mean."""
        self._unbound: dict[PeerSelector, None] = {}
        self._bound: dict[str, dict[PeerSelector, None]] = {}
        self._blocks = BlockIndex()
        self._port_names: dict[PortName, None] = {}
        self._nets: dict[str, Net] = {}
        self._net_index: NetIndex | None = None
        """The same by what they are inside of, once there are blocks."""
        self._cells: dict[str, AddressSet] = {}
        self._classes: dict[PodClass, Identity] = {}
        self._by_word: dict[PeerTerm, dict[Identity, None]] = {}
        self._dirty: dict[AddressSet, None] = {}
        self._moved: dict[str, Identity | None] = {}
        """Address -> its identity when it first moved since the last `settle`."""
        self._handed: dict[str, None] = {}
        """Addresses that went to another namespace since: an address carries it too."""

    # Questions

    def meant_by(self, words: Iterable[PeerTerm]) -> Iterable[Identity]:
        """The identities that some of these words mean."""
        return dict.fromkeys(i for word in words for i in self._by_word.get(word, ()))

    def holding(self, net: Net) -> Lists:
        """The lists in use with a block that holds a block or an address."""
        return self._blocks.holding(net)

    def identity(self, address: str) -> Identity | None:
        """The owner of an address."""
        cell = self._cells.get(address)
        return cell.identity if cell is not None else None

    def is_empty(self, namespace: str) -> bool:
        """Whether no pod of the pod network is in a namespace."""
        return not self._places[namespace].kinds

    def names(self) -> Mapping[str, int]:
        """The numbers of all identities, by what they mean."""
        return {name_of_class(pods): i.number for pods, i in self._classes.items()}

    # Changes

    def set_home(self, home: NamespaceFacts) -> None:
        """The facts about a namespace have changed."""
        place = self._places.get(home.name)
        if place is None:
            place = self._places[home.name] = _Place(home)
        elif place.home == home and place.home.labels == home.labels:
            return
        else:
            self._unlist(place.home)
        place.home = home
        for label in home.labels.items():
            self._by_label.setdefault(label, {})[home.name] = None
        for selector in place.selectors:
            self._selectors[selector].pop(home.name, None)
        place.selectors = {}
        for selector in (*self._unbound, *self._bound.get(home.name, ())):
            if selector.selects_namespace(home.name, home.labels):
                place.selectors[selector] = None
                self._selectors[selector][home.name] = None
        for kind in place.kinds.values():
            kind.selectors = _selecting(place.selectors, kind.labels, kind.account)
            self._dirty.update(dict.fromkeys(kind.cells.values()))

    def drop_home(self, name: str) -> None:
        """The namespace is gone, and no pod is left in it."""
        place = self._places[name]
        if place.kinds:
            raise ValueError(f"namespace {name} still has pods")
        self._unlist(place.home)
        for selector in place.selectors:
            self._selectors[selector].pop(name, None)
        del self._places[name]

    def _unlist(self, home: NamespaceFacts) -> None:
        for label in home.labels.items():
            names = self._by_label[label]
            del names[home.name]
            if not names:
                del self._by_label[label]

    def set_words(self, added: Iterable[PeerTerm], removed: Iterable[PeerTerm]) -> None:
        """Words came into use or went out of it; for lists of blocks there is `reach`."""
        for word in removed:
            if isinstance(word, PeerSelector):
                self._remove_selector(word)
            elif isinstance(word, PortName):
                del self._port_names[word]
                self._declaring(word)
        for word in added:
            if isinstance(word, PeerSelector):
                self._add_selector(word)
            elif isinstance(word, PortName):
                self._port_names[word] = None
                self._declaring(word)

    def reach(self, counts: Mapping[BlockList, int]) -> Iterable[BlockList]:
        """So many of the blocks of these lists count now; the lists for which that is new."""
        moved: list[IPBlock] = []
        found: list[BlockList] = []
        for blocks, count in counts.items():
            if part := self._blocks.reach(blocks, count):
                found.append(blocks)
                moved += () if blocks.outside else part
        if moved:
            self._replace_within(moved)
        return found

    def add_pod(self, pod: Pod) -> None:
        """A pod exists; one without an address on the pod network is no peer."""
        if pod.key not in self._order:
            self._latest += 1
            self._order[pod.key] = self._latest
        for address in _addresses(pod):
            owner = self.owners.get(address)
            if owner is None:
                self._own(address, pod)
            elif self._precedes(owner, pod):
                self._rivals.setdefault(address, []).append(owner)
                self._own(address, pod)
            else:
                self._rivals.setdefault(address, []).append(pod)

    def remove_pod(self, pod: Pod, *, forever: bool = True) -> None:
        """The pod is gone; the next claimant of its addresses gets them."""
        if forever:
            self._order.pop(pod.key, None)
        for address in _addresses(pod):
            rivals = self._rivals.get(address, [])
            if self.owners[address].key != pod.key:
                rivals[:] = [rival for rival in rivals if rival.key != pod.key]
            else:
                heir = max(rivals, key=self._claim, default=None)
                if heir is None:
                    del self.owners[address]
                    self._leave(address)
                else:
                    rivals.remove(heir)
                    self._own(address, heir)
            if not rivals:
                self._rivals.pop(address, None)

    def reorder(self, keys: Iterable[str]) -> None:
        """The order in which the pods were given: the later one wins an address, all else equal."""
        self._order = {key: place for place, key in enumerate(keys, start=1)}
        self._latest = len(self._order)
        for address, rivals in self._rivals.items():
            owner = self.owners[address]
            best = max((owner, *rivals), key=self._claim)
            if best is not owner:
                rivals.remove(best)
                rivals.append(owner)
                self._own(address, best)

    def settle(self, changed: frozenset[PeerTerm]) -> Settled:
        """Give every changed cell its class; `changed`: words that came or went since the last."""
        settled = Settled()
        joining: dict[PodClass, list[AddressSet]] = {}
        emptied: dict[PodClass, list[Identity]] = {}
        left: dict[Identity, None] = {}
        for cell in self._dirty:
            pods = self._class_of(cell) if cell.addresses else None
            old = cell.identity
            if old is not None and old.pods != pods:
                del old.cells[cell]
                left[old] = None
            if pods is not None and (old is None or old.pods != pods):
                joining.setdefault(pods, []).append(cell)
            if pods is None:
                self._discard(cell)
        self._dirty = {}
        for leaving in left:
            if not leaving.cells:
                del self._classes[leaving.pods]
                emptied.setdefault(leaving.pods.without(changed), []).append(leaving)
        for pods, cells in joining.items():
            self._join(pods, cells, emptied.get(pods.without(changed)), settled)
        for gone in (i for remaining in emptied.values() for i in remaining):
            self._unindex(gone)
            settled.removed.append(gone)
        for address, before in self._moved.items():
            now = self._cells.get(address)
            identity = now.identity if now is not None else None
            if identity is not before or now is None or address in self._handed:
                settled.addresses[address] = identity
        self._moved, self._handed = {}, {}
        return settled

    # Inside

    def _join(
        self,
        pods: PodClass,
        cells: list[AddressSet],
        emptied: list[Identity] | None,
        settled: Settled,
    ) -> None:
        identity = self._classes.get(pods)
        if identity is None and emptied:
            leavers = {cell.identity for cell in cells}
            identity = next((i for i in emptied if i in leavers), None)
            if identity is not None:
                emptied.remove(identity)
                self._unindex(identity)
                identity.pods = pods
                self._index(identity)
        if identity is None:
            number = self._numbers.again(lambda: name_of_class(pods))
            identity = Identity(number, pods)
            self._index(identity)
            settled.added.append(identity)
        for cell in cells:
            if cell.identity is not identity:
                for address in cell.addresses:
                    self._moved.setdefault(address, cell.identity)
            cell.identity = identity
            identity.cells[cell] = None

    def _index(self, identity: Identity) -> None:
        self._classes[identity.pods] = identity
        for word in identity.pods.words:
            self._by_word.setdefault(word, {})[identity] = None

    def _unindex(self, identity: Identity) -> None:
        for word in identity.pods.words:
            meant = self._by_word[word]
            meant.pop(identity, None)
            if not meant:
                del self._by_word[word]

    def _class_of(self, cell: AddressSet) -> PodClass:
        namespace, _, ports, _ = cell.kind.key
        home = self._places[namespace].home
        named = (
            (name.name, name.protocol, named_port(ports, name.name, name.protocol))
            for name in self._port_names
        )
        return PodClass(
            home.tenant,
            namespace if home.quarantined else "",
            home.shared,
            cell.kind.selectors,
            cell.lists,
            tuple(sorted((n, proto, port) for n, proto, port in named if port is not None))
            if ports
            else (),
        )

    def _own(self, address: str, pod: Pod) -> None:
        self.owners[address] = pod
        kind = self._kind(pod)
        net = self._nets.get(address)
        if net is None:
            net = self._nets[address] = Net.of(address)
            if self._net_index is not None:
                self._net_index.add(net, address)
        self._put(address, kind, self._holding_pods(net))

    def _holding_pods(self, net: Net) -> Lists:
        """The lists with a block that holds a pod's address, and do mean pods."""
        found = self._blocks.holding(net)
        if not any(blocks.outside for blocks in found):
            return found
        return frozenset(blocks for blocks in found if not blocks.outside)

    def _put(self, address: str, kind: PodShape, lists: Lists) -> None:
        cell = kind.cells.get(lists)
        if cell is None:
            cell = kind.cells[lists] = AddressSet(kind, lists)
        old = self._cells.get(address)
        if old is cell:
            return
        self._moved.setdefault(address, old.identity if old is not None else None)
        if old is not None:
            del old.addresses[address]
            self._dirty[old] = None
            if old.kind.key[0] != kind.key[0]:
                self._handed[address] = None
        cell.addresses[address] = None
        self._cells[address] = cell
        self._dirty[cell] = None

    def _leave(self, address: str) -> None:
        cell = self._cells.pop(address)
        net = self._nets.pop(address)
        if self._net_index is not None:
            self._net_index.remove(net)
        self._moved.setdefault(address, cell.identity)
        del cell.addresses[address]
        self._dirty[cell] = None

    def _kind(self, pod: Pod) -> PodShape:
        ports = tuple(port for port in pod.ports if port.name)
        account = pod.service_account
        key = (pod.namespace, tuple(sorted(pod.labels.items())), ports, account)
        place = self._places[pod.namespace]
        kind = place.kinds.get(key)
        if kind is None:
            kind = place.kinds[key] = PodShape(
                key, pod.labels, account, _selecting(place.selectors, pod.labels, account)
            )
        return kind

    def _discard(self, cell: AddressSet) -> None:
        del cell.kind.cells[cell.lists]
        if not cell.kind.cells:
            del self._places[cell.kind.key[0]].kinds[cell.kind.key]

    def _add_selector(self, selector: PeerSelector) -> None:
        found = self._selectors[selector] = dict[str, None]()
        if selector.namespaces is None:
            self._bound.setdefault(selector.namespace, {})[selector] = None
        else:
            self._unbound[selector] = None
        for name in self._candidates(selector):
            place = self._places[name]
            if not selector.selects_namespace(name, place.home.labels):
                continue
            found[name] = None
            place.selectors[selector] = None
            for kind in place.kinds.values():
                if selector.selects_pod(kind.labels, kind.account):
                    kind.selectors |= {selector}
                    self._dirty.update(dict.fromkeys(kind.cells.values()))

    def _remove_selector(self, selector: PeerSelector) -> None:
        if selector.namespaces is None:
            del self._bound[selector.namespace][selector]
        else:
            del self._unbound[selector]
        for name in self._selectors.pop(selector):
            place = self._places[name]
            del place.selectors[selector]
            for kind in place.kinds.values():
                if selector in kind.selectors:
                    kind.selectors -= {selector}
                    self._dirty.update(dict.fromkeys(kind.cells.values()))

    def _candidates(self, selector: PeerSelector) -> Iterable[str]:
        """The namespaces that have a label which the selector cannot do without."""
        if selector.namespaces is None:
            return [selector.namespace] if selector.namespace in self._places else []
        for requirement in selector.namespaces.requirements:
            if requirement.operator is Operator.IN:
                labels = [(requirement.key, value) for value in requirement.values]
                return [n for label in labels for n in self._by_label.get(label, ())]
        return list(self._places)

    def _declaring(self, name: PortName) -> None:
        for place in self._places.values():
            for kind in place.kinds.values():
                if named_port(kind.key[2], name.name, name.protocol) is not None:
                    self._dirty.update(dict.fromkeys(kind.cells.values()))

    def _replace_within(self, blocks: Iterable[IPBlock]) -> None:
        index = self._net_index
        if index is None:
            index = self._net_index = NetIndex()
            for address, net in self._nets.items():
                index.add(net, address)
        within = (address for block in blocks for address in index.inside(Net.of(block.cidr)))
        for address in dict.fromkeys(within):
            holding = self._holding_pods(self._nets[address])
            self._put(address, self._cells[address].kind, holding)

    def _claim(self, pod: Pod) -> tuple[str, int]:
        return pod.created, self._order[pod.key]

    def _precedes(self, one: Pod, other: Pod) -> bool:
        return self._claim(one) < self._claim(other)


def _addresses(pod: Pod) -> Iterable[str]:
    return () if pod.host_network or pod.terminal else dict.fromkeys(pod.ips)


def _selecting(
    selectors: Mapping[PeerSelector, None], labels: Labels, account: str
) -> frozenset[PeerSelector]:
    return frozenset(s for s in selectors if s.selects_pod(labels, account))
