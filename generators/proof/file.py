"""What the tenant file permits to enter a pod, whatever policies say: the claim that is proven.

Written down once more, from the file alone and as sets, so that wall and policies are held against
something that they are not made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from generators.cluster import quarantined
from generators.objects import Pod
from generators.proof.ends import Ends
from generators.proof.letters import Alphabet
from generators.proof.rows import Area
from generators.reachability.protocols import WITH_PORTS
from generators.reachability.reference import Evaluator
from generators.tenants.model import Port, TenantConfig


@dataclass(frozen=True, slots=True)
class Permission:
    """Ends, the letters that they may enter with, and by which word of the file."""

    area: Area
    by: str


class Permits:
    """The tenant file's word on the ends of one cluster and family."""

    def __init__(self, evaluator: Evaluator, ends: Ends, alphabet: Alphabet) -> None:
        self._cluster = evaluator.cluster
        self._quarantined = quarantined(evaluator.cluster)
        self._ends, self._alphabet = ends, alphabet
        self._by_tenant: dict[str, int] = {}
        for namespace, bits in ends.by_namespace.items():
            tenant = self._cluster.tenants.get(namespace)
            if tenant is not None:
                self._by_tenant[tenant] = self._by_tenant.get(tenant, 0) | bits

    def keeps(self, pod: Pod) -> bool:
        """Whether anybody has to be kept out: the pod is a tenant's, or in quarantine."""
        return pod.namespace in self._cluster.tenants or pod.namespace in self._quarantined

    def permissions(self, pod: Pod) -> Iterator[Permission]:
        """Everything that may enter the pod, of which `keeps` is true."""
        config, ends, full = self._cluster.config, self._ends, self._alphabet.full
        yield Permission(Area(ends.own(pod), full), "itself")
        yield Permission(Area(ends.outside, full), "outside the cluster")
        host = ends.host(pod.node)
        yield Permission(Area(host & ~ends.masked, full), "its own node")
        if config is None:
            return
        for component in config.shared:
            spaces = (ends.by_namespace.get(name, 0) for name in component.namespaces)
            nodes = ends.nodes | host if component.host_network else 0
            area = Area(_union(spaces) | nodes, self._letters(component.ports))
            yield Permission(area, f"shared component {component.name}")
        if pod.namespace in self._quarantined:
            yield Permission(Area(ends.by_namespace.get(pod.namespace, 0), full), "its namespace")
        else:
            yield from self._of_tenant(config, self._cluster.tenants[pod.namespace], host)

    def _of_tenant(self, config: TenantConfig, name: str, host: int) -> Iterator[Permission]:
        full, tenant = self._alphabet.full, config.tenants.get(name)
        yield Permission(Area(self._by_tenant.get(name, 0), full), f"tenant {name}")
        if tenant is not None and tenant.allow_masked:
            yield Permission(Area(self._ends.nodes | host, full), "allowMasked")
        for grant in config.consented(name):
            area = Area(self._by_tenant.get(grant.tenant, 0), self._letters(grant.ports))
            yield Permission(area, f"grant to {grant.tenant}")

    def _letters(self, ports: tuple[Port, ...]) -> int:
        if not ports:
            return self._alphabet.full
        return _union(
            self._alphabet.protocol(WITH_PORTS[port.protocol])
            if port.port is None
            else self._alphabet.span(WITH_PORTS[port.protocol], *port.span)
            for port in ports
        )


def _union(sets: Iterable[int]) -> int:
    found = 0
    for each in sets:
        found |= each
    return found
