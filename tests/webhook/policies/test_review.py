"""What is said when a policy is written: what Kyverno refuses is refused, changes are warned of."""

from __future__ import annotations

from typing import cast

import pytest
import yaml

from generators.kyverno.limits import Limits
from generators.kyverno.offline.loading import policies_in
from tests.webhook.reviews import JSONObject, body, request
from webhook.policies import review
from webhook.policies.book import Policies
from webhook.review import Decision, parse_review

RESOURCE: JSONObject = {"group": "kyverno.io", "version": "v1", "resource": "clusterpolicies"}
GENERATE = """\
spec:
  {spec}
  rules:
  - name: deny
    match: {{any: [{{resources: {{kinds: [Namespace]}}, {who} }}]}}
    generate:
      apiVersion: v1
      kind: {kind}
      name: {name}
      {namespace}
      synchronize: true
      {source}
"""
HOME = 'namespace: "{{request.object.metadata.name}}"'


def policy(
    spec: str = "background: true",
    who: str = "",
    kind: str = "ConfigMap",
    name: str = "made",
    namespace: str = HOME,
    source: str = "data: {a: b}",
) -> JSONObject:
    text = GENERATE.format(
        spec=spec, who=who, kind=kind, name=name, namespace=namespace, source=source
    )
    head = {"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "deny"}}
    return cast(JSONObject, head | yaml.safe_load(text))


def decide(new: JSONObject, old: JSONObject | None = None) -> Decision:
    asked = request("UPDATE" if old else "CREATE", new, old, resource=RESOURCE)
    asked |= {"kind": {"group": "kyverno.io", "version": "v1", "kind": "ClusterPolicy"}}
    return review.decide(Policies(), Limits(), parse_review(body(asked | {"name": "deny"})))


def test_a_policy_that_is_right_is_stored_without_a_word() -> None:
    decision = decide(policy())
    assert (decision.denial, decision.warnings) == (None, ())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"who": "clusterRoles: [admin]"}, "clusterRoles of a policy in background mode"),
        ({"who": "subjects: [{kind: User, name: a}]"}, "subjects of a policy in background mode"),
        ({"name": '"{{request.userInfo.username}}"'}, "variable request.userInfo"),
        ({"name": '"{{serviceAccountName}}"'}, "variable serviceAccountName"),
        ({"namespace": ""}, "target namespace must be set for a namespaced resource, ConfigMap"),
        (
            {"kind": "ClusterRole", "namespace": "namespace: a"},
            "target namespace must not be set for a cluster-wide resource, ClusterRole",
        ),
        (
            {"spec": "generateExistingOnPolicyUpdate: true"},
            "remove it and use generate.generateExisting",
        ),
        (
            {"spec": "{failurePolicy: Fail, webhookConfiguration: {failurePolicy: Fail}}"},
            "remove it and use spec.webhookConfiguration.failurePolicy",
        ),
        ({"spec": "webhookTimeoutSeconds: 31"}, "between 1 and 30 seconds"),
        (
            {"spec": "{admission: false, background: false}"},
            "disabling both admission and background",
        ),
    ],
)
def test_what_kyverno_refuses_is_refused(changed: dict[str, str], told: str) -> None:
    spec = changed.get("spec", "")
    if spec.startswith("{"):
        changed = changed | {"spec": spec[1:-1].replace(", w", "\n  w").replace(", b", "\n  b")}
    decision = decide(policy(**changed))
    assert decision.denial is not None
    assert told in decision.message


def test_user_data_may_be_asked_for_where_nothing_runs_in_the_background() -> None:
    assert decide(policy(spec="background: false", who="clusterRoles: [admin]")).denial is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": "other"}, "generates something else now; what it generated before is deleted"),
        ({"kind": "LimitRange"}, "generates something else now"),
        ({"source": "data: {a: c}"}, ""),
    ],
)
def test_changes_that_collect_what_was_generated_are_told(
    changed: dict[str, str], told: str
) -> None:
    decision = decide(policy(**changed), policy())
    assert decision.denial is None
    assert [told in each for each in decision.warnings] == ([True] if told else [])


def test_other_triggers_and_other_sources_of_copies_are_told() -> None:
    excluded = policy()
    rule = cast(list[JSONObject], cast(JSONObject, excluded["spec"])["rules"])[0]
    rule["exclude"] = {"any": [{"resources": {"names": ["kube-*"], "kinds": ["Namespace"]}}]}
    assert ["no longer fit is deleted" in each for each in decide(excluded, policy()).warnings] == [
        True
    ]
    before = policy(source="clone: {namespace: a, name: b}")
    after = policy(source="clone: {namespace: a, name: c}")
    assert ["generated before stays" in w for w in decide(after, before).warnings] == [True]


def test_a_copy_from_a_source_in_variables_is_told() -> None:
    source = 'clone: {namespace: "{{request.object.metadata.name}}", name: b}'
    assert ["source is in variables" in w for w in decide(policy(source=source)).warnings] == [True]


def test_a_policy_that_is_stored_already_runs_as_it_did() -> None:
    text = yaml.safe_dump(policy(who="clusterRoles: [admin]"))
    assert policies_in(text.encode(), "policy.yaml").problems == ()
