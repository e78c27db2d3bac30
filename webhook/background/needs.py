"""Which kinds of objects must be followed to carry out the policies in force.

Pure but for the kinds that the API server serves, which come through `Kinds`. A rule whose kinds
cannot be determined or are not served is not carried out and is reported by name; the others are
unaffected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from generators.documents.json import ObjectKind, items, leaves, split_api_version, text
from generators.kube.resources import Resource
from generators.kyverno.cel import foreseen
from generators.kyverno.language import wildcards
from generators.kyverno.matching import names_kind
from generators.kyverno.model import (
    Clone,
    CloneList,
    Data,
    Downstream,
    Expressed,
    Expression,
    Generation,
    KindPattern,
    Mutation,
    Policy,
    PolicyRule,
    Rendered,
    Target,
    Template,
)
from generators.kyverno.usage import parts
from generators.kyverno.variables import has_variable
from webhook.policies.kinds import Kinds

RuleName = tuple[str, str]
"""Key of a policy, name of a rule."""


@dataclass(frozen=True, slots=True)
class RuleNeeds:
    """What one rule needs, or why it cannot be carried out."""

    triggers: frozenset[Resource] = frozenset()
    downstreams: frozenset[Resource] = frozenset()
    targets: frozenset[Resource] = frozenset()
    sources: frozenset[tuple[Resource, str]] = frozenset()
    """With the namespace that they are in; empty if a variable decides."""
    deletions: bool = False
    """The rule also runs when its trigger is deleted."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Needs:
    """What all rules need together."""

    rules: Mapping[RuleName, RuleNeeds] = field(default_factory=dict)

    @property
    def _sound(self) -> Iterable[RuleNeeds]:
        return (needs for needs in self.rules.values() if not needs.problem)

    @property
    def triggers(self) -> frozenset[Resource]:
        """Kinds whose changes run rules."""
        return frozenset(r for needs in self._sound for r in needs.triggers)

    @property
    def downstreams(self) -> frozenset[Resource]:
        """Kinds that rules generate."""
        return frozenset(r for needs in self._sound for r in needs.downstreams)

    @property
    def targets(self) -> frozenset[Resource]:
        """Kinds that rules change where they exist."""
        return frozenset(r for needs in self._sound for r in needs.targets)

    @property
    def sources(self) -> frozenset[tuple[Resource, str]]:
        """Kinds and namespaces that rules copy from."""
        found = frozenset(s for needs in self._sound for s in needs.sources)
        whole = {resource for resource, namespace in found if not namespace}
        return frozenset((r, n) for r, n in found if not n or r not in whole)

    @property
    def problems(self) -> dict[RuleName, str]:
        """Rules that cannot be carried out."""
        return {name: needs.problem for name, needs in self.rules.items() if needs.problem}


class _Unknown(Exception):
    """The kinds of a rule cannot be determined."""


def needs_of(policies: Sequence[Policy], kinds: Kinds) -> Needs:
    """What the background rules among these policies' rules need."""
    found: dict[RuleName, RuleNeeds] = {}
    for policy in policies:
        for rule in policy.rules:
            if is_background(rule):
                try:
                    found[policy.key, rule.name] = _needs(policy, rule, kinds)
                except _Unknown as why:
                    found[policy.key, rule.name] = RuleNeeds(problem=str(why))
    return Needs(found | dict(_looping(policies, found)))


def _looping(
    policies: Iterable[Policy], found: Mapping[RuleName, RuleNeeds]
) -> Iterator[tuple[RuleName, RuleNeeds]]:
    """Rules that would trigger each other: those that ask to see what other rules made."""
    chained = {
        (policy.key, rule.name): found[policy.key, rule.name]
        for policy in policies
        for rule in policy.rules
        if not rule.skip_background and (policy.key, rule.name) in found
    }
    for name, needs in chained.items():
        reached = set(needs.downstreams)
        path = [name]
        while True:
            nexts = [n for n, e in chained.items() if n not in path and e.triggers & reached]
            if reached & needs.triggers or not nexts:
                break
            path += nexts
            reached |= {r for n in nexts for r in chained[n].downstreams}
        if reached & needs.triggers:
            others = ", ".join("/".join(each) for each in path)
            yield name, RuleNeeds(problem=f"these rules would trigger each other forever: {others}")


def is_background(rule: PolicyRule) -> bool:
    """Whether a rule is carried out behind the request."""
    action = rule.action
    return isinstance(action, Generation) or (isinstance(action, Mutation) and bool(action.targets))


