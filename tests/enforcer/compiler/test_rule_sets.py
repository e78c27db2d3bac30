"""A tenant's rule sets beyond its number are closed with a message; those of others are not."""

from __future__ import annotations

from dataclasses import replace

from enforcer.compiler import rule_sets
from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import Inputs
from enforcer.policy.identity import Registry
from enforcer.policy.rulebook import Groups
from generators.http import HttpRule, RuleSet
from generators.objects import Direction, NetworkPolicy, PolicyKind, PolicyPort, Rule, Selector
from tests.generators.builders import cluster, namespace, pod

TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
tenants:
- {name: red, namespaces: {names: [red]}}
- {name: blue, namespaces: {names: [blue]}}
"""
MOST = rule_sets.OF_A_TENANT


def judging(home: str, number: int) -> NetworkPolicy:
    """A policy with a rule set of its own for all pods of a namespace, at a port of its own."""
    http = (HttpRule(path=f"/{number}", name="toPorts[0].rules.http[0]"),)
    port = PolicyPort("TCP", 1000 + number)
    return NetworkPolicy(
        home,
        f"p{number:04}",
        Selector(),
        frozenset({Direction.INGRESS}),
        ingress=(Rule(ports=(port,), name="ingress[0]", http=http),),
        kind=PolicyKind.CILIUM,
    )


def compiled(*, tenants: bool = True, **policies: int) -> Compiler:
    """A node with a pod in each namespace, and so many policies there."""
    homes = [document for name in policies for document in (namespace(name), pod(f"{name}/web"))]
    of = cluster(*homes, tenants=TENANTS if tenants else None)
    found = [judging(name, number) for name, count in policies.items() for number in range(count)]
    compiler = Compiler("")
    inputs = Inputs(of, {f"{name}/web": at for at, name in enumerate(policies, start=1)})
    compiler.become(replace(inputs, cluster=replace(of, policies=tuple(found))))
    return compiler


def admitted(compiler: Compiler, home: str) -> int:
    return sum(s.rule.startswith(f"{home}/") for s in compiler.rule_sets.admitted().values())


def test_a_tenant_with_a_thousand_rule_sets_loses_its_own_alone() -> None:
    compiler = compiled(red=1000, blue=3)
    assert admitted(compiler, "red") == MOST
    assert admitted(compiler, "blue") == 3
    (what,) = [name for name in compiler.excess() if "HTTP" in name]
    assert what == "HTTP rules of tenant red"
    said = compiler.excess()[what]
    assert said.startswith(f"{1000 - MOST} rule sets find no room and are closed, the first is ")
    assert "join rules" in said


def test_without_a_tenant_a_namespace_loses_its_own_alone() -> None:
    compiler = compiled(red=MOST + 2, blue=3, tenants=False)
    assert (admitted(compiler, "red"), admitted(compiler, "blue")) == (MOST, 3)
    assert [name for name in compiler.excess() if "HTTP" in name] == ["HTTP rules of namespace red"]


def test_what_finds_no_room_still_has_an_entry_that_leads_nowhere_else() -> None:
    compiler = compiled(red=MOST + 1)
    tables, given = compiler.tables(), compiler.rule_sets.admitted()
    assert len(tables.rule_sets) == MOST + 1
    assert len(given) == MOST
    assert compiler.excess()


def test_a_tenants_rules_are_counted_as_well() -> None:
    groups, registry = Groups(Registry().groups), Registry()
    rules = tuple((f"n/cnp:p#ingress[0].{i}", HttpRule(path=f"/{i}")) for i in range(3_000))
    numbers = {registry.of_set(RuleSet("Ingress", f"n/cnp:p{i}", rules)) for i in range(3)}
    found = rule_sets.RuleSets(groups, registry, {"red": 7})
    groups.rule_sets = lambda: {7: numbers}  # type: ignore[method-assign]
    assert len(found.admitted()) == 1
    assert list(found.excess()) == ["HTTP rules of tenant red"]
