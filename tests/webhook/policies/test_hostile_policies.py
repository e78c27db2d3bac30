"""Policies that hurt: each is an error of its own rule, within a request's time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from generators.kyverno.engine import Environment
from generators.kyverno.model import FailurePolicy
from generators.tenants.model import TenantConfig
from tests.webhook import reviews
from tests.webhook.policies.application import ANY, IGNORE, Webhook, labelling, policy
from tests.webhook.reviews import ns, request
from webhook.policies import mutation
from webhook.policies.lookups import AdmissionLookups
from webhook.policies.roles import Roles

HOSTILE: dict[str, Callable[[], str]] = {
    "deep": lambda: labelling("bad", "a", '"{{ ' + "(" * 500 + "a" + ")" * 500 + ' }}"'),
    "huge": lambda: labelling("bad", "a", '"{{ ' + "a." * 6000 + 'a }}"'),
    "random": lambda: labelling("bad", "a", "\"{{ random('([a-z]{60000}){60000}') }}\""),
    "backtracking": lambda: labelling(
        "bad", "a", "\"{{ regex_match('(a+)+$', '" + "a" * 5000 + "b') }}\""
    ),
    "loops in loops": lambda: policy(
        "bad",
        f"""
        {ANY}
        context: [{{name: l, variable: {{value: [{",".join("1" * 1000)}]}}}}]
        mutate:
          foreach:
          - list: l
            foreach:
            - list: l
              patchStrategicMerge: {{metadata: {{annotations: {{a: x}}}}}}
        """,
    ),
    "nested": lambda: labelling("bad", "a", '"' + "{{" * 200 + "a" + "}}" * 200 + '"'),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.timeout(10)
def test_a_hostile_policy_is_an_error_of_its_rule_and_hurts_nobody_else(
    webhook: Webhook, kind: str
) -> None:
    webhook.write(labelling("sound", "zone", "a", spec="failurePolicy: Ignore"), HOSTILE[kind]())
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"] or "patch" in response
    assert webhook.labels(ns("plain"), IGNORE) == {"zone": "a"}


def test_a_request_waits_for_its_policies_three_seconds_at_most(
    webhook: Webhook, config: TenantConfig
) -> None:
    webhook.write(labelling("first", "a", "x"), labelling("second", "b", '"{{request.operation}}"'))
    webhook.client()
    seconds = itertools.count()
    bench = mutation.AdmissionDeps(
        config,
        webhook.desk.book.current,
        Environment(AdmissionLookups(None)),
        "controller",
        lambda review: Roles(),
        clock=lambda: float(next(seconds)) * 2,
    )
    decision = mutation.decide(bench, reviews.create(ns("plain")), FailurePolicy.FAIL)
    assert not decision.allowed
    assert "policy second: the policies before it took longer than 3 s" in decision.message
