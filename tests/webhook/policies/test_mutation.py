"""Mutate rules at admission: policies from files, answered by the Flask application."""

from __future__ import annotations

import logging
import textwrap
from pathlib import Path

import pytest

from generators.documents.json import mapping, strings
from generators.tenants.assignment import Requester
from tests.webhook import reviews
from tests.webhook.policies.application import (
    ANY,
    FAIL,
    IGNORE,
    Webhook,
    labelling,
    message,
    policy,
)
from tests.webhook.reviews import CONTROLLER, ROBOT, JSONObject, decoded, ns, request
from webhook.policies.lookups import AdmissionLookups
from webhook.policies.roles import Roles


def noted_on(document: JSONObject) -> dict[str, str]:
    return strings(mapping(document, "metadata"), "annotations")


def test_each_policy_sees_what_the_one_before_left(webhook: Webhook) -> None:
    follows = policy(
        "b-follows",
        """
        match: {any: [{resources: {kinds: [Namespace], selector: {matchLabels: {team: shop}}}}]}
        mutate:
          patchStrategicMerge:
            metadata: {labels: {seen: "{{request.object.metadata.labels.team}}"}}
        """,
    )
    webhook.write(labelling("a-first", "team", "shop"), follows)
    assert webhook.labels(ns("plain")) == {"team": "shop", "seen": "shop"}


def test_apply_rules_one_ends_a_policy_after_its_first_rule_that_applied(webhook: Webhook) -> None:
    rule = "{ANY}\nmutate: {{patchStrategicMerge: {{metadata: {{labels: {{{label}: x}}}}}}}}"
    rules = [rule.format(ANY=ANY, label=label) for label in ("one", "two")]
    webhook.write(policy("one", *rules, spec="applyRules: One"))
    assert webhook.labels(ns("plain")) == {"one": "x"}


def test_the_patch_holds_only_what_changes(webhook: Webhook) -> None:
    webhook.write(labelling("team", "team", "shop"))
    response = webhook.ask(request("CREATE", ns("plain", {"kept": "yes"})))
    assert decoded(str(response["patch"])) == [
        {"op": "add", "path": "/metadata/labels/team", "value": "shop"}
    ]
    assert "patch" not in webhook.ask(request("CREATE", ns("plain", {"team": "shop"})))


def test_an_unresolved_variable_refuses_under_fail_and_names_policy_rule_and_place(
    webhook: Webhook,
) -> None:
    webhook.write(labelling("broken", "team", '"{{request.object.metadata.labels.nope}}"'))
    response = webhook.ask(request("CREATE", ns("plain", {"a": "b"})))
    assert not response["allowed"]
    text = message(response)
    assert "policy broken, rule rule-0" in text
    assert f"{webhook.folder}/all.yaml:" in text
    assert "labels.team" in text
    assert "labels.nope" in text


def test_an_unresolved_variable_warns_under_ignore_and_the_others_still_apply(
    webhook: Webhook,
) -> None:
    broken = labelling("broken", "team", '"{{request.object.nope}}"', spec="failurePolicy: Ignore")
    webhook.write(broken, labelling("sound", "zone", "a", spec="failurePolicy: Ignore"))
    response = webhook.ask(request("CREATE", ns("plain")), IGNORE)
    assert response["allowed"]
    warnings = response["warnings"]
    assert isinstance(warnings, list)
    assert "policy broken, rule rule-0" in warnings[0]
    assert webhook.labels(ns("plain"), IGNORE) == {"zone": "a"}


def test_each_policy_answers_where_its_failure_policy_is_registered(webhook: Webhook) -> None:
    webhook.write(
        labelling("f", "fail", "x"), labelling("i", "ignore", "x", spec="failurePolicy: Ignore")
    )
    assert webhook.labels(ns("plain"), FAIL) == {"fail": "x"}
    assert webhook.labels(ns("plain"), IGNORE) == {"ignore": "x"}


def test_a_policy_without_admission_changes_no_request(webhook: Webhook) -> None:
    webhook.write(labelling("later", "team", "x", spec="admission: false"))
    for path in (FAIL, IGNORE):
        assert "patch" not in webhook.ask(request("CREATE", ns("plain")), path)


def test_a_patch_that_makes_an_invalid_namespace_is_refused_with_a_message(
    webhook: Webhook,
) -> None:
    webhook.write(labelling("bad", "team", '"not a label!"'))
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert "metadata.labels.team" in message(response)


