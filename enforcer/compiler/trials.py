"""Isolation policies on trial: what would isolate namespaces under audit, and only reports there.

The controller writes no isolation policy while a tenant is under audit, because any other CNI would
enforce it. The compiler has it here all the same, so that the programs can name what it would drop.
A generated policy that is still there from before is on trial as well, from the moment the agent
has read the tenant file.
"""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.compiler.placement import Known
from enforcer.policy.rulebook import Rulebook
from generators.isolation.policies import is_on_trial, isolation_policies
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from generators.objects import NetworkPolicy, Node


class Trials:
    """Keeps the rulebook's policies on trial up to date."""

    def __init__(self, known: Known, rulebook: Rulebook) -> None:
        self._known = known
        self._rulebook = rulebook
        self._nodes: tuple[Node, ...] = ()
        self._touched: dict[str, None] = {}

    def set_nodes(self, nodes: tuple[Node, ...]) -> None:
        """Generated policies may name the nodes' addresses."""
        self._nodes = nodes
        self._touched.update(dict.fromkeys(self._rulebook.trials))

    def follow(self, names: Iterable[str]) -> tuple[str, ...]:
        """Look at these namespaces; those of which another policy is on trial now, or none."""
        touched = {**self._touched, **dict.fromkeys(names)}
        self._touched = {}
        return tuple(name for name in touched if self._tried_out(name))

    def _tried_out(self, name: str) -> bool:
        namespace = self._known.namespaces.get(name)
        beside = namespace is not None and namespace.annotations.get(MODE_ANNOTATION) == AUDIT_MODE
        policy = self._of(name)
        return self._rulebook.try_out(name, policy, beside=beside and policy is not None)

    def _of(self, name: str) -> NetworkPolicy | None:
        known, tenant = self._known, self._known.record.get(name)
        config, namespace = known.config, known.namespaces.get(name)
        if config is None or namespace is None or tenant is None or tenant not in config.tenants:
            return None
        if not is_on_trial(config, namespace, tenant):
            return None
        (policy,) = isolation_policies(config, name, tenant, self._nodes)
        return policy
