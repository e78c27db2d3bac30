"""Who made a trigger, and which rules may not run: told from the values alone."""

from __future__ import annotations

import pytest

from generators.documents.json import ObjectKey, ObjectKind
from generators.kyverno.creators import ANNOTATION, MAX_LENGTH, creator_of, written
from generators.kyverno.failures import BadPatch, NotAllowed
from generators.kyverno.limits import DEFAULT_KINDS, Limits, allowing, check_write
from generators.kyverno.model import Document, Unsupported
from generators.kyverno.requests import Asker
from generators.kyverno.usage import asks_who
from generators.kyverno.vetting import vetted
from tests.generators.kyverno.policies import ANY_NAMESPACE, generate_rule, mutate_rule, ns, rule

ANNA = Asker("anna", ("a", "b"), ("shop:editor",), ("view",))


SINCE = "2026-03-01T12:00:00Z"


def noted(text: str, made: str = "2026-03-01T12:00:01Z") -> Document:
    document = ns("shop")
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    metadata["annotations"] = {ANNOTATION: text}
    metadata["creationTimestamp"] = made
    return document


def test_a_creator_comes_back_as_noted() -> None:
    assert creator_of(noted(written(ANNA)), SINCE) == ANNA


@pytest.mark.parametrize(
    ("made", "since"),
    [
        pytest.param("2026-02-28T23:00:00Z", SINCE, id="made before creators were noted"),
        pytest.param(SINCE, SINCE, id="made in the second in which that began"),
        pytest.param("2026-03-01T12:00:01Z", "", id="of a kind whose creators nobody notes"),
        pytest.param("", SINCE, id="never made"),
    ],
)
def test_a_note_that_somebody_else_may_have_written_names_nobody(made: str, since: str) -> None:
    assert creator_of(noted(written(ANNA), made), since) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", '{"username": 1}', "[" * 100_000, '"\\ud800"'],
    ids=["empty", "cut", "list", "number", "null", "no text", "deep", "surrogate"],
)
def test_a_note_that_is_none_names_nobody(text: str) -> None:
    assert creator_of(noted(text), SINCE) is None


def test_groups_that_are_no_texts_are_left_out() -> None:
    text = '{"username": "x", "groups": ["a", 1, []]}'
    assert creator_of(noted(text), SINCE) == Asker("x", ("a",))


def test_a_note_has_an_end() -> None:
    with pytest.raises(BadPatch, match="too many groups"):
        written(Asker("anna", tuple(f"group-{n}" for n in range(MAX_LENGTH // 5))))


PATCH = "labels: {a: b}"


@pytest.mark.parametrize(
    ("more", "asks"),
    [
        pytest.param("", False, id="nothing"),
        pytest.param("exclude: {any: [{clusterRoles: [x]}]}", True, id="exclude by role"),
        pytest.param("exclude: {any: [{subjects: [{kind: User, name: x}]}]}", True, id="subject"),
        pytest.param(
            "preconditions: {all: [{key: '{{request.userInfo.username}}', operator: Equals,"
            " value: x}]}",
            True,
            id="variable",
        ),
        pytest.param(
            "preconditions: {all: [{key: userInfo, operator: Equals, value: x}]}",
            False,
            id="only a word",
        ),
    ],
)
def test_a_rule_that_asks_who_made_the_request_is_known_by_its_text(more: str, asks: bool) -> None:
    (policy,) = mutate_rule(f"metadata: {{{PATCH}}}", more)
    assert asks_who(policy.rules[0]) is asks


TARGET = "apiVersion: v1\nkind: {kind}\nname: x\nnamespace: {namespace}\ndata: {{}}"


@pytest.mark.parametrize(
    ("kind", "namespace", "told"),
    [
        pytest.param("ConfigMap", '"{{request.object.metadata.name}}"', "", id="not known yet"),
        pytest.param("ConfigMap", "shop", "", id="allowed"),
        pytest.param("Secret", "shop", "--allow-kind v1/Secret", id="kind"),
        pytest.param("ConfigMap", "kube-system", "is protected", id="protected"),
        pytest.param("'{{request.object.metadata.name}}'", "shop", "", id="a kind by variable"),
    ],
)
def test_what_a_generate_rule_may_not_write_is_told_before_it_runs(
    kind: str, namespace: str, told: str
) -> None:
    (policy,) = generate_rule(TARGET.format(kind=kind, namespace=namespace))
    found = vetted(policy, Limits(kinds=DEFAULT_KINDS))
    assert bool(found.refused) == bool(told)
    if told:
        ((_, reasons),) = found.refused
        assert told in str(reasons[0])
        assert isinstance(found.policy.rules[0].action, Unsupported)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        pytest.param("{apiVersion: v1, kind: ConfigMap, namespace: shop}", "", id="its own"),
        pytest.param("{apiVersion: v1, kind: ConfigMap}", "", id="its own, unsaid"),
        pytest.param(
            "{apiVersion: v1, kind: ConfigMap, namespace: other}", "ClusterPolicy", id="another"
        ),
        pytest.param("{apiVersion: v1, kind: Namespace}", "ClusterPolicy", id="of the cluster"),
        pytest.param(
            "{apiVersion: v1, kind: ResourceQuota}", "--allow-kind v1/ResourceQuota", id="a quota"
        ),
        pytest.param(
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding}",
            "--allow-kind rbac.authorization.k8s.io/v1/RoleBinding",
            id="rights",
        ),
    ],
)
def test_a_namespaced_policy_writes_harmless_kinds_of_its_own_namespace_only(
    target: str, told: str
) -> None:
    match = ANY_NAMESPACE.replace("Namespace", "ConfigMap")
    body = f"{match}\nmutate:\n  targets: [{target}]\n  patchStrategicMerge: {{data: {{a: b}}}}"
    (policy,) = rule(body, kind="Policy", namespace="shop")
    found = vetted(policy, Limits(kinds=DEFAULT_KINDS))
    assert bool(found.refused) == bool(told)
    if told:
        assert told in str(found.refused[0][1][0])


def test_what_the_operator_names_a_namespaced_policy_may_write_too() -> None:
    quota = ObjectKey(ObjectKind("", "v1", "ResourceQuota"), "shop", "q")
    check_write(allowing(()), "", quota)
    check_write(allowing(["ResourceQuota"]), "shop", quota)
    with pytest.raises(NotAllowed, match="--allow-kind v1/ResourceQuota"):
        check_write(allowing(["Secret"]), "shop", quota)