@pytest.mark.parametrize(
    "patch",
    [
        "{spec: {finalizers: [a/b]}}",
        "{metadata: {finalizers: [a/b]}}",
        "{metadata: {ownerReferences: [{kind: X, uid: x}]}}",
        "{status: {phase: Terminating}}",
    ],
)
def test_of_a_namespace_policies_change_labels_and_annotations_only(
    webhook: Webhook, patch: str
) -> None:
    webhook.write(policy("bold", f"{ANY}\nmutate: {{patchStrategicMerge: {patch}}}"))
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert "only labels and annotations" in message(response)


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        pytest.param({}, "client", "test02", id="tenant label of a namespace without tenant"),
        pytest.param({"client": "test01"}, "client", "test02", id="tenant label moved"),
        pytest.param({"client": "test01"}, "client", "null", id="tenant label removed"),
        pytest.param(
            {"client": "test01", "cost-centre": "4711"},
            "cost-centre",
            "other",
            id="further label of the tenant",
        ),
        pytest.param({}, "ringfence.io/policy", "x", id="our domain"),
        pytest.param({}, "x.ringfence.io/y", "x", id="below our domain"),
    ],
)
def test_no_policy_touches_what_the_tenant_file_decides(
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
    given: dict[str, str],
    key: str,
    value: str,
) -> None:
    caplog.set_level(logging.INFO)
    webhook.write(labelling("forge", key, value))
    subject = ns("plain", given) if given else ns("plain")
    response = webhook.ask(request("CREATE", subject))
    assert response["allowed"]
    assert "patch" not in response
    warnings = response["warnings"]
    assert isinstance(warnings, list)
    assert "policy forge may not change labels" in warnings[0]
    said = "".join(str(vars(record)) for record in caplog.records)
    assert "no rule applied; withheld: forge/" in said
    assert "'applied: " not in said


def test_a_forged_tenant_label_is_gone_before_the_next_policy_looks(webhook: Webhook) -> None:
    follows = policy(
        "b-follows",
        """
        match: {any: [{resources: {kinds: [Namespace], selector: {matchLabels: {client: test02}}}}]}
        mutate: {patchStrategicMerge: {metadata: {labels: {seen: "yes"}}}}
        """,
    )
    webhook.write(labelling("a-forge", "client", "test02"), follows)
    assert "seen" not in webhook.labels(ns("plain", {"x": "y"}))


def test_a_policy_that_writes_the_tenant_label_as_it_is_changes_nothing(webhook: Webhook) -> None:
    webhook.write(labelling("same", "client", "test01"))
    response = webhook.ask(request("CREATE", ns("a-test01", {"client": "test01"})))
    assert response["allowed"]
    assert "patch" not in response
    assert "warnings" not in response


@pytest.mark.parametrize("name", ["kube-system", "kube-public", "ringfence-system"])
def test_protected_namespaces_are_left_alone(webhook: Webhook, name: str) -> None:
    webhook.write(labelling("all", "team", "x"))
    assert "patch" not in webhook.ask(request("CREATE", ns(name)))


def test_what_ringfence_generated_is_left_alone(webhook: Webhook) -> None:
    rule = """
    match: {any: [{resources: {kinds: [NetworkPolicy]}}]}
    mutate: {patchStrategicMerge: {spec: {policyTypes: [Egress]}}}
    """
    webhook.write(policy("open", rule))
    for labels, changed in (({"app.kubernetes.io/managed-by": "ringfence"}, False), ({}, True)):
        asked = request("CREATE", reviews.netpol(labels), resource=reviews.POLICIES)
        assert ("patch" in webhook.ask(asked | {"namespace": "app-test01"})) is changed


def test_requests_of_our_own_controller_are_skipped_unless_the_rule_wants_them(
    webhook: Webhook,
) -> None:
    webhook.write(
        labelling("skips", "one", "x"),
        labelling("wants", "two", "x", "skipBackgroundRequests: false"),
    )
    assert webhook.labels(ns("plain"), by=CONTROLLER) == {"two": "x"}


WHO = "ringfence.io/created-by"
ASKS = """
match: {any: [{resources: {kinds: [Namespace]}}]}
generate:
  apiVersion: v1
  kind: ConfigMap
  name: who
  namespace: "{{request.object.metadata.name}}"
  data: {data: {by: "{{request.userInfo.username}}"}}
"""


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "nobody asks, or not yet"])
@pytest.mark.parametrize(
    "labels",
    [{}, {"app.kubernetes.io/managed-by": "ringfence"}],
    ids=["plain", "said to be ours"],
)
def test_nobody_else_says_who_made_an_object(
    webhook: Webhook, asked: bool, labels: dict[str, str]
) -> None:
    if asked:
        webhook.write(policy("asks", ASKS))
    else:
        webhook.write(labelling("else", "a", "b"))
    forged = ns("plain", labels)
    meta = forged["metadata"]
    assert isinstance(meta, dict)
    meta["annotations"] = {WHO: '{"username": "mallory"}'}
    made = webhook.after(request("CREATE", forged, by=ROBOT), forged)
    noted = noted_on(made).get(WHO, "")
    assert ROBOT.username in noted if asked else noted == ""
    was = ns("plain", labels)
    for subresource in ("", "status", "finalize"):
        changed = request("UPDATE", forged, was, by=ROBOT, subresource=subresource)
        assert WHO not in noted_on(webhook.after(changed, forged))


