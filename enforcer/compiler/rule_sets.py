"""Which rule sets a node's proxy is asked to judge: every tenant's, up to a number for each.

A rule set takes memory of the one proxy that all tenants of a node share. What a tenant has beyond
its number is not given to the proxy, so its connections are closed, and nobody else's. Older sets
stay, so that a tenant that adds one too many loses that one. A namespace without a tenant counts as
one.
"""

from __future__ import annotations

from collections.abc import Mapping

from enforcer.policy.identity import Registry
from enforcer.policy.rulebook import Groups
from generators.http import RuleSet
from generators.objects import namespace_of

OF_A_TENANT = 256
"""Rule sets."""
RULES_OF_A_TENANT = 5_000
"""HTTP rules in them."""


class RuleSets:
    """What the entries of a node may name."""

    def __init__(self, groups: Groups, registry: Registry, tenants: Mapping[str, int]) -> None:
        self._groups = groups
        self._registry = registry
        self._tenants = tenants

    def wanted(self) -> Mapping[int, RuleSet]:
        """All of them, by number, and some that entries named before."""
        numbers = {n for of_tenant in self._groups.rule_sets().values() for n in of_tenant}
        return {number: self._registry.rule_sets[number] for number in sorted(numbers)}

    def admitted(self) -> Mapping[int, RuleSet]:
        """Those that find room."""
        found = {n for part, _ in self._shared().values() for n in part}
        return {number: self._registry.rule_sets[number] for number in sorted(found)}

    def excess(self) -> Mapping[str, str]:
        """By tenant, what finds none and is closed."""
        return {
            f"HTTP rules of {owner}": _message(left_out, self._registry)
            for owner, (_, left_out) in self._shared().items()
            if left_out
        }

    def _shared(self) -> Mapping[str, tuple[list[int], list[int]]]:
        """Of each owner the sets that find room, and its others."""
        found: dict[str, tuple[list[int], list[int]]] = {}
        for owner, numbers in sorted(self._owned().items()):
            admitted: list[int] = []
            left_out: list[int] = []
            rules = 0
            for number in sorted(numbers):
                size = len(self._registry.rule_sets[number].rules)
                fits = len(admitted) < OF_A_TENANT and rules + size <= RULES_OF_A_TENANT
                rules += size if fits else 0
                (admitted if fits else left_out).append(number)
            found[owner] = admitted, left_out
        return found

    def _owned(self) -> Mapping[str, set[int]]:
        names = {number: name for name, number in self._tenants.items()}
        found: dict[str, set[int]] = {}
        for tenant, numbers in self._groups.rule_sets().items():
            for number in numbers:
                home = namespace_of(self._registry.rule_sets[number].rule)
                owner = f"tenant {names[tenant]}" if tenant in names else f"namespace {home}"
                found.setdefault(owner, set()).add(number)
        return found


def _message(left_out: list[int], registry: Registry) -> str:
    first = registry.rule_sets[left_out[0]].rule
    return (
        f"{len(left_out)} rule sets find no room and are closed, the first is that of {first}: a "
        f"tenant has {OF_A_TENANT} with {RULES_OF_A_TENANT} HTTP rules on a node; join rules that "
        "differ from pod to pod"
    )