def _needs(policy: Policy, rule: PolicyRule, kinds: Kinds) -> RuleNeeds:
    action = rule.action
    patterns = [pattern for one in rule.match.filters for pattern in one.kinds]
    triggers = frozenset(r for pattern in patterns for r in _triggers(pattern, kinds))
    if not triggers:
        named = ", ".join(pattern.shown for pattern in patterns) or "no kind"
        raise _Unknown(f"{rule.match.filters[0].place}: the API server serves none of: {named}")
    operations = [one.operations for one in rule.match.filters if one.operations is not None]
    deletions = any("DELETE" in each for each in operations)
    if isinstance(action, Mutation):
        targets = frozenset(r for target in action.targets for r in _targets(target, kinds))
        return RuleNeeds(triggers, targets=targets, deletions=deletions)
    if not isinstance(action, Generation):
        return RuleNeeds(triggers)
    made = [_made(policy, rule, downstream, kinds) for downstream in action.downstreams]
    return RuleNeeds(
        triggers,
        downstreams=frozenset(r for resources, _ in made for r in resources),
        sources=frozenset(s for _, sources in made for s in sources),
        deletions=deletions,
    )


def _triggers(pattern: KindPattern, kinds: Kinds) -> Iterator[Resource]:
    if pattern.subresource not in ("", "*"):
        return
    if wildcards.has_wildcard(pattern.shown):
        raise _Unknown(f"kind {pattern.shown} would follow every object; name the kinds")
    yield from kinds.matching(
        lambda group: wildcards.matches(pattern.group, group),
        lambda version: wildcards.matches(pattern.version, version),
        lambda kind: names_kind(pattern, kind),
    )


def _targets(target: Target, kinds: Kinds) -> Iterator[Resource]:
    if target.expression is None:
        yield _exact(target.fields, kinds)
        return
    found = foreseen.reads((target.expression, *target.setting.variables))
    if not found:
        raise _Unknown(f"{target.place}: write out what resource.get() or list() reads")
    for read in sorted(found):
        yield _served(str(target.place), read.kind, kinds)


def _exact(template: Template, kinds: Kinds) -> Resource:
    value = template.value
    api_version, kind = text(value, "apiVersion"), text(value, "kind")
    if has_variable(api_version) or has_variable(kind):
        raise _Unknown(f"{template.place}: apiVersion and kind must be written out")
    if not api_version:
        found = kinds.matching(lambda _: True, lambda _: True, lambda name: name == kind)
        if found:
            return found[0]
    return _served(f"{template.place}", ObjectKind(*split_api_version(api_version), kind), kinds)


def _served(where: str, kind: ObjectKind, kinds: Kinds) -> Resource:
    resource = kinds.find(kind.group, kind.version, kind.kind)
    if resource is None:
        raise _Unknown(f"{where}: the API server does not serve {kind}")
    return resource


_Made = tuple[Sequence[Resource], Sequence[tuple[Resource, str]]]


def _made(policy: Policy, rule: PolicyRule, downstream: Downstream, kinds: Kinds) -> _Made:
    match downstream.source:
        case (Expressed() | Rendered()) as source:
            return _by_expression(policy, rule, source, kinds)
        case Data():
            return [_exact(downstream.target, kinds)], []
        case Clone(source):
            resource = _exact(downstream.target, kinds)
            return [resource], [(resource, _home(policy, source))]
        case CloneList(fields):
            found = []
            for item in items(fields.value, "kinds"):
                api_version, _, kind = str(item).rpartition("/")
                wanted = ObjectKind(*split_api_version(api_version or "v1"), kind)
                found.append(_served(str(fields.place), wanted, kinds))
            return found, [(resource, _home(policy, fields)) for resource in found]


def _by_expression(
    policy: Policy, rule: PolicyRule, source: Expressed | Rendered, kinds: Kinds
) -> _Made:
    """What expressions make and read, as far as they say it."""
    where = str(rule.place)
    made = [
        _served(where, kind, kinds)
        for kind in sorted(foreseen.made(source, rule.setting.variables))
    ]
    if not made:
        raise _Unknown(f"{where}: write out the apiVersion and kind of what is generated")
    return made, sorted(_read(policy, rule, source, kinds), key=str)


def _read(
    policy: Policy, rule: PolicyRule, source: Expressed | Rendered, kinds: Kinds
) -> Iterator[tuple[Resource, str]]:
    expressions = foreseen.expressions_of(rule)
    if isinstance(source, Expressed):
        expressions = (*expressions, source.expression)
    for read in sorted(foreseen.reads(expressions)):
        yield _served(str(rule.place), read.kind, kinds), policy.namespace or read.namespace


def _home(policy: Policy, source: Template) -> str:
    if policy.namespace:
        return policy.namespace
    namespace = text(source.value, "namespace")
    return "" if has_variable(namespace) else namespace


def depends_on_trigger(rule: PolicyRule) -> bool:
    """Whether what a mutate rule does to its targets can differ from trigger to trigger."""
    if not isinstance(rule.action, Mutation):
        return True
    if next(parts(rule, Expression), None) is not None:
        return True
    whole = (rule.action, rule.setting.context)
    texts = (
        item
        for template in parts(whole, Template)
        for _, item in leaves(template.value)
        if isinstance(item, str)
    )
    return any(has_variable(item) and "target" not in item for item in texts) or any(
        word in item
        for template in parts(whole, Template)
        for _, item in leaves(template.value)
        if isinstance(item, str)
        for word in ("request", "serviceAccount", "images", "random")
    )