def test_a_namespaced_policy_acts_in_its_own_namespace_only(webhook: Webhook) -> None:
    text = policy(
        "mine",
        """
        match: {any: [{resources: {kinds: [ConfigMap]}}]}
        mutate: {patchStrategicMerge: {data: {stamp: "yes"}}}
        """,
    ).replace(
        "kind: ClusterPolicy\nmetadata: {name: mine}",
        "kind: Policy\nmetadata: {name: mine, namespace: shop}",
    )
    webhook.write(text)
    resource: JSONObject = {"group": "", "version": "v1", "resource": "configmaps"}
    for namespace, stamped in (("shop", True), ("other", False)):
        subject: JSONObject = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "c"},
        }
        answer = webhook.ask(request("CREATE", subject, resource=resource, namespace=namespace))
        assert ("patch" in answer) is stamped, namespace


def test_a_rule_sees_who_asks(webhook: Webhook) -> None:
    webhook.write(labelling("who", "by", '"{{request.userInfo.username}}"'))
    assert webhook.labels(ns("plain"), by=Requester("anna")) == {"by": "anna"}


def test_mutate_rules_with_the_namespace_itself_as_target_label_it_at_once(
    webhook: Webhook,
) -> None:
    example = Path(__file__).parents[3] / "examples/kyverno/add-client-label-namespaces.yaml"
    webhook.write(example.read_text().replace("client: test02", "team: shop"))
    assert webhook.labels(ns("a-test02"), IGNORE) == {"team": "shop"}
    assert "patch" not in webhook.ask(request("CREATE", ns("a-test01")), IGNORE)
    assert "patch" not in webhook.ask(request("CREATE", ns("a-test02")), FAIL)


def test_a_lookup_without_an_api_server_is_an_error_and_never_no_match(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    context = """
    context: [{name: teams, configMap: {name: teams, namespace: shop}}]
    """
    webhook.write(
        policy(
            "reads",
            f"{ANY}\n{textwrap.dedent(context).strip()}\n"
            'mutate: {patchStrategicMerge: {metadata: {labels: {team: "{{teams.data.x}}"}}}}',
        )
    )
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert "ConfigMap" in message(response)


def test_roles_that_are_not_known_fail_the_policies_that_ask_for_them_and_no_others(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    filtered = "match: {any: [{resources: {kinds: [Namespace]}, clusterRoles: [x]}]}"
    patch = "mutate: {patchStrategicMerge: {metadata: {labels: {a: b}}}}"
    asks = policy("asks", f"{filtered}\n{patch}")
    webhook.write(asks, labelling("does-not", "zone", "a", spec="failurePolicy: Ignore"))
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert message(response).startswith("policy asks: who has which roles is not known yet")
    assert webhook.labels(ns("plain"), IGNORE) == {"zone": "a"}


def test_roles_are_looked_up_for_requests_that_a_rule_asks_about_and_no_others(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def roles(_: AdmissionLookups, requester: Requester) -> Roles:
        asked.append(requester.username)
        return Roles(cluster_roles=("x",))

    monkeypatch.setattr(AdmissionLookups, "roles", roles)
    patch = "mutate: {patchStrategicMerge: {metadata: {labels: {a: b}}}}"
    elsewhere = policy(
        "elsewhere",
        f"match: {{any: [{{resources: {{kinds: [Pod]}}, clusterRoles: [x]}}]}}\n{patch}",
    )
    webhook.write(elsewhere, labelling("all", "zone", "a"))
    assert webhook.labels(ns("plain")) == {"zone": "a"}
    assert asked == []
    webhook.write(
        policy(
            "filters",
            f"match: {{any: [{{resources: {{kinds: [Namespace]}}, clusterRoles: [x]}}]}}\n{patch}",
        ),
        labelling("names", "zone", '"{{request.clusterRoles[0]}}"'),
    )
    assert webhook.labels(ns("plain")) == {"a": "b", "zone": "x"}
    assert asked == [ROBOT.username]


CEL = """\
apiVersion: policies.kyverno.io/v1
kind: MutatingPolicy
metadata: {name: in-cel}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [namespaces]}
  matchConditions:
  - {name: named, expression: "object.metadata.name.startsWith('plain')"}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: 'Object{metadata: Object.metadata{labels: {"cel": request.userInfo.username}}}'
"""


def test_a_mutating_policy_of_a_file_changes_a_request(webhook: Webhook) -> None:
    webhook.write(CEL.replace("request.userInfo.username", "object.metadata.name"))
    assert webhook.labels(ns("plain-1"))["cel"] == "plain-1"
    assert "cel" not in webhook.labels(ns("other"))


def test_an_expression_that_fails_refuses_with_its_line(webhook: Webhook) -> None:
    webhook.write(CEL.replace("request.userInfo.username", "object.metadata.nothing"))
    response = webhook.ask(request("CREATE", ns("plain-1")))
    assert not response["allowed"]
    status = response["status"]
    assert isinstance(status, dict)
    assert "all.yaml:13" in str(status["message"])
    assert "no such key: nothing" in str(status["message"])
