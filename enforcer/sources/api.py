"""The objects of a cluster from its API server: a reflector for each resource, one queue of keys.

A reflector's thread says that a key changed and nothing more; `take` reads the values as they are
then, so that any number of events about one object are one change. While the API server is away, or
refuses, everything stays as it was; `sources` and `health` say so. A namespace's tenant is in the
record under its UID, so a recreated namespace has none until it is recorded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from enforcer.policy.changes import (
    ConfigChange,
    InputChange,
    NamespaceChange,
    NodesChange,
    PodChange,
    PolicyChange,
    RecordChange,
    ServiceChange,
    SliceChange,
)
from enforcer.sources.cilium import KINDS, LEFT_TO_CILIUM, CiliumHere, KnownParts
from enforcer.sources.readers import ManifestReader, PodReader, Unreadable
from enforcer.sources.record import Record, nobody_is_kept_apart
from enforcer.sources.shards import SHARDS, Entries
from enforcer.sources.supply import Health, InputState, SeenDigests, Taken
from enforcer.sources.tenants import AgentTenants
from generators.cluster import pod_ranges
from generators.documents.json import Document, Key
from generators.kube.client import EVERYTHING, Client, WatchScope
from generators.kube.reflector import Reflector, ReflectorStats, Timing
from generators.kube.resources import (
    ENDPOINT_SLICES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    Resource,
)
from generators.kube.served import ServedKind
from generators.objects import (
    CiliumPolicy,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Service,
)
from generators.tenants.consents import Consent, with_consents

T = TypeVar("T")


@dataclass(slots=True)
class _Kind(Generic[T]):
    """One resource: its copy, the keys of it that changed, and what it counts."""

    reflector: Reflector[T] | ServedKind[T]
    problems: Unreadable
    dirty: dict[Key, None] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)

    def values(self, keys: Iterable[Key]) -> Iterator[tuple[Key, T | None]]:
        """What is there now under these keys."""
        for key in keys:
            value = self.reflector.store.get(key)
            self.events["delete" if value is None else "update"] += 1
            if value is None:
                self.problems.clear(key)
            yield key, value

    def source(self) -> InputState:
        """How it is doing."""
        stats = self.reflector.stats()
        return InputState(
            kind=stats.resource,
            synced=stats.synced,
            connected=stats.connected,
            forbidden=stats.forbidden,
            objects=stats.objects,
            last_event=time.monotonic() - stats.last_event_age,
            events=dict(self.events),
            relists=stats.relists,
            failures=stats.watch_errors,
            unreadable=self.unreadable(stats),
            tolerant=isinstance(self.reflector, ServedKind),
        )

    def unreadable(self, stats: ReflectorStats) -> Mapping[str, str]:
        """Objects that make no sense, with the reason."""
        found = {str(key): why for key, why in stats.unreadable.items()}
        return {**found, **self.problems.read()}


AnyKind = (
    _Kind[Namespace]
    | _Kind[Entries]
    | _Kind[Node]
    | _Kind[NetworkPolicy]
    | _Kind[Service]
    | _Kind[EndpointSlice]
    | _Kind[Pod]
    | _Kind[CiliumPolicy]
)


class ApiSupply:
    """See `Supply`; `client` is the agent's identity."""

    def __init__(
        self,
        client: Client,
        node: str,
        tenants: AgentTenants,
        system_namespace: str,
        timing: Timing | None = None,
    ) -> None:
        self._client = client
        self._timing = timing
        self._tenants = tenants
        self._lock = threading.Lock()
        self._since: float | None = None
        self._wake: Callable[[], None] = lambda: None
        self._ready = False
        self._fresh_config = True
        self._told_nodes = False
        self._record = Record()
        self._consents: Mapping[str, tuple[Consent, ...]] = {}
        self._namespaces = self._kind(NAMESPACES, lambda bad: ManifestReader(bad).namespace)
        self._shards = self._kind(SHARDS.resource, SHARDS.reader, SHARDS.scope(system_namespace))
        self._nodes = self._kind(NODES, lambda bad: ManifestReader(bad).node)
        self._policies = self._kind(NETWORK_POLICIES, lambda bad: ManifestReader(bad).policy)
        self._services = self._kind(SERVICES, lambda bad: ManifestReader(bad).service)
        self._slices = self._kind(ENDPOINT_SLICES, lambda bad: ManifestReader(bad).slice)
        self._pods = self._kind(PODS, lambda bad: PodReader(node, bad))
        self._cilium = tuple(self._served(kind) for kind in KINDS.values())
        self._cilium_parts = KnownParts()
        self._cilium_here = CiliumHere(client, node, self._told, timing)

    def _told(self, _: Key | None = None) -> None:
        """Something has to be looked at."""
        self._wake()

    def _changed_in(self, dirty: dict[Key, None]) -> Callable[[Key | None], None]:
        def changed(key: Key | None) -> None:
            if key is not None:
                with self._lock:
                    dirty[key] = None
                    if self._since is None:
                        self._since = time.monotonic()
            self._wake()

        return changed

    def _served(self, resource: Resource) -> _Kind[CiliumPolicy]:
        dirty: dict[Key, None] = {}
        problems = Unreadable()
        reader = ManifestReader(problems).cilium
        changed = self._changed_in(dirty)
        kind = ServedKind(self._client, resource, reader, changed, timing=self._timing)
        return _Kind(kind, problems, dirty)

    def _kind(
        self,
        resource: Resource,
        reader: Callable[[Unreadable], Callable[[Document], T | None]],
        scope: WatchScope = EVERYTHING,
    ) -> _Kind[T]:
        dirty: dict[Key, None] = {}
        problems = Unreadable()
        changed = self._changed_in(dirty)
        reflector = Reflector(
            self._client, resource, reader(problems), changed, scope=scope, timing=self._timing
        )
        return _Kind(reflector, problems, dirty)

    # --- for the agent --------------------------------------------------------------------------

    def start(self, wake: Callable[[], None]) -> None:
        """Follow everything from now on."""
        self._wake = wake
        for kind in self._kinds:
            kind.reflector.start()
        self._cilium_here.start()

    def stop(self) -> None:
        """End the reflectors."""
        self._cilium_here.stop()
        for kind in self._kinds:
            kind.reflector.stop()
        self._client.close()

    def take(self) -> Taken:
        """See `Supply`."""
        self._fresh_config = self._tenants.read() or self._fresh_config
        self._cilium_here.follow()
        for served in self._cilium:
            if isinstance(served.reflector, ServedKind):
                served.reflector.follow(wanted=not self._cilium_here.is_here)
        if not self._ready:
            synced = self._cilium_here.synced and all(k.reflector.synced for k in self._kinds)
            self._ready = self._tenants.settled and synced
        if not self._ready:
            return Taken()
        with self._lock:
            since, self._since = self._since, None
            keys = [tuple(kind.dirty) for kind in self._kinds]
            for kind in self._kinds:
                kind.dirty.clear()
        return Taken(tuple(self._changes(keys)), since)

    def health(self) -> Health:
        """See `Supply`."""
        found = {"config": self._tenants.error} if self._tenants.error else {}
        for kind in self._kinds:
            stats = kind.reflector.stats()
            name = stats.resource
            if stats.forbidden:
                found[name] = (
                    f"the API server refuses access to {name} ({self._client.origin}): their "
                    "known state stays in force; grant the agent list and watch"
                )
            elif (broken := kind.unreadable(stats)) and kind not in self._cilium:
                found[name] = "; ".join(f"{key}: {why}" for key, why in broken.items())
        if self._record.unreadable:
            bad = sorted(self._record.unreadable.items())
            found["record"] = "; ".join(f"{name}: {why}" for name, why in bad)
        elif missing := self._no_record():
            found["record"] = missing
        notices = (LEFT_TO_CILIUM,) if self._cilium_here.is_here else ()
        return Health(SeenDigests(config=self._tenants.digest), found, notices)

    def _no_record(self) -> str:
        """The problem when no controller has ever recorded a namespace."""
        config = self._tenants.config
        if config is None or not self._ready or len(self._shards.reflector.store):
            return ""
        return nobody_is_kept_apart(config, self._namespaces.reflector.store.snapshot())

    def sources(self) -> Mapping[str, Callable[[], InputState]]:
        """See `Supply`."""
        found: dict[str, Callable[[], InputState]] = {}
        for kind in self._kinds:
            found[kind.reflector.stats().resource] = kind.source
        if self._tenants.path is not None:
            found["config"] = self._tenants.source
        return found

    def _agreed(self) -> Iterator[ConfigChange]:
        """The tenant file with what tenants agreed on, where either is another."""
        said, config = self._record.consents, self._tenants.config
        if not self._fresh_config and said is self._consents:
            return
        self._fresh_config, self._consents = False, said
        yield ConfigChange(None if config is None else with_consents(config, said))

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _kinds(self) -> tuple[AnyKind, ...]:
        return (
            self._namespaces,
            self._shards,
            self._nodes,
            self._policies,
            self._services,
            self._slices,
            self._pods,
            *self._cilium,
        )

    def _changes(self, keys: list[tuple[Key, ...]]) -> Iterator[InputChange]:
        namespaces, shards, nodes, policies, services, slices, pods, *cilium = keys
        there = list(self._namespaces.values(namespaces))
        for key, namespace in there:
            self._record.put_namespace(key.name, namespace)
        for key, shard in self._shards.values(shards):
            if SHARDS.is_shard(key.name):
                self._record.put_shard(key.name, shard)
        if there or shards or self._fresh_config:
            yield from self._agreed()
        for key, namespace in there:
            yield NamespaceChange(key.name, namespace)
        if self._tenants.path is not None:
            for name, tenant in self._record.changes():
                yield RecordChange(name, tenant)
        if dict(self._nodes.values(nodes)) or not self._told_nodes:
            self._told_nodes = True
            known = [node for _, node in sorted(self._nodes.reflector.store.snapshot().items())]
            yield NodesChange(tuple(known), pod_ranges(known))
        for key, policy in self._policies.values(policies):
            yield PolicyChange(str(key), policy)
        for kind, changed in zip(self._cilium, cilium, strict=True):
            for key, whole in kind.values(changed):
                yield from self._cilium_parts.follow(kind.source().kind, key, whole)
        for key, service in self._services.values(services):
            yield ServiceChange(str(key), service)
        for key, found in self._slices.values(slices):
            yield SliceChange(str(key), found)
        for key, pod in self._pods.values(pods):
            yield PodChange(str(key), pod)
