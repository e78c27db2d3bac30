"""The policies in force as the workers need them: one immutable value, made when they change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from generators.documents.json import ObjectKind
from generators.kube.resources import Resource
from generators.kyverno.generation import pattern_digest
from generators.kyverno.model import (
    CloneList,
    Expressed,
    Generation,
    Mutation,
    Policy,
    PolicyRule,
    Rendered,
)
from generators.kyverno.ownership import Mark
from webhook.background.needs import (
    Needs,
    RuleName,
    depends_on_trigger,
    is_background,
    needs_of,
)
from webhook.background.planning import RuleStanding
from webhook.policies.book import Policies, notes_creator
from webhook.policies.kinds import Kinds


@dataclass(frozen=True, slots=True)
class Existing:
    """A mutate rule with targets; `shared`: it does the same for every trigger that it fits."""

    policy: Policy
    rule: PolicyRule
    shared: bool

    @property
    def name(self) -> RuleName:
        """Which rule."""
        return self.policy.key, self.rule.name


@dataclass(frozen=True, slots=True)
class RuleTable:
    """Rules by what they are asked about."""

    policies: Policies = field(default_factory=Policies)
    needs: Needs = field(default_factory=Needs)
    generating: Mapping[Resource, tuple[Policy, ...]] = field(default_factory=dict)
    """By the kind of the trigger; reduced to the rules that it concerns."""
    changing: Mapping[Resource, tuple[Existing, ...]] = field(default_factory=dict)
    rules: Mapping[RuleName, PolicyRule] = field(default_factory=dict)
    """The background rules that are carried out."""
    held: frozenset[RuleName] = frozenset()
    """Rules that are there and may not run."""
    unread: frozenset[str] = frozenset()
    """Policies of which an older version, or nothing, is in force."""

    def standing(self, name: RuleName) -> RuleStanding:
        """What has become of a rule."""
        if name in self.rules:
            return RuleStanding.IN_FORCE
        if name in self.held or name[0] in self.unread or not self.policies.complete:
            return RuleStanding.HELD
        return RuleStanding.GONE

    def makes(self, mark: Mark, kind: ObjectKind) -> bool:
        """Whether the rule that a mark names is in force and makes objects of that kind.

        Never so for a Namespace: policies label them.
        """
        name = (mark.owner.policy, mark.owner.rule)
        if name not in self.rules or kind.kind == "Namespace":
            return False
        made = self.needs.rules[name].downstreams
        return any((r.group, r.kind) == (kind.group, kind.kind) for r in made)

    @property
    def deletions(self) -> frozenset[Resource]:
        """Kinds whose deletion runs a rule."""
        return frozenset(
            r for needs in self.needs.rules.values() if needs.deletions for r in needs.triggers
        )

    @property
    def noting(self) -> frozenset[Resource]:
        """Kinds whose rules ask who made their objects."""
        return frozenset(
            resource
            for name, rule in self.rules.items()
            if notes_creator(rule)
            for resource in self.needs.rules[name].triggers
        )

    def listing(self, resource: Resource, namespace: str) -> frozenset[Resource]:
        """Kinds of triggers whose rules copy all objects of a kind in that namespace, or read them
        in expressions."""
        return frozenset(
            trigger
            for name, rule in self.rules.items()
            if isinstance(rule.action, Generation)
            and any(isinstance(d.source, _READING) for d in rule.action.downstreams)
            and {(resource, namespace), (resource, "")} & self.needs.rules[name].sources
            for trigger in self.needs.rules[name].triggers
        )


_READING = (CloneList, Expressed, Rendered)


def table_of(policies: Policies, kinds: Kinds) -> RuleTable:
    """Index the policies in force; raises KubeError while kinds cannot be looked up."""
    needs = needs_of(policies.policies, kinds)
    generating: dict[Resource, list[Policy]] = defaultdict(list)
    changing: dict[Resource, list[Existing]] = defaultdict(list)
    rules: dict[RuleName, PolicyRule] = {}
    held: set[RuleName] = set()
    for policy in policies.policies:
        for rule in policy.rules:
            name = (policy.key, rule.name)
            if name in needs.problems or not isinstance(rule.action, Generation | Mutation):
                held.add(name)
            elif is_background(rule):
                rules[name] = rule
        for resource in needs.triggers:
            here = [
                r
                for r in policy.rules
                if (policy.key, r.name) in rules
                and resource in needs.rules[policy.key, r.name].triggers
            ]
            if made := tuple(r for r in here if isinstance(r.action, Generation)):
                generating[resource].append(replace(policy, rules=made))
            changing[resource] += [
                Existing(policy, r, not depends_on_trigger(r))
                for r in here
                if isinstance(r.action, Mutation)
            ]
    return RuleTable(
        policies,
        needs,
        {resource: tuple(found) for resource, found in generating.items()},
        {resource: tuple(found) for resource, found in changing.items() if found},
        rules,
        frozenset(held),
        frozenset(refused.policy for refused in policies.refused if not refused.rule),
    )


def is_existing(rule: PolicyRule) -> bool:
    """Whether a rule is also about triggers that are older than it."""
    return isinstance(rule.action, Generation | Mutation) and rule.action.existing


def pattern_of(rule: PolicyRule) -> str:
    """Changes when a rule that makes objects once has to make them again."""
    return pattern_digest(rule.action) if isinstance(rule.action, Generation) else ""
