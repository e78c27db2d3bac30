"""Policies to map entries: what the maps of one node should hold, kept up to date by changes.

The agent passes changes to the `Compiler` (`apply`), asks for the writes (`plan`) and confirms them
once the kernel has them (`commit`). `compile_tables` is the same from nothing: whatever the
history, the tables mean what they would mean if they had just been compiled. A policy group is
named by the content of its policies, so a changed policy always is a new group beside the old one,
to which endpoints are switched by one write each; and what finds no room is closed, for its owner
alone: policies by `Allotment`, addresses, endpoints and Services by `Rooms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.compiler.addressing import Addressing
from enforcer.compiler.allotment import Allotment
from enforcer.compiler.batch import Batch, as_peer, keep_listed, put
from enforcer.compiler.entries import GroupEntries
from enforcer.compiler.homes import Moved, Tenancy
from enforcer.compiler.placement import Known, Placement
from enforcer.compiler.references import References
from enforcer.compiler.rule_sets import RuleSets
from enforcer.compiler.trials import Trials
from enforcer.compiler.views import ExactEntries, InForce, Live, Nested, RangeEntries
from enforcer.policy.changes import (
    ArrivalChange,
    BlocksChange,
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
    ShortcutChange,
    SliceChange,
    between,
    is_local,
)
from enforcer.policy.identity import Registry
from enforcer.policy.modes import StartMode
from enforcer.policy.peers import Population
from enforcer.policy.prefixes import Tries
from enforcer.policy.rulebook import WHOLE_CLUSTER, GroupNames, Groups, Rulebook, RuleNames
from enforcer.policy.services import Calls, Serving
from enforcer.policy.tables import CAPACITY, RULE_NUMBER, CidrFlag, MapWrite, Table, Tables
from enforcer.writes import capacity, generations, tight, transition
from enforcer.writes.budgets import RoomUsage
from enforcer.writes.pending import PendingTables
from enforcer.writes.rooms import Rooms
from generators.cluster import Cluster
from generators.objects import EndpointSlice, Namespace, NetworkPolicy, Node, Pod, namespace_of
from generators.selectors import selects

RULES_KEPT = 8192
"""So many rules keep their numbers, whether they are in use or not."""


def compile_tables(
    cluster: Cluster,
    node: str,
    interfaces: Mapping[str, int],
    grace: frozenset[int] = frozenset(),
    limits: Mapping[Table, int] = CAPACITY,
) -> Tables:
    """The maps of `node`, from nothing. `interfaces`: `namespace/pod` -> ifindex of its veth."""
    compiler = Compiler(node, grace=grace, limits=limits)
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
        start_mode: StartMode = StartMode.STRICT,
    ) -> None:
        self.ledger = PendingTables()
        self.known = Known(node, grace, start_mode)
        self._limits = limits
        self.registry = registry or Registry()
        self._inputs = Inputs(Cluster(pod_cidrs=()), {})
        self._by_namespace: dict[str, dict[str, None]] = {}
        """Local pods by namespace."""
        self._everybody: dict[str, dict[str, None]] = {}
        """All pods by namespace."""
        self._all_nodes: tuple[Node, ...] = ()
        self._pod_cidrs: tuple[str, ...] = ()
        self._crowded: tuple[str, ...] = ()
        self._rulebook = Rulebook()
        self._references = References()
        self._groups = Groups(self.registry.groups)
        self._population = Population(self.registry.identities)
        self._tenancy = Tenancy(self.known, self._population)
        self._trials = Trials(self.known, self._rulebook)
        self.tries = Tries(self._population.holding, self.registry.cidrs)
        ceiling = limits[Table.POLICY] + limits[Table.RANGES]
        self._filling = GroupEntries(
            self.ledger, self._groups, self._population, self.tries, ceiling
        )
        self._calls = Calls(self._pods_of)
        self._slices: dict[str, EndpointSlice] = {}
        self.rooms = Rooms(limits)
        self._placement = Placement(
            self.known,
            self._rulebook,
            self._groups,
            self.registry,
            self.ledger,
            self.rooms.endpoints,
        )
        self._addressing = Addressing(
            self.known,
            self._population,
            self._groups,
            self._calls,
            self.rooms,
            self.ledger,
            self._placement.placed,
        )
        self._names = GroupNames()
        rules = RuleNames(self.registry.rules)
        self.allotment = Allotment(
            self.known, self._rulebook, self.ledger, self._names, rules, limits
        )
        self.rule_sets = RuleSets(self._groups, self.registry, self.known.tenants.ids)
        self._rules_worth_a_look = RULES_KEPT
        self._rejudge_all = False

    # What happened

    def become(self, inputs: Inputs) -> None:
        """Whatever turns the last inputs given here into these; takes time to compare them."""
        changes = tuple(between(self._inputs, inputs))
        self._inputs = inputs
        self.apply(changes)

    def apply(self, changes: Iterable[InputChange]) -> None:
        """Take changes in; all of them count as one."""
        batch = Batch(calm=not self.pending)
        # Namespaces first: whether one terminates decides what becomes of its policies.
        for change in sorted(changes, key=lambda c: isinstance(c, PolicyChange)):
            self._take(change, batch)
        for policy in self._references.settle(self._calls.services(), self._slices.values()):
            self._rulebook.put(policy)
            self._look_at_subjects(policy.namespace, batch)
        moved = self._tenancy.settle()
        self._follow(moved, batch)
        self._look_at(self._trials.follow(moved.touched), batch)
        self._release(batch)
        touched = dict.fromkeys(map(_namespace_of, batch.local))
        self._look_at(self.allotment.look(touched, self._by_namespace), batch)
        self.rooms.resize(self.allotment.shares, len(self._addressing.nodes))
        self._bring(batch)
        self._tighten()
        crowded = self._addressing.crowded(self._pod_cidrs)
        if crowded != self._crowded:
            self._rejudge_all = self._rejudge_all or bool(self.known.pods)
            self._crowded = crowded
            self._bring(Batch())
            self._tighten()
        self._tenancy.forget(dict.fromkeys((*moved.touched, *map(_namespace_of, batch.pods))))

    def reconsider(self) -> None:
        """See whether refused policies would find room by now: takes as long as compiling them."""
        self.allotment.forget()
        self.apply(())

    def _tighten(self) -> None:
        while closed := self.allotment.tighten():
            more = Batch()
            self._look_at(closed, more)
            self._bring(more)

    def _bring(self, batch: Batch) -> None:
        """Have the tables say what the inputs do, as far as the batch concerns them."""
        for key in batch.local:
            self._placement.place(key, anew=key in batch.anew)
        while moved := self._placement.moved():
            for key in moved:
                self._placement.place(key)
        self._addressing.touch_places(batch.local)
        turnover = self._groups.turnover()
        self._names.follow(turnover)
        for change in batch.blocks:
            self.tries.hold(change.trie, change.blocks, change.count)
        self._population.set_words(turnover.new_words, turnover.old_words)
        lists = self._population.reach(self.tries.follow(turnover))
        self._move_pods(batch)
        words = frozenset((*turnover.new_words, *turnover.old_words, *lists))
        settled = self._population.settle(words)
        ranges = dict.fromkeys(self._crowded, CidrFlag.CROWDED)
        ranges.update(dict.fromkeys(self._pod_cidrs, CidrFlag.IN_CLUSTER))
        self._filling.follow(turnover, settled, ranges, calm=batch.calm)
        self._addressing.write(settled, turnover)

    # What is to be written

    def plan(self) -> tuple[MapWrite, ...]:
        """The writes that bring all of it into force, in order; MapOverflow if there is no room."""
        ledger, groups, placed = self.ledger, self._groups, self._placement.placed
        for number in transition.conflicts(ledger):
            self._names.put(generations.renumber(ledger, groups, placed, number))
            self._names.drop(number)
        fresh = self.registry.generations.fresh
        generations.stamp(ledger, groups, placed, fresh, everybody=self._rejudge_all)
        registry = self.registry
        writes = transition.writes(ledger, registry.identities.fresh, registry.cidrs.fresh)
        if not capacity.overflows(ledger, writes, self._limits):
            return writes
        if self.tries.held:
            # What is only ready, or not yet gone, is in nobody's way.
            self.apply([BlocksChange(*place, 0) for place in self.tries.held])
            return self.plan()
        return tight.fitting(ledger, self._limits)

    def urgent(self) -> tuple[MapWrite, ...]:
        """Writes that never wait for the rest: removals, and owners of addresses."""
        return tight.urgent(self.ledger)

    @property
    def pending(self) -> bool:
        """Whether something is wanted that is not in force yet."""
        ledger = self.ledger
        layers = (ledger.endpoints, ledger.addresses, ledger.cidrs, ledger.services, ledger.buckets)
        return any(layer.was for layer in layers)

    def leaving(self) -> frozenset[int]:
        """Ids of endpoints that the plan removes."""
        changed = self.ledger.endpoints.changed().values()
        gone = {old.endpoint for old, _ in changed if old is not None}
        return frozenset(gone - {new.endpoint for _, new in changed if new is not None})

    def commit(self) -> None:
        """The last plan is in force."""
        self.ledger.commit()
        self._rejudge_all = False
        self._forget_rules()

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
            rules=dict(RuleNames(self.registry.rules)),
            rule_sets=self.rule_sets.wanted(),
            isolating={
                (number, direction): policies
                for number, group in groups
                for direction, policies in group.definition.isolating.items()
            },
            walls={n: group.definition.wall for n, group in groups if group.definition.wall},
            tenants=dict(sorted(self.known.tenants.names.items())),
        )

    def view(self) -> Tables:
        """The same as `tables`, as the kernel holds it, without copies: always as of now."""
        ledger = self.ledger
        return Tables(
            endpoints=InForce(ledger.endpoints),
            addresses=InForce(ledger.addresses),
            policy=ExactEntries(ledger),
            ranges=RangeEntries(ledger),
            cidrs=InForce(ledger.cidrs),
            services=InForce(ledger.services),
            rules=RuleNames(self.registry.rules),
            rule_sets=Live(self.registry.rule_sets),
            isolating=Live(self._names.isolating),
            walls=Live(self._names.walls),
            tenants=Live(self.known.tenants.names),
        )

    def owners(self) -> Mapping[str, Pod]:
        """The owner of each pod address; always as of now."""
        return Live(self._population.owners)

    def serving(self, address: str) -> tuple[Serving, ...]:
        """The Services of an address; always as of now."""
        return self._calls.serving(address)

    def usage(self, table: Table) -> RoomUsage:
        """Who uses what of a map; as of now, from any thread."""
        rooms = (Table.ADDRESSES, Table.ENDPOINTS, Table.SERVICES)
        return self.rooms[table].usage() if table in rooms else self.allotment.usage(table)

    def excess(self) -> Mapping[str, str]:
        """What is closed for lack of room, and why."""
        found = {f"{r.policy} {r.direction.value}": str(r) for r in self.allotment.refused.values()}
        return {**found, **self.rooms.excess(), **self.rule_sets.excess()}

    def walled(self) -> Mapping[str, bool]:
        """The known namespaces: whether a wall that drops is around their pods; as of now."""
        return Live(self._tenancy.walled)

    @property
    def walls_turned(self) -> int:
        """How often `walled` has changed."""
        return self._tenancy.turns

    def policies(self) -> Mapping[str, NetworkPolicy]:
        """All policies, those included that are kept for dying pods; always as of now."""
        return Nested(self._rulebook.policies)

    def names(self) -> Mapping[str, Mapping[str, int]]:
        """The numbers of identities and groups, by what they mean."""
        return {"identities": self._population.names(), "groups": self._groups.names()}

    def is_inhabited(self, namespace: str) -> bool:
        """Whether there are pods of a namespace on this node."""
        return namespace in self._by_namespace

    def neighbourhood(self) -> Iterable[tuple[Namespace, Iterable[NetworkPolicy]]]:
        """The namespaces with pods on this node, and their policies."""
        for name in sorted(self._by_namespace):
            if name in self.known.namespaces:
                yield self.known.namespaces[name], self._rulebook.policies.get(name, {}).values()

    def cluster(self) -> Cluster:
        """The inputs as one value; takes time to put together."""
        known = self.known
        return Cluster(
            namespaces=dict(known.namespaces),
            pods=tuple(list(known.pods.values())),
            policies=tuple(self.policies().values()),
            nodes=self._all_nodes,
            services=tuple(self._calls.services()),
            slices=tuple(list(self._slices.values())),
            config=known.config,
            tenants=dict(known.record),
            pod_cidrs=self._pod_cidrs,
        )

    # Long policies

    def needs_blocks(self, policy: NetworkPolicy) -> bool:
        """Whether taking a policy in brings its blocks into the map of prefixes: it selects pods
        here, and finds room.
        """
        own = (self.known.pods[key] for key in self._by_namespace.get(policy.namespace, ()))
        home = self.known.homes.get(policy.namespace)
        labels = home.labels if home is not None else {}
        return any(selects(policy, pod, labels) for pod in own) and (
            self.allotment.would_admit(policy)
        )

    def trie_of(self, namespace: str) -> int:
        """The tenant in whose trie the blocks of a namespace's policies are."""
        home = self.known.homes.get(namespace)
        return self.known.tenants.ids.get(home.tenant, 0) if home is not None else 0

    # Inputs

    def _take(self, change: InputChange, batch: Batch) -> None:
        """Note one change, and what has to be looked at because of it."""
        match change:
            case PodChange(key, pod):
                self._take_pod(key, pod, batch)
            case PolicyChange(key, None):
                home = namespace_of(key)
                namespace = self.known.namespaces.get(home)
                gone = namespace is None or namespace.terminating
                self._references.remove(key)
                self._rulebook.remove(key, hold=gone and home != WHOLE_CLUSTER)
                self._look_at_subjects(home, batch)
            case PolicyChange(_, policy) if policy is not None:
                if not self._references.put(policy):
                    self._rulebook.put(policy)
                self._look_at_subjects(policy.namespace, batch)
            case BlocksChange():
                batch.blocks.append(change)
            case NamespaceChange(name, namespace):
                self._tenancy.put_namespace(name, namespace)
                batch.look_at(self._by_namespace.get(name, ()))
            case ServiceChange(key, service):
                self._calls.put_service(key, service)
                self._references.touch()
            case SliceChange(key, found):
                self._calls.put_slice(key, found, self._slices.get(key))
                put(self._slices, key, found)
                self._references.touch()
            case RecordChange(name, tenant):
                self._tenancy.put_tenant(name, tenant)
            case ConfigChange(config):
                self._tenancy.put_config(config)
                batch.look_at(self.known.interfaces)
            case NodesChange(nodes, pod_cidrs):
                self._all_nodes = nodes
                self._addressing.set_nodes(nodes)
                self._trials.set_nodes(nodes)
                if pod_cidrs != self._pod_cidrs:
                    self._rejudge_all = self._rejudge_all or bool(self.known.pods)
                    self._pod_cidrs = pod_cidrs
            case InterfaceChange(key, ifindex, mac):
                put(self.known.interfaces, key, ifindex)
                put(self.known.macs, key, mac or None)
                batch.local[key] = None
            case ArrivalChange(key, attachment):
                put(self.known.arrivals, key, attachment)
                batch.local[key] = None
            case ShortcutChange(present):
                self.known.shortcut = present
                batch.look_at((*self.known.interfaces, *self.known.arrivals))
            case OrderChange(pods):
                batch.order = pods

    def _take_pod(self, key: str, pod: Pod | None, batch: Batch) -> None:
        old = self.known.pods.get(key)
        batch.pods.setdefault(key, old)
        put(self.known.pods, key, pod)
        namespace = _namespace_of(key)
        keep_listed(self._everybody, namespace, key, listed=pod is not None)
        here = pod is not None and is_local(pod, self.known.node)
        keep_listed(self._by_namespace, namespace, key, listed=here)
        self._calls.touch_namespace(namespace)
        self._tenancy.meet(namespace)
        if any(p is not None and is_local(p, self.known.node) for p in (old, pod)):
            batch.local[key] = None
            if old is not None and pod is not None and old.uid != pod.uid:
                batch.anew[key] = None

    def _pods_of(self, namespace: str) -> Iterable[Pod]:
        return (self.known.pods[key] for key in self._everybody.get(namespace, ()))

    def _look_at_subjects(self, namespace: str, batch: Batch) -> None:
        """The local pods that a policy of a namespace, or of the whole cluster, may be about."""
        self._look_at(self._by_namespace if namespace == WHOLE_CLUSTER else (namespace,), batch)

    def _look_at(self, namespaces: Iterable[str], batch: Batch) -> None:
        for name in namespaces:
            batch.look_at(self._by_namespace.get(name, ()))

    def _follow(self, moved: Moved, batch: Batch) -> None:
        """Look at whom the tenancy of namespaces concerns."""
        self._look_at(moved.homes, batch)
        for name in moved.homes:
            self._addressing.touch(ip for pod in self._pods_of(name) for ip in pod.ips)
        if moved.renumbered:
            # A wall names the tenants that it lets in by their numbers.
            batch.look_at(self.known.interfaces)
            self._addressing.touch_all()

    def _release(self, batch: Batch) -> None:
        """Policies that were kept for pods which are gone now."""
        for name in self._rulebook.holding():
            namespace = self.known.namespaces.get(name)
            alive = namespace is not None and not namespace.terminating
            if alive or name not in self._by_namespace:
                self._rulebook.release(name)
                batch.look_at(self._by_namespace.get(name, ()))

    def _move_pods(self, batch: Batch) -> None:
        for key, old in batch.pods.items():
            new = self.known.pods.get(key)
            if as_peer(old) == as_peer(new):
                continue
            if old is not None:
                self._population.remove_pod(old, forever=new is None)
            if new is not None:
                self._population.add_pod(new)
        if batch.order is not None:
            self._population.reorder(batch.order)

    # Outputs

    def _forget_rules(self) -> None:
        """Rules of policies that have been gone for long; they would only become more."""
        known = self.registry.rules.known
        if len(known) <= self._rules_worth_a_look:
            return
        buckets = self.ledger.buckets.now.values()
        used = {r & RULE_NUMBER for b in buckets for r in (*b.policy.values(), *b.ranges.values())}
        self.registry.forget_rules(used)
        self._rules_worth_a_look = 2 * len(known) + RULES_KEPT


def _namespace_of(key: str) -> str:
    return key.partition("/")[0]
