"""Policies + a request -> what becomes of the object, what should exist, and why: the seam.

    mutate            the admitted object, each rule seeing what the one before left
    mutate_existing   other objects that a trigger's rules change, in the background
    generate          objects that should exist because of a trigger
    applicability     whether a rule applies to a request at all, for synchronisation

Pure: everything that is read comes through `Environment`. A rule that fails gives a result and
stops nothing else; what a failure means for the request is the caller's decision by the policy's
`failure`. Results come in the order of policies and rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    labels_of,
    mapping,
    object_key_of,
    split_api_version,
    text,
)
from generators.kyverno import expressed, mutation
from generators.kyverno.conditions import first_unmet
from generators.kyverno.context import Clock, ContextScope, World, chooser, scope_for, wall_clock
from generators.kyverno.failures import RuleFailure
from generators.kyverno.generation import WantedObject, wanted_objects
from generators.kyverno.language import wildcards
from generators.kyverno.language.functions import Meter, Surroundings, never
from generators.kyverno.limits import GuardedLookups, Limits, check_change, check_write
from generators.kyverno.matching import (
    filter_mismatch,
    mismatch,
    selector_mismatch,
    selector_pattern,
)
from generators.kyverno.model import (
    ApplyRules,
    Document,
    Generation,
    Mutation,
    Operation,
    Policy,
    PolicyRule,
    Target,
    Unsupported,
)
from generators.kyverno.mutation import Nothing
from generators.kyverno.requests import Lookups, PolicyRequest, existing
from generators.kyverno.results import RuleKind, RuleOutcome, RuleResult
from generators.kyverno.variables import fill
from generators.manifests.kinds import CLUSTER_SCOPED

_FAILURES = (RuleFailure, RecursionError)
"""Everything that a hostile policy or object can bring about."""


def _told(failure: Exception) -> str:
    return "it is nested too deep" if isinstance(failure, RecursionError) else str(failure)


Given = Callable[[Policy, PolicyRule, ObjectKey], Mapping[str, Value]]


def nothing_given(policy: Policy, rule: PolicyRule, resource: ObjectKey) -> Mapping[str, Value]:
    """No values from outside."""
    return {}


@dataclass(frozen=True, slots=True)
class Environment:
    """What the engine may read and use."""

    lookups: Lookups
    limits: Limits = field(default_factory=Limits)
    clock: Clock = wall_clock
    given: Given = nothing_given
    overdue: Callable[[], bool] = never
    """Whether no caller waits for the results any more: rules then end with an error."""


@dataclass(frozen=True, slots=True)
class Mutated:
    """The object after all rules."""

    document: Document
    results: tuple[RuleResult, ...]


@dataclass(frozen=True, slots=True)
class TargetChange:
    """What a rule did with one existing object; `after` None = it stays as it is."""

    result: RuleResult
    before: Document
    after: Document | None


@dataclass(frozen=True, slots=True)
class Generated:
    """What should exist because of a trigger."""

    wanted: tuple[WantedObject, ...]
    results: tuple[RuleResult, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """One rule of one policy on one request."""

    policy: Policy
    rule: PolicyRule
    request: PolicyRequest
    environment: Environment

    def lookups(self) -> GuardedLookups:
        return GuardedLookups(
            self.environment.lookups, self.environment.limits, self.policy.namespace
        )

    def scope(self) -> ContextScope:
        key = self.request.key
        seed = f"{self.policy.key}\n{self.rule.name}\n{key}\n{self.request.uid}"
        world = World(
            self.lookups(),
            Surroundings(
                self.environment.clock, chooser(seed), Meter(overdue=self.environment.overdue)
            ),
            self.environment.given(self.policy, self.rule, key),
        )
        scope = scope_for(self.request, world).with_entries(self.rule.setting.context)
        return scope.with_expressions(self.rule.setting.variables)

    def result(
        self, outcome: RuleOutcome, message: str, target: ObjectKey | None = None
    ) -> RuleResult:
        return RuleResult(
            policy=self.policy.key,
            rule=self.rule.name,
            kind=_kind_of(self.rule),
            resource=self.request.key,
            outcome=outcome,
            message=message,
            place=self.rule.place,
            target=target,
        )

    def unfit(self, scope: ContextScope) -> RuleResult | None:
        """Why the rule does not run; None when it does."""
        if why := mismatch(self.rule, self.policy.namespace, self.request, self.lookups()):
            return self.result(RuleOutcome.EXCLUDED, why)
        if why := first_unmet(self.rule.setting.preconditions, scope):
            return self.result(RuleOutcome.SKIP, f"preconditions: {why}")
        if why := expressed.first_unmet(self.rule.setting.conditions, scope):
            return self.result(RuleOutcome.SKIP, f"matchConditions: {why}")
        return None


def _kind_of(rule: PolicyRule) -> RuleKind:
    match rule.action:
        case Mutation():
            return RuleKind.MUTATE
        case Generation():
            return RuleKind.GENERATE
        case Unsupported():
            return RuleKind.UNSUPPORTED


def applicability(
    policy: Policy, rule: PolicyRule, request: PolicyRequest, environment: Environment
) -> RuleResult | None:
    """Why a rule does not apply: match, exclude, preconditions; None when it does.

    RuleFailure if that is unknown: never to be taken for a no.
    """
    case = _Case(policy, rule, request, environment)
    return case.unfit(case.scope())


def mutate(policies: Iterable[Policy], request: PolicyRequest, environment: Environment) -> Mutated:
    """Carry out the mutate rules without targets on the request's own object."""
    results: list[RuleResult] = []
    for policy in policies:
        for rule in policy.rules:
            action = rule.action
            if not isinstance(action, Mutation) or action.targets:
                continue
            case = _Case(policy, rule, request, environment)
            result, document = _mutated(case, action)
            results.append(result)
            if document is not None:
                request = request.about(document)
            if policy.apply is ApplyRules.ONE and result.outcome is RuleOutcome.PASS:
                break
    return Mutated(request.resource, tuple(results))


