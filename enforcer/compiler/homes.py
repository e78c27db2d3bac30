"""Which tenant owns each namespace: homes, walls, and numbers for tenants.

The compiler passes namespaces, entries of the record and the tenant file to `Tenancy`, and asks
`settle` what that moved. A change costs what it names and no more, however many namespaces there
are; only another tenant file has all of them looked at. A namespace whose pods arrive before it has
a home already, but its wall is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from enforcer.compiler.placement import Known
from enforcer.policy.peers import Population
from enforcer.policy.walls import NamespaceFacts, drops, granted, wall_flags
from generators.objects import Namespace
from generators.tenants.model import TenantConfig


@dataclass(frozen=True, slots=True)
class Moved:
    """What the last changes did."""

    homes: tuple[str, ...]
    """Namespaces that tell something else of their pods now."""
    touched: tuple[str, ...]
    """All that were looked at."""
    renumbered: bool
    """A tenant has another number than before; two names with one hash can do that."""


class Tenancy:
    """The homes in `known` and in the population."""

    def __init__(self, known: Known, population: Population) -> None:
        self.walled: dict[str, bool] = {}
        """Namespaces that are known: whether a wall that drops is around their pods."""
        self.turns = 0
        """Counts the changes of `walled`."""
        self._known = known
        self._population = population
        self._touched: dict[str, None] = {}

    def put_namespace(self, name: str, namespace: Namespace | None) -> None:
        """A namespace is there, or gone."""
        if namespace is None:
            self._known.namespaces.pop(name, None)
        else:
            self._known.namespaces[name] = namespace
        self._touched[name] = None

    def put_tenant(self, name: str, tenant: str | None) -> None:
        """The record's tenant of a namespace; None: without a tenant."""
        before = self._known.record.pop(name, None)
        if before is not None:
            self._known.tenants.leave(before)
        if tenant is not None:
            self._known.record[name] = tenant
            self._known.tenants.use(tenant)
        self._touched[name] = None

    def put_config(self, config: TenantConfig | None) -> None:
        """Another tenant file, or none."""
        before, self._known.config = self._known.config, config
        self._known.granted = granted(config)
        for name in config.tenants if config is not None else ():
            self._known.tenants.use(name)
        for name in before.tenants if before is not None else ():
            self._known.tenants.leave(name)
        self._touched.update(dict.fromkeys(self._known.homes))

    def meet(self, name: str) -> None:
        """There is a pod of that namespace."""
        if name not in self._known.homes:
            self._touched[name] = None

    def settle(self) -> Moved:
        """Bring homes, walls and numbers up to date."""
        touched, self._touched = tuple(self._touched), {}
        renumbered = self._known.tenants.settle()
        return Moved(tuple(n for n in touched if self._move(n)), touched, renumbered)

    def _move(self, name: str) -> bool:
        known = self._known
        namespace, tenant = known.namespaces.get(name), known.record.get(name)
        home = NamespaceFacts.of(name, namespace, tenant, known.config)
        if namespace is None and tenant is None:
            self._wall(name, None)
        else:
            self._wall(name, drops(wall_flags(home, known.config)))
        if known.homes.get(name) == home:
            return False
        known.homes[name] = home
        self._population.set_home(home)
        return True

    def _wall(self, name: str, closed: bool | None) -> None:
        if self.walled.get(name) is closed:
            return
        if closed is None:
            del self.walled[name]
        else:
            self.walled[name] = closed
        self.turns += 1

    def forget(self, names: Iterable[str]) -> None:
        """Those of them that are gone and empty lose their home."""
        known = self._known
        for name in names:
            if name in known.namespaces or name in known.record or name not in known.homes:
                continue
            if self._population.is_empty(name):
                self._population.drop_home(name)
                del known.homes[name]
