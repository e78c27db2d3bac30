"""Mutate rules with targets: which existing objects they change, and which they may not."""

from __future__ import annotations

import pytest

from generators.kyverno.engine import mutate_existing
from generators.kyverno.limits import Limits
from generators.kyverno.results import RuleOutcome
from tests.generators.kyverno.policies import EVERY_KIND, create, environment, ns, rule, thing


def existing_rule(target: str, patch: str) -> str:
    return (
        "match: {any: [{resources: {kinds: [ConfigMap]}}]}\nmutate:\n"
        "  mutateExistingOnPolicyUpdate: true\n"
        f"  targets: [{target}]\n  patchStrategicMerge: {patch}"
    )


TRIGGER = thing("ConfigMap", "admin", "settings", data={"zone": "west"})


PATCH = '{metadata: {labels: {zone: "{{ request.object.data.zone }}"}}}'


@pytest.mark.parametrize(
    ("target", "changed"),
    [
        ("{apiVersion: v1, kind: Namespace}", {"a", "b-x"}),
        ("{apiVersion: v1, kind: Namespace, name: '*-x'}", {"b-x"}),
        ("{apiVersion: v1, kind: Namespace, name: '', namespace: ''}", {"a", "b-x"}),
        (
            "{apiVersion: v1, kind: Namespace, selector: {matchLabels: {client: 'test*'}}}",
            {"b-x"},
        ),
        (
            "{apiVersion: v1, kind: Namespace, preconditions: {all: [{key: "
            "'{{ target.metadata.name }}', operator: Equals, value: a}]}}",
            {"a"},
        ),
        (
            "{apiVersion: v1, kind: Namespace, context: [{name: me, variable: {jmesPath: "
            "target.metadata.name}}], preconditions: {all: [{key: '{{ me }}', "
            "operator: Equals, value: a}]}}",
            {"a"},
        ),
        ("{apiVersion: v1, kind: ConfigMap, namespace: '*', name: c}", {"c"}),
        ("{apiVersion: v1, kind: ConfigMap, namespace: none}", set()),
    ],
)
def test_targets(target: str, changed: set[str]) -> None:
    cluster = environment(
        [ns("a"), ns("b-x", client="test02"), thing("ConfigMap", "shop", "c"), ns("kube-system")]
    )
    changes = mutate_existing(rule(existing_rule(target, PATCH)), create(TRIGGER), cluster)
    done = {str(c.after["metadata"]["name"]) for c in changes if c.after is not None}  # type: ignore[index,call-overload]
    assert done == changed
    assert all(c.result.outcome is not RuleOutcome.PASS for c in changes if c.after is None)


def test_protected_namespaces_are_no_targets() -> None:
    target = "{apiVersion: v1, kind: Namespace, name: kube-system}"
    (change,) = mutate_existing(
        rule(existing_rule(target, PATCH)), create(TRIGGER), environment([ns("kube-system")])
    )
    assert change.result.outcome is RuleOutcome.ERROR
    assert "protected" in change.result.message


def test_kinds_that_nobody_allowed_are_no_targets() -> None:
    target = "{apiVersion: v1, kind: Secret, name: s}"
    secret = thing("Secret", "shop", "s")
    policy = rule(existing_rule(target, PATCH))
    for limits, outcome in ((Limits(), RuleOutcome.ERROR), (EVERY_KIND, RuleOutcome.PASS)):
        (change,) = mutate_existing(policy, create(TRIGGER), environment([secret], limits))
        assert change.result.outcome is outcome
        assert outcome is RuleOutcome.PASS or "--allow-kind v1/Secret" in change.result.message


def test_a_namespaced_policy_changes_its_own_namespace_only() -> None:
    target = "{apiVersion: v1, kind: ConfigMap, namespace: other}"
    mine, other = thing("ConfigMap", "admin", "mine"), thing("ConfigMap", "other", "theirs")
    policy = rule(existing_rule(target, PATCH), kind="Policy", namespace="admin")
    changes = mutate_existing(policy, create(TRIGGER), environment([mine, other]))
    assert [str(c.result.target) for c in changes] == ["ConfigMap admin/mine"]
