"""Services as the data path sees them: a virtual address and port, and the backends behind it.

A packet to a ClusterIP is judged by its backends, because they are what it meets: the evaluator and
the compiler take them from `service_map`. Without an EndpointSlice a Service has
the pods that its selector matches, as an offline file has no controller that writes slices; and an
address, port and protocol without a backend is no Service at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from generators.addresses import Family, family
from generators.objects import (
    EndpointSlice,
    Pod,
    Readiness,
    Service,
    ServiceKind,
    ServicePort,
)

SERVICE_PREFIX = "svc/"
"""A Service as one end of a question: `svc/NAMESPACE/NAME`."""


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """What a client calls: a ClusterIP, a port and a protocol of the Service."""

    address: str
    port: int
    protocol: str


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where the call may arrive."""

    address: str
    port: int


def service_map(
    services: Iterable[Service], slices: Iterable[EndpointSlice], pods: Iterable[Pod]
) -> Mapping[ServiceKey, tuple[Backend, ...]]:
    """Every way to call a Service, with its backends in order; those without backends are out."""
    by_service: dict[str, list[EndpointSlice]] = {}
    for item in slices:
        by_service.setdefault(f"{item.namespace}/{item.service}", []).append(item)
    by_namespace: dict[str, list[Pod]] = {}
    for pod in pods:
        if pod.phase == "Running" and not pod.terminating:
            by_namespace.setdefault(pod.namespace, []).append(pod)
    found: dict[ServiceKey, tuple[Backend, ...]] = {}
    for service in services:
        if service.kind is not ServiceKind.CLUSTER_IP:
            continue
        own = by_service.get(service.key, [])
        near = by_namespace.get(service.namespace, [])
        for address in service.cluster_ips:
            for port in service.ports:
                of = family(address)
                listed = _sliced(own, port, of) if own else _selected(service, near, port, of)
                if backends := tuple(sorted(set(listed))):
                    found[ServiceKey(address, port.port, port.protocol)] = backends
    return dict(sorted(found.items()))


def _sliced(slices: Iterable[EndpointSlice], port: ServicePort, of: Family) -> list[Backend]:
    """Those that are ready; where none is, those that still serve while they terminate."""
    by_readiness: dict[Readiness, list[Backend]] = {state: [] for state in Readiness}
    for item in slices:
        numbers = [p.port for p in item.ports if (p.name, p.protocol) == (port.name, port.protocol)]
        for endpoint in item.endpoints:
            by_readiness[endpoint.readiness] += [
                Backend(address, number)
                for address in endpoint.addresses
                if family(address) is of
                for number in numbers
            ]
    return by_readiness[Readiness.READY] or by_readiness[Readiness.DRAINING]


def _selected(
    service: Service, pods: Iterable[Pod], port: ServicePort, of: Family
) -> Iterator[Backend]:
    """The pods that the selector matches, at the number that the target port is there."""
    for pod in pods:
        number = target_number(pod, port)
        if number is not None and selects(service, pod):
            yield from (Backend(ip, number) for ip in pod.ips if family(ip) is of)


def selects(service: Service, pod: Pod) -> bool:
    """Whether a pod is of those that a Service leads to; one without selector leads to none."""
    if not service.selector or pod.namespace != service.namespace:
        return False
    return service.selector.items() <= pod.labels.items()


def target_number(pod: Pod, port: ServicePort) -> int | None:
    """The number of a Service's port at a pod; None where the pod has no port of that name."""
    if isinstance(port.target, int):
        return port.target
    named = (p.port for p in pod.ports if (p.name, p.protocol) == (port.target, port.protocol))
    return next(named, None)
