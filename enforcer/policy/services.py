"""Services as clients call them: which backends stand behind a virtual address and port.

Kept by the compiler, service by service. An entry holds one backend of each kind that policies can
tell apart, so most changes of pods behind a Service write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    IDENTITY_UNKNOWN,
    SERVICE_BACKENDS,
    AddressEntry,
)
from generators.objects import EndpointSlice, Pod, Service
from generators.reachability.services import Backend, ServiceKey, service_map


@dataclass(frozen=True, slots=True)
class Serving:
    """A Service that an address stands for, or stands behind; `ports` are those of the address."""

    service: str
    """`namespace/name`."""
    ports: frozenset[tuple[str, int]]
    """Protocol and number."""


PodsOf = Callable[[str], Iterable[Pod]]
"""The pods of a namespace."""


@dataclass(slots=True)
class _Known:
    service: Service | None = None
    slices: dict[str, EndpointSlice] = field(default_factory=dict)
    backends: Mapping[ServiceKey, tuple[Backend, ...]] = field(default_factory=dict)


class Calls:
    """All Services, by virtual address and port."""

    def __init__(self, pods_of: PodsOf) -> None:
        self._pods_of = pods_of
        self._known: dict[str, _Known] = {}
        self._by_namespace: dict[str, dict[str, None]] = {}
        """Services that choose pods by themselves, without slices."""
        self._claims: dict[ServiceKey, dict[str, None]] = {}
        self._by_address: dict[str, dict[ServiceKey, int]] = {}
        """Address of a backend or of a Service -> keys whose entry depends on it, and how often."""
        self._dirty: dict[str, None] = {}
        self._stale: dict[ServiceKey, None] = {}

    def put_service(self, key: str, service: Service | None) -> None:
        """A Service is there, or gone."""
        self._known.setdefault(key, _Known()).service = service
        self._dirty[key] = None

    def services(self) -> Iterable[Service]:
        """All of them, as of now."""
        return [known.service for known in list(self._known.values()) if known.service is not None]

    def owner(self, key: ServiceKey) -> str | None:
        """The namespace of the Service that is called by this key; None: there is none."""
        claims = self._claims.get(key)
        return max(claims).partition("/")[0] if claims else None

    def serving(self, address: str) -> tuple[Serving, ...]:
        """The Services of an address, by name; may be asked from any thread."""
        found: dict[str, set[tuple[str, int]]] = {}
        for key in list(self._by_address.get(address, ())):
            for name in list(self._claims.get(key, ())):
                known = self._known.get(name)
                backends = known.backends.get(key, ()) if known is not None else ()
                listed = [b.port for b in backends if b.address == address]
                if key.address == address:
                    listed.append(key.port)
                found.setdefault(name, set()).update((key.protocol, port) for port in listed)
        return tuple(Serving(name, frozenset(found[name])) for name in sorted(found))

    def put_slice(self, key: str, found: EndpointSlice | None, old: EndpointSlice | None) -> None:
        """An EndpointSlice is there, or gone."""
        for item in (old, found):
            if item is not None:
                owner = f"{item.namespace}/{item.service}"
                self._known.setdefault(owner, _Known()).slices.pop(key, None)
                self._dirty[owner] = None
        if found is not None:
            self._known[f"{found.namespace}/{found.service}"].slices[key] = found

    def touch_namespace(self, namespace: str) -> None:
        """Pods of a namespace are others."""
        self._dirty.update(self._by_namespace.get(namespace, {}))

    def touch_address(self, address: str) -> None:
        """The owner of an address has changed."""
        self._stale.update(dict.fromkeys(self._by_address.get(address, ())))

    def touch_all(self) -> None:
        """Isolated pods may call others than before."""
        self._stale.update(dict.fromkeys(self._claims))

    def refresh(self) -> Iterable[ServiceKey]:
        """The keys whose entries may have changed."""
        for key in self._dirty:
            known = self._known[key]
            before, known.backends = known.backends, self._called(known)
            for called in dict.fromkeys((*before, *known.backends)):
                self._index(key, called, before.get(called), known.backends.get(called))
            near = self._by_namespace.setdefault(key.partition("/")[0], {})
            near.pop(key, None)
            if known.service is not None and not known.slices:
                near[key] = None
            if known.service is None and not known.slices:
                del self._known[key]
        stale, self._dirty, self._stale = self._stale, {}, {}
        return stale

    def backends(self, key: ServiceKey) -> tuple[Backend, ...]:
        """All that stand behind a key; where two Services claim it, the later one's."""
        claims = self._claims.get(key)
        return self._known[max(claims)].backends[key] if claims else ()

    def entry(
        self, key: ServiceKey, addresses: Mapping[str, AddressEntry]
    ) -> tuple[Backend, ...] | None:
        """One backend for each way in which policies can see them; none where these are too many.

        An address that a pod or node has is not a Service's.
        """
        claims, owner = self._claims.get(key), addresses.get(key.address)
        if not claims or (owner is not None and owner.identity != IDENTITY_UNKNOWN):
            return None
        found: dict[tuple[AddressEntry | str, int], Backend] = {}
        for backend in self.backends(key):
            entry = addresses.get(backend.address)
            pod = entry is not None and entry.identity >= FIRST_POD_IDENTITY
            # Blocks of addresses tell apart what no identity does: nodes, and whoever is outside.
            found.setdefault((entry if entry and pod else backend.address, backend.port), backend)
        return tuple(found.values()) if len(found) <= SERVICE_BACKENDS else ()

    def _called(self, known: _Known) -> Mapping[ServiceKey, tuple[Backend, ...]]:
        if known.service is None:
            return {}
        pods = () if known.slices else self._pods_of(known.service.namespace)
        return service_map([known.service], known.slices.values(), pods)

    def _index(
        self,
        service: str,
        called: ServiceKey,
        old: tuple[Backend, ...] | None,
        new: tuple[Backend, ...] | None,
    ) -> None:
        if old == new:
            return
        self._stale[called] = None
        for backends, step in ((old, -1), (new, 1)):
            addresses = [] if backends is None else [called.address, *(b.address for b in backends)]
            for address in addresses:
                users = self._by_address.setdefault(address, {})
                users[called] = users.get(called, 0) + step
                if not users[called]:
                    del users[called]
                if not users:
                    del self._by_address[address]
        claims = self._claims.setdefault(called, {})
        if new is None:
            claims.pop(service, None)
        else:
            claims[service] = None
        if not claims:
            del self._claims[called]
