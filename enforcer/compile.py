"""Policies to map entries: what the maps of one node should hold, kept up to date by changes.

The agent tells the `Compiler` what happened (`apply`), asks for the writes (`plan`) and says when
the kernel has them (`commit`). `compile_tables` is the same from nothing: whatever the history, the
tables mean what they would mean if they had just been compiled. What may surprise: a policy group
is named by what its policies say, so a changed policy always is a new group beside the old one, to
which endpoints are switched by one write each; and a change that finds no room stays pending, the
next plan holds it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from enforcer import capacity, transition
from enforcer.calls import Calls
from enforcer.changes import (
    ConfigChange,
    InputChange,
    Inputs,
    InterfaceChange,
    NamespaceChange,
    NodesChange,
    OrderChange,
    PodChange,
    PolicyChange,
    RecordChange,
    ServiceChange,
    SliceChange,
    between,
)
from enforcer.endpoints import is_local
from enforcer.groups import EMPTY, PolicyGroup
from enforcer.identity import Registry, tenant_ids
from enforcer.ledger import Ledger
from enforcer.maps import CAPACITY, Change, Table
from enforcer.population import Population, Settled
from enforcer.prefixes import Prefixes
from enforcer.rulebook import Group, Groups, Rulebook, Turnover, blocks_of
from enforcer.tables import (
    FIRST_POD_IDENTITY,
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    PEER_CIDR,
    PEER_TENANT,
    AddressEntry,
    AddressFlag,
    EndpointEntry,
    EndpointFlag,
    Tables,
)
from enforcer.walls import Home, WallGroup, wall_flags
from generators.cluster import Cluster
from generators.isolation import is_ours
from generators.objects import Direction, EndpointSlice, IPBlock, Namespace, Node, Pod
from generators.tenants.model import TenantConfig

T = TypeVar("T")

POLICY, WALL = "policy", "wall"
"""The two groups of an endpoint."""
UNKNOWN = AddressEntry(0)
KEEP_ANNOTATION = "ringfence.io/keep-established"
"""`"true"` on a namespace or on policies: open connections outlive changes of policies."""
KEPT: Mapping[Direction, EndpointFlag] = {
    Direction.INGRESS: EndpointFlag.KEEP_INGRESS,
    Direction.EGRESS: EndpointFlag.KEEP_EGRESS,
}


def compile_tables(
    cluster: Cluster,
    node: str,
    interfaces: Mapping[str, int],
    grace: frozenset[int] = frozenset(),
) -> Tables:
    """The maps of `node`, from nothing. `interfaces`: `namespace/pod` -> ifindex of its veth."""
    compiler = Compiler(node, grace=grace)
    compiler.become(Inputs(cluster, interfaces))
    return compiler.tables()


class Compiler:
    """What one node's maps should hold; `grace`: interfaces whose pods ran before we did."""

    def __init__(
        self,
        node: str,
        registry: Registry | None = None,
        grace: frozenset[int] = frozenset(),
        limits: Mapping[Table, int] = CAPACITY,
    ) -> None:
        self.grace = grace
        self.ledger = Ledger()
        self._node = node
        self._limits = limits
        self._registry = registry or Registry()
        self._inputs = Inputs(Cluster(pod_cidrs=()), {})
        self._namespaces: dict[str, Namespace] = {}
        self._record: dict[str, str] = {}
        self._config: TenantConfig | None = None
        self._pods: dict[str, Pod] = {}
        self._by_namespace: dict[str, dict[str, None]] = {}
        """Local pods by namespace."""
        self._everybody: dict[str, dict[str, None]] = {}
        """All pods by namespace."""
        self._interfaces: dict[str, int] = {}
        self._homes: dict[str, Home] = {}
        self._nodes: dict[str, AddressEntry] = {}
        self._pod_cidrs: tuple[str, ...] = ()
        self._tenant_ids: Mapping[str, int] = {}
        self._rulebook = Rulebook()
        self._groups = Groups(self._registry.groups)
        self._population = Population(self._registry.identities)
        self._prefixes = Prefixes(self._population.holding, self._registry.cidrs)
        self._calls = Calls(self._pods_of)
        self._slices: dict[str, EndpointSlice] = {}
        self._placed: dict[str, int] = {}
        """Local pod -> the interface that its endpoint is filed under."""
        self._rejudge_all = False

    # What happened

    def become(self, inputs: Inputs) -> None:
        """Whatever turns the last inputs given here into these; takes time to compare them."""
        changes = tuple(between(self._inputs, inputs))
        self._inputs = inputs
        self.apply(changes)

    def apply(self, changes: Iterable[InputChange]) -> None:
        """Take changes in; all of them count as one."""
        batch = _Batch()
        # Namespaces first: whether one terminates decides what becomes of its policies.
        for change in sorted(changes, key=lambda c: isinstance(c, PolicyChange)):
            self._take(change, batch)
        self._name_tenants(batch)
        self._move_homes(batch)
        self._release(batch)
        for key in batch.local:
            self._place(key)
        turnover = self._groups.turnover()
        self._population.set_words(turnover.new_words, turnover.old_words)
        self._move_pods(batch)
        words = frozenset((*turnover.new_words, *turnover.old_words))
        settled = self._population.settle(words)
        self._fill(turnover, settled)
        self._write_addresses(settled, batch)
        self._forget_homes(batch)

    # What is to be written

    def plan(self) -> tuple[Change, ...]:
        """The writes that bring all of it into force, in order; MapOverflow if there is no room."""
        for number in transition.conflicts(self.ledger):
            self._renumber(number)
        self._stamp()
        writes = transition.writes(self.ledger, self._registry.identities.fresh)
        capacity.refuse_overflow(self.ledger, writes, self._shares, self._limits)
        return writes

    def leaving(self) -> frozenset[int]:
        """Ids of endpoints that the plan removes."""
        changed = self.ledger.endpoints.changed().values()
        gone = {old.endpoint for old, _ in changed if old is not None}
        return frozenset(gone - {new.endpoint for _, new in changed if new is not None})

    def commit(self) -> None:
        """The last plan is in force."""
        self.ledger.commit()
        self._rejudge_all = False

    def resync(self, kernel: Tables) -> None:
        """Learn what is in force: at the start, and after a write that failed."""
        self.ledger.resync(kernel)

    def tables(self) -> Tables:
        """All of it as one value."""
        ledger, groups = self.ledger, sorted(self._groups.by_number.items())
        places = sorted(ledger.buckets.now.items())
        return Tables(
            endpoints=dict(sorted(ledger.endpoints.now.items())),
            addresses=dict(ledger.addresses.now),
            policy={k: r for (g, p), b in places for k, r in sorted(b.policy_entries(g, p))},
            ranges={k: r for (g, p), b in places for k, r in sorted(b.range_entries(g, p))},
            cidrs=dict(sorted(ledger.cidrs.now.items())),
            services=dict(sorted(ledger.services.now.items())),
            rules={number: str(name) for name, number in self._registry.rules.known.items()},
            isolating={
                (number, direction): policies
                for number, group in groups
                for direction, policies in group.definition.isolating.items()
            },
            walls={n: group.definition.wall for n, group in groups if group.definition.wall},
            tenants={number: name for name, number in self._tenant_ids.items()},
        )

    # Inputs

    def _take(self, change: InputChange, batch: _Batch) -> None:
        """Note one change, and what has to be looked at because of it."""
        match change:
            case PodChange(key, pod):
                self._take_pod(key, pod, batch)
            case PolicyChange(key, None):
                namespace = self._namespaces.get(key.partition("/")[0])
                hold = namespace is not None and namespace.terminating
                self._rulebook.remove(key, hold=hold)
                batch.look_at(self._by_namespace.get(key.partition("/")[0], ()))
            case PolicyChange(_, policy) if policy is not None:
                self._rulebook.put(policy)
                batch.look_at(self._by_namespace.get(policy.namespace, ()))
            case NamespaceChange(name, namespace):
                _put(self._namespaces, name, namespace)
                batch.look_at(self._by_namespace.get(name, ()))
                batch.homes[name] = None
            case ServiceChange(key, service):
                self._calls.put_service(key, service)
            case SliceChange(key, found):
                self._calls.put_slice(key, found, self._slices.get(key))
                _put(self._slices, key, found)
            case RecordChange(name, tenant):
                _put(self._record, name, tenant)
                batch.homes[name] = None
                batch.tenants = True
            case ConfigChange(config):
                self._config = config
                batch.tenants = True
                batch.homes.update(dict.fromkeys(self._homes))
                batch.look_at(self._interfaces)
            case NodesChange(nodes, pod_cidrs):
                batch.nodes = nodes
                if pod_cidrs != self._pod_cidrs:
                    self._rejudge_all = self._rejudge_all or bool(self._pods)
                    self._pod_cidrs = pod_cidrs
            case InterfaceChange(key, ifindex):
                _put(self._interfaces, key, ifindex)
                batch.local[key] = None
            case OrderChange(pods):
                batch.order = pods

    def _take_pod(self, key: str, pod: Pod | None, batch: _Batch) -> None:
        old = self._pods.get(key)
        batch.pods.setdefault(key, old)
        _put(self._pods, key, pod)
        namespace = key.partition("/")[0]
        _list(self._everybody, namespace, key, listed=pod is not None)
        here = pod is not None and is_local(pod, self._node)
        _list(self._by_namespace, namespace, key, listed=here)
        self._calls.touch_namespace(namespace)
        if namespace not in self._homes:
            batch.homes[namespace] = None
        if any(p is not None and is_local(p, self._node) for p in (old, pod)):
            batch.local[key] = None

    def _pods_of(self, namespace: str) -> Iterable[Pod]:
        return (self._pods[key] for key in self._everybody.get(namespace, ()))

    def _name_tenants(self, batch: _Batch) -> None:
        """Numbers for the tenants; a hash that two names share may change one, however rarely."""
        if not batch.tenants:
            return
        known = self._config.tenants if self._config is not None else ()
        numbers = tenant_ids([*self._record.values(), *known])
        renamed = any(numbers.get(n, number) != number for n, number in self._tenant_ids.items())
        batch.all_addresses = batch.all_addresses or renamed
        self._tenant_ids = numbers
        # A wall names the tenants that it lets in by their numbers.
        batch.look_at(self._interfaces)

    def _move_homes(self, batch: _Batch) -> None:
        for name in batch.homes:
            namespace, tenant = self._namespaces.get(name), self._record.get(name)
            home = Home.of(name, namespace, tenant, self._config)
            if self._homes.get(name) == home:
                continue
            self._homes[name] = home
            self._population.set_home(home)
            batch.look_at(self._by_namespace.get(name, ()))

    def _release(self, batch: _Batch) -> None:
        """Policies that were kept for pods which are gone now."""
        for name in self._rulebook.holding():
            namespace = self._namespaces.get(name)
            if namespace is None or not namespace.terminating or name not in self._by_namespace:
                self._rulebook.release(name)
                batch.look_at(self._by_namespace.get(name, ()))

    def _move_pods(self, batch: _Batch) -> None:
        for key, old in batch.pods.items():
            new = self._pods.get(key)
            if _as_peer(old) == _as_peer(new):
                continue
            if old is not None:
                self._population.remove_pod(old, forever=new is None)
            if new is not None:
                self._population.add_pod(new)
        if batch.order is not None:
            self._population.reorder(batch.order)

    def _forget_homes(self, batch: _Batch) -> None:
        """Namespaces that are gone and empty."""
        touched = dict.fromkeys((*batch.homes, *(k.partition("/")[0] for k in batch.pods)))
        for name in touched:
            if name in self._namespaces or name in self._record or name not in self._homes:
                continue
            if self._population.is_empty(name):
                self._population.drop_home(name)
                del self._homes[name]

    # Outputs

    def _place(self, key: str) -> None:
        """The endpoint of a pod of this node, and the groups that hold for it."""
        pod, ifindex = self._pods.get(key), self._interfaces.get(key)
        placed = self._placed.pop(key, None)
        if placed is not None and placed != ifindex and placed not in self._placed.values():
            self.ledger.endpoints.put(placed, None)
        if pod is None or ifindex is None or not is_local(pod, self._node):
            self._groups.leave(key, POLICY)
            self._groups.leave(key, WALL)
            if placed is not None and placed not in self._placed.values():
                self.ledger.endpoints.put(placed, None)
            return
        self._placed[key] = ifindex
        policy, wall = self._policy_of(pod), self._wall_of(pod)
        home = self._homes[pod.namespace]
        flags = EndpointFlag.READY | wall_flags(home, self._config)
        for group in (policy, wall):
            flags |= group.definition.needs if group is not None else EndpointFlag(0)
        flags |= self._kept(pod)
        if ifindex in self.grace:
            flags |= EndpointFlag.GRACE
        ip4 = tuple(a for a in pod.ips if ":" not in a)
        ip6 = tuple(a for a in pod.ips if ":" in a)
        before = self.ledger.endpoints.now.get(ifindex)
        entry = EndpointEntry(
            endpoint=self._registry.endpoints.of((ifindex, ip4, ip6)),
            group=policy.number if policy is not None else 0,
            wall=wall.number if wall is not None else 0,
            tenant=self._tenant_ids.get(home.tenant, 0),
            generation=before.generation if before is not None else 1,
            flags=flags,
            ip4=ip4,
            ip6=ip6,
        )
        self.ledger.endpoints.put(ifindex, entry)

    def _kept(self, pod: Pod) -> EndpointFlag:
        """In which directions the pod keeps open connections, whatever policies change.

        Its namespace says so, or all policies of users that isolate it do.
        """
        flags = EndpointFlag(0)
        namespace = self._namespaces.get(pod.namespace)
        everything = namespace is not None and _wants_to_keep(namespace.annotations)
        isolation = self._rulebook.isolation(pod)
        for direction, flag in KEPT.items():
            users = [p for p in isolation.of(direction) if not is_ours(p.labels)]
            if everything or (users and all(_wants_to_keep(p.annotations) for p in users)):
                flags |= flag
        return flags

    def _policy_of(self, pod: Pod) -> Group | None:
        isolation = self._rulebook.isolation(pod)
        if not (isolation.ingress or isolation.egress):
            self._groups.leave(pod.key, POLICY)
            return None
        key = self._rulebook.meaning(isolation, pod)
        number = self._registry.rules.of
        return self._groups.enter(
            pod.key, POLICY, key, lambda: PolicyGroup(key, isolation, pod.ports, number)
        )

    def _wall_of(self, pod: Pod) -> Group | None:
        home, config = self._homes[pod.namespace], self._config
        if config is None or EndpointFlag.WALL not in wall_flags(home, config):
            self._groups.leave(pod.key, WALL)
            return None
        wall = WallGroup(home, config, self._tenant_ids, self._registry.rules.of)
        return self._groups.enter(pod.key, WALL, wall.key, lambda: wall)

    def _fill(self, turnover: Turnover, settled: Settled) -> None:
        """The entries of groups, for peers and groups that came or went."""
        put = self.ledger.put_bucket
        fresh = dict.fromkeys(turnover.added)
        for group in turnover.removed:
            for peer in tuple(self.ledger.peers_of.get(group.number, ())):
                put(group.number, peer, EMPTY)
        for gone in settled.removed:
            for number in tuple(self.ledger.groups_of.get(gone.number, ())):
                put(number, gone.number, EMPTY)
        for identity in settled.added:
            for group in self._groups.using(identity.pods.words):
                put(group.number, identity.number, group.definition.for_pods(identity.pods))
        for prefix, cidr in self._cut(turnover):
            for group in self._groups.using(self._prefixes.held(prefix)):
                if group not in fresh:
                    held = self._prefixes.held(prefix)
                    put(group.number, PEER_CIDR | cidr, group.definition.for_block(held))
        for group in fresh:
            self._fill_group(group)

    def _cut(self, turnover: Turnover) -> Iterable[tuple[str, int]]:
        """Bring prefixes up to date; those that are new, with their ids."""
        trimmed = self._prefixes.change(
            (word for word in turnover.new_words if isinstance(word, IPBlock)),
            (word for word in turnover.old_words if isinstance(word, IPBlock)),
            self._pod_cidrs,
        )
        for cidr in trimmed.removed.values():
            for number in tuple(self.ledger.groups_of.get(PEER_CIDR | cidr, ())):
                self.ledger.put_bucket(number, PEER_CIDR | cidr, EMPTY)
        if trimmed.added or trimmed.removed or trimmed.reflagged:
            entries = self._prefixes.entries()
            for prefix in (*entries, *trimmed.removed):
                self.ledger.cidrs.put(prefix, entries.get(prefix))
        return [(prefix, self._prefixes.cidr(prefix)) for prefix in trimmed.added]

    def _fill_group(self, group: Group) -> None:
        put, definition = self.ledger.put_bucket, group.definition
        for peer, bucket in definition.fixed().items():
            put(group.number, peer, bucket)
        for identity in self._population.meant_by(definition.words):
            put(group.number, identity.number, definition.for_pods(identity.pods))
        blocks = frozenset(word for word in definition.words if isinstance(word, IPBlock))
        for prefix in self._prefixes.within(blocks):
            peer = PEER_CIDR | self._prefixes.cidr(prefix)
            put(group.number, peer, definition.for_block(self._prefixes.held(prefix)))

    def _write_addresses(self, settled: Settled, batch: _Batch) -> None:
        changed: dict[str, None] = dict.fromkeys(settled.addresses)
        if batch.nodes is not None:
            before, self._nodes = self._nodes, _node_addresses(batch.nodes, self._node)
            changed.update(dict.fromkeys((*before, *self._nodes)))
        if batch.all_addresses:
            changed.update(dict.fromkeys(self._population.owners))
        for address in changed:
            self.ledger.addresses.put(address, self._entry(address))
            self._calls.touch_address(address)
        for key in self._calls.refresh():
            self.ledger.services.put(key, self._calls.entry(key, self.ledger.addresses.now))

    def _entry(self, address: str) -> AddressEntry | None:
        """Who an address is; a node's own address is never a pod's."""
        node = self._nodes.get(address)
        if node is not None:
            return node
        identity = self._population.identity(address)
        if identity is None:
            return None
        return AddressEntry(
            identity.number,
            self._tenant_ids.get(identity.pods.tenant, 0),
            AddressFlag.QUARANTINE if identity.pods.quarantine else AddressFlag(0),
        )

    # Before a plan

    def _renumber(self, number: int) -> None:
        """A new number for a group, so that who had it and who gets it are judged apart."""
        peers = tuple(self.ledger.peers_of.get(number, ()))
        group = self._groups.renumber(number)
        for peer in peers:
            bucket = self.ledger.buckets.now[number, peer]
            self.ledger.put_bucket(number, peer, EMPTY)
            self.ledger.put_bucket(group.number, peer, bucket)
        for key in group.users:
            ifindex = self._interfaces[key]
            entry = self.ledger.endpoints.now[ifindex]
            if entry.group == number:
                entry = replace(entry, group=group.number)
            if entry.wall == number:
                entry = replace(entry, wall=group.number)
            self.ledger.endpoints.put(ifindex, entry)

    def _stamp(self) -> None:
        """Generations: the next one where connections have to be judged again."""
        endpoints = self.ledger.endpoints
        again = self._rejudged()
        for ifindex in dict.fromkeys((*endpoints.was, *again)):
            old, new = endpoints.in_force(ifindex), endpoints.now.get(ifindex)
            if new is None:
                continue
            generation = 1
            if old is not None and old.endpoint == new.endpoint:
                same = replace(new, generation=old.generation) == old and ifindex not in again
                generation = old.generation if same else old.generation + 1
            endpoints.put(ifindex, replace(new, generation=generation))

    def _rejudged(self) -> dict[int, None]:
        """Endpoints that may have let in, or let out to, somebody who is somebody else now."""
        changed = self.ledger.addresses.changed().values()
        pairs = dict.fromkeys((old, new or UNKNOWN) for old, new in changed if old is not None)
        special = any(old.identity < FIRST_POD_IDENTITY for old, _ in pairs)
        if self._rejudge_all or special:
            return dict.fromkeys(self.ledger.endpoints.now)
        if not pairs:
            return {}
        groups_was: dict[int, dict[int, None]] = {}
        for group, peer in self.ledger.buckets.was:
            groups_was.setdefault(peer, {})[group] = None
        found: dict[int, None] = {}
        for old, new in pairs:
            for peer in _peers(old):
                for number in (*self.ledger.groups_of.get(peer, ()), *groups_was.get(peer, ())):
                    using = self._groups.by_number.get(number)
                    if using is not None and self._loses(number, old, new):
                        found.update(dict.fromkeys(self._interfaces[k] for k in using.users))
        return found

    def _loses(self, group: int, old: AddressEntry, new: AddressEntry) -> bool:
        """Whether a group opens less to who an address is now."""
        opened, open_now = EMPTY, EMPTY
        for peer in _peers(old):
            opened = opened | (self.ledger.buckets.in_force((group, peer)) or EMPTY)
        for peer in _peers(new):
            open_now = open_now | self.ledger.buckets.now.get((group, peer), EMPTY)
        return not open_now.opens_all_of(opened)

    def _shares(self, table: Table) -> Counter[str]:
        """How many entries of a map each policy needs."""
        found: Counter[str] = Counter()
        if table is Table.CIDRS:
            return blocks_of(self._rulebook.in_use(self._pods[key] for key in self._placed))
        if table not in (Table.POLICY, Table.RANGES):
            return found
        names = {number: str(name) for name, number in self._registry.rules.known.items()}
        for bucket in self.ledger.buckets.now.values():
            rules = bucket.policy if table is Table.POLICY else bucket.ranges
            found.update(names.get(rule, "").partition("#")[0] for rule in rules.values())
        return found


