"""RBAC that the policies in force need: printed by `ringfence controller rules`, asked at run time.

A kind is written only if both the operator's list and RBAC allow it, so that a policy never does
more than the chart's role says. A rule whose rights are missing makes its policy not Ready, with
the line of RBAC to add; other policies are unaffected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from generators.documents.json import mapping, text
from generators.errors import InputError
from generators.kube.client import Client
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, Resource
from generators.kyverno.limits import allowing, readable
from generators.kyverno.model import ApiCallEntry, Data, Generation, Policy, PolicyRule
from generators.kyverno.offline.loading import load_policies
from generators.kyverno.usage import parts, usage
from generators.kyverno.variables import has_variable
from generators.kyverno.vetting import vetted
from webhook.background.needs import RuleNeeds
from webhook.background.rules import RuleTable, table_of
from webhook.policies.book import CLUSTER, HeldPolicy, Policies, PolicySource
from webhook.policies.kinds import GuessedKinds, spelled
from webhook.rbac import CARRIED_OUT, CONTROLLER, FOLLOW, RbacRule, allowed

MAKE = (*FOLLOW, "create", "update", "patch", "delete")
_RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLES = Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
ROLES = Resource(_RBAC, "v1", "roles", "Role")


def rules_of(policy: Policy, rule: PolicyRule, needs: RuleNeeds) -> Iterator[RbacRule]:
    """The lines of RBAC that one rule needs."""
    why = f"policy {policy.key}/{rule.name}"
    for resource in sorted(needs.triggers | {NAMESPACES}, key=str):
        yield RbacRule(resource, FOLLOW, why)
    for resource in sorted(needs.targets, key=str):
        yield RbacRule(resource, (*FOLLOW, "patch"), why)
    for resource in sorted({source for source, _ in needs.sources}, key=str):
        yield RbacRule(resource, FOLLOW, why)
    for resource in sorted(needs.downstreams, key=str):
        yield RbacRule(resource, MAKE, why)
    if usage([replace(policy, rules=(rule,))]).config_maps:
        yield RbacRule(CONFIG_MAPS, FOLLOW, why)
    if isinstance(rule.action, Generation):
        yield from _bound(rule.action, why)


def _bound(action: Generation, why: str) -> Iterator[RbacRule]:
    """Who binds a role must be allowed to, or have all of its rights."""
    for downstream in action.downstreams:
        if not isinstance(downstream.source, Data):
            continue
        if text(downstream.target.value, "kind") not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        role = mapping(downstream.source.content.value, "roleRef")
        name, kind = text(role, "name"), text(role, "kind")
        if name and not has_variable(name):
            yield RbacRule(ROLES if kind == "Role" else CLUSTER_ROLES, ("bind",), why, (name,))


def all_rules(table: RuleTable) -> tuple[RbacRule, ...]:
    """Everything that the policies in force need, each line once."""
    found: dict[tuple[Resource, tuple[str, ...], tuple[str, ...]], RbacRule] = {}
    for _, rule in _each(table):
        found.setdefault((rule.resource, rule.verbs, rule.names), rule)
    return tuple(found.values())


def printed(sources: Sequence[str], allowed_kinds: Sequence[str]) -> tuple[RbacRule, ...]:
    """What `controller run` needs with these options; InputError for policies that are wrong.

    What the cluster's policies will say is not known: with them, every kind on the operator's list.
    """
    if not sources:
        return ()
    limits = allowing(allowed_kinds)
    loaded = load_policies(path for path in sources if path != CLUSTER)
    if loaded.problems:
        raise InputError(loaded.problems)
    held = (vetted(policy, limits).policy for policy in loaded.policies)
    policies = Policies(tuple(HeldPolicy(policy, PolicySource.FILE, "") for policy in held))
    rules = list(all_rules(table_of(policies, GuessedKinds())))
    if any(True for policy in policies.policies for _ in parts(policy, ApiCallEntry)):
        rules += reading(allowed_kinds)
    if CLUSTER in sources:
        rules += CARRIED_OUT
        for group, kind in sorted(limits.kinds or ()):
            verbs = (*FOLLOW, "patch") if kind == "Namespace" else MAKE
            rules.append(RbacRule(spelled(group, "v1", kind), verbs, "policies of the cluster"))
    return tuple(rules)


def reading(allowed_kinds: Sequence[str]) -> Iterator[RbacRule]:
    """What paths of `apiCall` need, for the kinds that `--allow-kind` names."""
    for kind in readable(allowed_kinds):
        resource = spelled(kind.group, kind.version, kind.kind)
        yield RbacRule(resource, ("get", "list"), "what policies look up")


def _each(table: RuleTable) -> Iterator[tuple[str, RbacRule]]:
    for policy in table.policies.policies:
        for rule in policy.rules:
            if (policy.key, rule.name) in table.rules:
                needs = table.needs.rules[policy.key, rule.name]
                for line in rules_of(policy, rule, needs):
                    yield policy.key, line


def forbidden(client: Client, table: RuleTable) -> dict[str, str]:
    """Policies whose rights are missing, with what to add to the controller's role."""
    asked: dict[tuple[Resource, str, str], bool] = {}

    def may(rule: RbacRule, verb: str, name: str) -> bool:
        key = (rule.resource, verb, name)
        if key not in asked:
            asked[key] = allowed(client, rule, verb, "", name)
        return asked[key]

    missing: dict[str, dict[str, None]] = {}
    for policy, rule in _each(table):
        for verb in rule.verbs:
            for name in rule.names or ("",):
                if not may(rule, verb, name):
                    named = f" {name}" if name else ""
                    missing.setdefault(policy, {})[f"{verb} {rule.resource}{named}"] = None
    return {
        policy: f"the controller may not: {', '.join(lines)}; add it to role {CONTROLLER}, "
        "`ringfence controller rules` with the same --policies and --allow-kind prints all"
        for policy, lines in missing.items()
    }
