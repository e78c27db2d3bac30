"""What the generate rules in force want for one trigger, as it is now. Pure but for their lookups.

A trigger that exists is asked about as a request that makes it, which is how Kyverno sees existing
objects; rules that only list UPDATE see an update that changes nothing. What a rule made for one
trigger does not trigger others, unless the rule asks for it (`skipBackgroundRequests: false`):
`own` says so; the caller verifies it, because anyone may write a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from generators.kyverno.engine import Environment, generate
from generators.kyverno.generation import WantedObject
from generators.kyverno.model import ApplyRules, Document, Generation, Operation, Policy, PolicyRule
from generators.kyverno.requests import Asker, PolicyRequest
from generators.kyverno.results import RuleOutcome, RuleResult
from generators.kyverno.usage import asks_who
from webhook.background.needs import RuleName

Asking = Callable[[PolicyRule], "PolicyRequest | None"]


class Applies(Enum):
    """Whether a rule wants something for a trigger."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    """It failed: what it has made stays as it is."""


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """One rule about one trigger."""

    policy: Policy
    rule: PolicyRule
    applies: Applies
    wanted: tuple[WantedObject, ...] = ()
    message: str = ""

    @property
    def name(self) -> RuleName:
        """Which rule."""
        return self.policy.key, self.rule.name


def judge(
    policies: Iterable[Policy],
    trigger: Document,
    environment: Environment,
    *,
    own: bool,
    creator: Asker | None,
) -> list[RuleVerdict]:
    """Every generate rule about a trigger that exists; None = who made it is not known."""
    return [
        verdict
        for policy in policies
        for verdict in _of_policy(
            policy, environment, lambda rule: living(rule, trigger, own, creator)
        )
    ]


def judge_deleted(
    policies: Iterable[Policy], trigger: Document | None, environment: Environment, *, own: bool
) -> list[RuleVerdict]:
    """The rules that generate when their trigger is deleted; None = it is long gone."""
    gone = None
    if trigger is not None:
        gone = PolicyRequest(Operation.DELETE, {}, trigger, own=own)
    return [
        verdict
        for policy in policies
        for verdict in _of_policy(
            policy, environment, lambda rule: gone if on_deletion(rule) else None
        )
    ]


def on_deletion(rule: PolicyRule) -> bool:
    """Whether deleting the trigger runs the rule."""
    return any(Operation.DELETE in (one.operations or ()) for one in rule.match.filters)


def living(
    rule: PolicyRule, trigger: Document, own: bool, creator: Asker | None
) -> PolicyRequest | None:
    """The request that stands for an existing trigger; None when the rule is about deletions."""
    asked = [one.operations for one in rule.match.filters]
    if creator is not None and not asks_who(rule):
        creator = None
    if any(each is None or Operation.CREATE in each for each in asked):
        return PolicyRequest(Operation.CREATE, trigger, {}, creator, own=own)
    if any(each is not None and Operation.UPDATE in each for each in asked):
        return PolicyRequest(Operation.UPDATE, trigger, trigger, creator, own=own)
    return None


def _of_policy(policy: Policy, environment: Environment, ask: Asking) -> Iterable[RuleVerdict]:
    for rule in policy.rules:
        if not isinstance(rule.action, Generation):
            continue
        verdict = _verdict(policy, rule, ask(rule), environment)
        yield verdict
        if policy.apply is ApplyRules.ONE and verdict.applies is Applies.YES:
            return


def _verdict(
    policy: Policy, rule: PolicyRule, request: PolicyRequest | None, environment: Environment
) -> RuleVerdict:
    if request is None:
        return RuleVerdict(policy, rule, Applies.NO, message="it runs on other operations")
    made = generate([replace(policy, rules=(rule,))], request, environment)
    result: RuleResult = made.results[0]
    match result.outcome:
        case RuleOutcome.PASS:
            return RuleVerdict(policy, rule, Applies.YES, made.wanted, result.message)
        case RuleOutcome.EXCLUDED | RuleOutcome.SKIP:
            return RuleVerdict(policy, rule, Applies.NO, message=result.message)
        case _:
            return RuleVerdict(policy, rule, Applies.UNKNOWN, message=result.message)