@dataclass(slots=True)
class _Batch:
    """What has to be looked at because of some changes."""

    local: dict[str, None] = field(default_factory=dict)
    homes: dict[str, None] = field(default_factory=dict)
    pods: dict[str, Pod | None] = field(default_factory=dict)
    """Pods that changed, as they were before."""
    nodes: tuple[Node, ...] | None = None
    order: tuple[str, ...] | None = None
    tenants: bool = False
    all_addresses: bool = False

    def look_at(self, pods: Iterable[str]) -> None:
        """These local pods may be judged by other groups."""
        self.local.update(dict.fromkeys(pods))


def _put(values: dict[str, T], key: str, value: T | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def _list(index: dict[str, dict[str, None]], namespace: str, key: str, *, listed: bool) -> None:
    if listed:
        index.setdefault(namespace, {})[key] = None
    elif namespace in index:
        index[namespace].pop(key, None)
        if not index[namespace]:
            del index[namespace]


def _wants_to_keep(annotations: Mapping[str, str]) -> bool:
    return annotations.get(KEEP_ANNOTATION) == "true"


def _as_peer(pod: Pod | None) -> object:
    """All that others can tell of a pod."""
    if pod is None or pod.host_network or pod.terminal:
        return None
    return pod.labels, pod.ips, pod.ports, pod.created


def _peers(entry: AddressEntry) -> tuple[int, ...]:
    return (entry.identity, PEER_TENANT | entry.tenant) if entry.tenant else (entry.identity,)


def _node_addresses(nodes: Iterable[Node], own: str) -> dict[str, AddressEntry]:
    """An address that two nodes claim is this node's, if it is one of them."""
    found: dict[str, AddressEntry] = {}
    for node in sorted(nodes, key=lambda n: n.name == own):
        identity = IDENTITY_HOST if node.name == own else IDENTITY_REMOTE_NODE
        found.update(dict.fromkeys(node.ips, AddressEntry(identity)))
    return found