def _mutated(case: _Case, action: Mutation) -> tuple[RuleResult, Document | None]:
    try:
        scope = case.scope()
        if (unfit := case.unfit(scope)) is not None:
            return unfit, None
        before = case.request.resource
        after = mutation.patched(action.patch, before, scope, "request.object")
        check_change(case.environment.limits, before, after)
    except Nothing as nothing:
        return case.result(RuleOutcome.SKIP, str(nothing)), None
    except _FAILURES as failure:
        return case.result(RuleOutcome.ERROR, _told(failure)), None
    return case.result(RuleOutcome.PASS, f"mutated {case.request.key}"), after


def mutate_existing(
    policies: Iterable[Policy], trigger: PolicyRequest, environment: Environment
) -> tuple[TargetChange, ...]:
    """Carry out the mutate rules with targets; a target that several rules change accumulates."""
    changes: list[TargetChange] = []
    current: dict[ObjectKey, Document] = {}
    for policy in policies:
        for rule in policy.rules:
            if isinstance(rule.action, Mutation) and rule.action.targets:
                case = _Case(policy, rule, trigger, environment)
                made = _existing(case, rule.action, current)
                changes += made
                if policy.apply is ApplyRules.ONE and any(c.after is not None for c in made):
                    break
    return tuple(changes)


def _existing(
    case: _Case, action: Mutation, current: dict[ObjectKey, Document]
) -> list[TargetChange]:
    try:
        scope = case.scope()
        if (unfit := case.unfit(scope)) is not None:
            return [TargetChange(unfit, {}, None)]
        found = [
            (target, document)
            for target in action.targets
            for document in _targets(target, case, scope)
        ]
    except _FAILURES as failure:
        return [TargetChange(case.result(RuleOutcome.ERROR, _told(failure)), {}, None)]
    if not found:
        none = case.result(RuleOutcome.SKIP, "no object is a target")
        return [TargetChange(none, {}, None)]
    changes = []
    for target, document in found:
        key = object_key_of(document)
        change = _target_change(case, action, target, scope, current.get(key, document))
        if change.after is not None:
            current[key] = change.after
        changes.append(change)
    return changes


def _targets(target: Target, case: _Case, scope: ContextScope) -> Sequence[Document]:
    """The objects that a target names; an empty name or namespace is `*`."""
    if target.expression is not None:
        return _existing_now(expressed.targets(target.expression, scope), case)
    fields = fill(target.fields, scope)
    group, version = split_api_version(text(fields, "apiVersion") or "*/*")
    kind = ObjectKind(group, version, text(fields, "kind"))
    namespace = case.policy.namespace or text(fields, "namespace")
    name = text(fields, "name") or "*"
    if kind.kind in CLUSTER_SCOPED:
        namespace = ""
    selector = selector_pattern(mapping(fields, "selector"))
    found = case.lookups().list(kind, namespace)
    return sorted(
        (
            document
            for document in found
            if wildcards.matches(name, object_key_of(document).name)
            and not selector_mismatch(selector, labels_of(document))
            and _fits(target, case, document)
        ),
        key=object_key_of,
    )


def _fits(target: Target, case: _Case, document: Document) -> bool:
    """Whether a target fits the constraints beside its kind; its operations are the trigger's."""
    if target.match is None:
        return True
    request = replace(existing(document), operation=Operation.UPDATE)
    return any(
        not filter_mismatch(replace(one, operations=None), request, case.lookups())
        for one in target.match.filters
    )


def _existing_now(found: Iterable[Document], case: _Case) -> Sequence[Document]:
    """What an expression gave, as it is there: expressions may change what they read."""
    keys = sorted({object_key_of(each) for each in found})
    there = (case.lookups().find(key) for key in keys)
    return [document for document in there if document is not None]


def _target_change(
    case: _Case, action: Mutation, target: Target, scope: ContextScope, document: Document
) -> TargetChange:
    key = object_key_of(document)
    inner = scope.with_values({"target": document}).with_entries(target.setting.context)
    inner = inner.with_expressions(target.setting.variables)
    try:
        check_write(case.environment.limits, case.policy.namespace, key)
        if why := first_unmet(target.setting.preconditions, inner):
            skipped = case.result(RuleOutcome.SKIP, f"preconditions: {why}", key)
            return TargetChange(skipped, document, None)
        if why := expressed.first_unmet(target.setting.conditions, inner):
            skipped = case.result(RuleOutcome.SKIP, f"targetMatchConditions: {why}", key)
            return TargetChange(skipped, document, None)
        after = mutation.patched(action.patch, document, inner, "target")
        check_change(case.environment.limits, document, after)
    except Nothing as nothing:
        return TargetChange(case.result(RuleOutcome.SKIP, str(nothing), key), document, None)
    except _FAILURES as failure:
        return TargetChange(case.result(RuleOutcome.ERROR, _told(failure), key), document, None)
    return TargetChange(case.result(RuleOutcome.PASS, f"mutated {key}", key), document, after)


def generate(
    policies: Iterable[Policy], trigger: PolicyRequest, environment: Environment
) -> Generated:
    """What the generate rules want to exist because of the trigger; nothing on a dry run."""
    wanted: list[WantedObject] = []
    results: list[RuleResult] = []
    for policy in policies if not trigger.dry_run else ():
        for rule in policy.rules:
            if not isinstance(rule.action, Generation):
                continue
            result, made = _generated(_Case(policy, rule, trigger, environment), rule.action)
            results.append(result)
            wanted += made
            if policy.apply is ApplyRules.ONE and result.outcome is RuleOutcome.PASS:
                break
    return Generated(tuple(wanted), tuple(results))


def _generated(case: _Case, action: Generation) -> tuple[RuleResult, tuple[WantedObject, ...]]:
    try:
        scope = case.scope()
        if (unfit := case.unfit(scope)) is not None:
            return unfit, ()
        made = wanted_objects(case.policy, case.rule, action, case.request, scope)
    except _FAILURES as failure:
        return case.result(RuleOutcome.ERROR, _told(failure)), ()
    if not made:
        return case.result(RuleOutcome.SKIP, "there is nothing to generate"), ()
    shown = ", ".join(str(wanted.key) for wanted in made[:5])
    more = f" and {len(made) - 5} more" if len(made) > 5 else ""
    return case.result(RuleOutcome.PASS, f"generated {shown}{more}"), made


def unsupported(
    policies: Iterable[Policy], request: PolicyRequest, environment: Environment
) -> tuple[RuleResult, ...]:
    """A warning for each rule that would have applied but is not carried out here."""
    warnings: list[RuleResult] = []
    for policy in policies:
        for rule in policy.rules:
            if not isinstance(rule.action, Unsupported):
                continue
            case = _Case(policy, rule, request, environment)
            try:
                why = mismatch(rule, policy.namespace, request, case.lookups())
            except _FAILURES as failure:
                warnings.append(case.result(RuleOutcome.ERROR, _told(failure)))
                continue
            if not why:
                reasons = "; ".join(str(reason) for reason in rule.action.reasons)
                warnings.append(case.result(RuleOutcome.WARN, f"not carried out: {reasons}"))
    return tuple(warnings)
