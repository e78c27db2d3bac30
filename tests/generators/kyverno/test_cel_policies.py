"""MutatingPolicy and GeneratingPolicy: read, applied, tested and refused like ClusterPolicies."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from generators.documents.json import mapping
from generators.kyverno.cel import syntax
from generators.kyverno.engine import generate, mutate, mutate_existing
from generators.kyverno.limits import DEFAULT_KINDS, Limits
from generators.kyverno.model import Policy, Unsupported
from generators.kyverno.offline.loading import Loaded, policies_in
from generators.kyverno.offline.testing import CaseSelector, find_files, run_files
from generators.kyverno.results import RuleOutcome
from generators.kyverno.usage import asks_who, usage
from generators.kyverno.vetting import vetted
from tests.generators.kyverno.policies import create, environment, ns, policies, thing, update

HEAD = """\
apiVersion: policies.kyverno.io/{version}
kind: {kind}
metadata: {{name: x{home}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [{resource}]}}
"""
DENY = """\
generate:
- expression: |
    generator.Apply(object.metadata.name, [{
      "apiVersion": dyn("networking.k8s.io/v1"), "kind": dyn("NetworkPolicy"),
      "metadata": dyn({"name": "deny"}), "spec": dyn({"podSelector": dyn({})})}])
"""
CONTEXT = """\
apiVersion: cli.kyverno.io/v1alpha1
kind: Context
metadata: {name: around}
spec:
  resources:
  - {apiVersion: v1, kind: Secret, metadata: {name: pull, namespace: default}, data: {a: Yg==}}
"""
TEST = """\
apiVersion: cli.kyverno.io/v1alpha1
kind: Test
metadata: {name: test}
policies: [policy.yaml]
resources: [namespace.yaml]
context: context.yaml
results:
- policy: x
  isGeneratingPolicy: true
  kind: Namespace
  resources: [shop]
  result: pass
  generatedResource: made.yaml
"""
LABEL = """\
mutations:
- patchType: ApplyConfiguration
  applyConfiguration:
    expression: 'Object{metadata: Object.metadata{labels: {"by": object.metadata.name}}}'
"""


def text(
    body: str, kind: str = "MutatingPolicy", resource: str = "namespaces", version: str = "v1"
) -> str:
    home = ", namespace: shop" if kind.startswith("Namespaced") else ""
    head = HEAD.format(version=version, kind=kind, resource=resource, home=home)
    return head + textwrap.indent(textwrap.dedent(body), "  ")


def one(
    body: str, kind: str = "MutatingPolicy", resource: str = "namespaces"
) -> tuple[Policy, ...]:
    return policies(text(body, kind, resource))


def load(written: str) -> Loaded:
    return policies_in(written.encode(), "policy.yaml")


def problems(body: str, kind: str = "MutatingPolicy") -> list[str]:
    return [
        f"{each.line}: {each.path.rpartition(' ')[2]}: {each.what}"
        for each in load(text(body, kind)).problems
    ]


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
def test_a_policy_is_the_same_in_every_version(version: str) -> None:
    (policy,) = load(text(LABEL, version=version)).policies
    done = mutate([policy], create(ns("shop")), environment())
    assert mapping(done.document, "metadata", "labels") == {"by": "shop"}
    assert [(r.rule, r.outcome) for r in done.results] == [("mutations", RuleOutcome.PASS)]


def test_the_first_version_has_no_namespaced_policies() -> None:
    (problem,) = load(text(LABEL, "NamespacedMutatingPolicy", version="v1alpha1")).problems
    assert "apiVersion policies.kyverno.io/v1alpha1 is not supported" in str(problem)
    assert load(text(LABEL, "NamespacedMutatingPolicy", version="v1beta1")).problems == ()


def test_what_is_generated_has_its_owners_marks_and_a_guard() -> None:
    found = one(DENY, "GeneratingPolicy")
    made = generate(found, create(ns("shop")), environment())
    (wanted,) = made.wanted
    assert str(wanted.key) == "NetworkPolicy shop/deny"
    assert (wanted.owner.policy, wanted.owner.rule) == ("x", "generate")
    assert wanted.document["spec"] == {"podSelector": {}}
    nothing = Limits(kinds=frozenset({("", "ConfigMap")}))
    (refused,) = generate(found, create(ns("shop")), environment(limits=nothing)).results
    assert refused.outcome is RuleOutcome.ERROR
    assert "--allow-kind networking.k8s.io/v1/NetworkPolicy" in refused.message


def test_variables_are_computed_when_they_are_asked_for_and_once() -> None:
    body = """\
    variables:
    - {name: fails, expression: object.metadata.nothing}
    - {name: good, expression: object.metadata.name}
    - {name: both, expression: 'variables.good + variables.good'}
    matchConditions:
    - {name: always, expression: 'true ? true : variables.fails == 1'}
    mutations:
    - patchType: ApplyConfiguration
      applyConfiguration:
        expression: 'Object{metadata: Object.metadata{labels: {"a": variables.both}}}'
    """
    done = mutate(one(body), create(ns("shop")), environment())
    assert mapping(done.document, "metadata", "labels") == {"a": "shopshop"}


def test_a_condition_that_fails_is_an_error_unless_another_is_false() -> None:
    condition = """\
    matchConditions:
    - {{name: fails, expression: object.metadata.nothing == 'x'}}
    - {{name: other, expression: '{other}'}}
    """
    for other, outcome in (("false", RuleOutcome.SKIP), ("true", RuleOutcome.ERROR)):
        body = textwrap.dedent(condition.format(other=other)) + LABEL
        (result,) = mutate(one(body), create(ns("shop")), environment()).results
        assert result.outcome is outcome, result.message


def test_selectors_mean_what_they_mean_to_admission() -> None:
    body = text(LABEL).replace(
        "    resourceRules:", "    namespaceSelector: {matchLabels: {a: b}}\n    resourceRules:"
    )
    (policy,) = load(body).policies
    for document, fits in ((ns("shop", a="b"), True), (ns("shop"), False)):
        done = mutate([policy], create(document), environment())
        assert (done.document != document) is fits
    body = body.replace("namespaceSelector", "objectSelector")
    (policy,) = load(body).policies
    before, after = ns("shop", a="b"), ns("shop")
    assert mutate([policy], update(before, after), environment()).document != after


def test_resources_that_are_no_well_known_ones_are_matched_by_their_plural() -> None:
    (policy,) = one(LABEL, resource="widgets")
    for kind, fits in (("Widget", True), ("Gadget", False)):
        document = thing(kind, "shop", "a")
        assert (mutate([policy], create(document), environment()).document != document) is fits


def test_json_patches_are_those_of_the_standard() -> None:
    def patched(operations: str) -> RuleOutcome:
        body = f"""\
        mutations:
        - patchType: JSONPatch
          jsonPatch: {{expression: '{operations}'}}
        """
        (result,) = mutate(one(body), create(ns("shop")), environment()).results
        return result.outcome

    add = 'JSONPatch{op: "add", path: "/metadata/labels", value: {"a": "b"}}'
    assert patched(f"[{add}]") is RuleOutcome.PASS
    test = 'JSONPatch{op: "test", path: "/metadata/name", value: "other"}'
    assert patched(f"[{test}, {add}]") is RuleOutcome.SKIP
    missing = 'JSONPatch{op: "add", path: "/metadata/annotations/a", value: "b"}'
    assert patched(f"[{missing}]") is RuleOutcome.ERROR


def test_targets_are_changed_instead_of_the_trigger() -> None:
    body = """\
    evaluation: {mutateExisting: {enabled: true}}
    targetMatchConstraints:
      resourceRules:
      - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
    targetMatchConditions:
    - {name: named, expression: object.metadata.name == 'a'}
    mutations:
    - patchType: ApplyConfiguration
      applyConfiguration:
        expression: 'Object{metadata: Object.metadata{labels: {"x": object.metadata.name}}}'
    """
    there = [thing("ConfigMap", "shop", "a"), thing("ConfigMap", "shop", "b")]
    found = one(body)
    changes = mutate_existing(found, create(ns("shop")), environment(there))
    changed = [c.after for c in changes if c.after is not None]
    assert [mapping(each, "metadata", "labels") for each in changed] == [{"x": "a"}]
    trigger = create(ns("shop"))
    assert mutate(found, trigger, environment()).document == trigger.resource


def test_without_targets_what_is_there_is_changed_and_what_is_admitted() -> None:
    found = one("evaluation: {mutateExisting: {enabled: true}}\n" + LABEL)
    other, shop = ns("other"), ns("shop")
    changes = mutate_existing(found, create(shop), environment([other, shop]))
    changed = [c.after for c in changes if c.after is not None]
    assert [mapping(each, "metadata")["name"] for each in changed] == ["shop"]
    assert mutate(found, create(shop), environment()).document == changed[0]
    alone = "evaluation: {admission: {enabled: false}, mutateExisting: {enabled: true}}\n"
    assert mutate(one(alone + LABEL), create(shop), environment()).document == shop


def test_expressions_read_only_what_policies_may_and_namespaced_ones_at_home() -> None:
    read = """\
    variables:
    - {{name: s, expression: 'resource.Get("v1", "{plural}"{home}, "a")'}}
    mutations:
    - patchType: ApplyConfiguration
      applyConfiguration:
        expression: 'Object{{metadata: Object.metadata{{labels: {{"a": variables.s.data.x}}}}}}'
    """
    there = [
        thing("Secret", "shop", "a", data={"x": "eQ=="}),
        thing("ConfigMap", "shop", "a", data={"x": "y"}),
    ]
    limits = Limits(kinds=DEFAULT_KINDS)
    for plural, outcome in (("secrets", RuleOutcome.ERROR), ("configmaps", RuleOutcome.PASS)):
        body = read.format(plural=plural, home=', "shop"')
        (result,) = mutate(
            one(body, resource="pods"),
            create(thing("Pod", "shop", "p")),
            environment(there, limits),
        ).results
        assert result.outcome is outcome, result.message
    body = read.format(plural="configmaps", home="")
    (policy,) = one(body, "NamespacedMutatingPolicy", "pods")
    done = mutate([policy], create(thing("Pod", "shop", "p")), environment(there, limits))
    assert mapping(done.document, "metadata", "labels") == {"a": "y"}
    assert usage([policy]).config_maps == {"shop"}


def test_a_namespaced_policy_generates_at_home() -> None:
    body = """\
    generate:
    - expression: |
        generator.Apply([{"apiVersion": dyn("v1"), "kind": dyn("ConfigMap"),
          "metadata": dyn({"name": "c", "namespace": "elsewhere"})}])
    """
    found = one(body, "NamespacedGeneratingPolicy", "pods")
    made = generate(found, create(thing("Pod", "shop", "p")), environment())
    assert [str(wanted.key) for wanted in made.wanted] == ["ConfigMap shop/c"]


def test_a_policy_that_would_write_what_it_may_not_is_known_before_it_runs() -> None:
    (policy,) = one(DENY.replace("NetworkPolicy", "Ingress"), "GeneratingPolicy")
    ((rule, reasons),) = vetted(policy, Limits()).refused
    assert rule.name == "generate"
    assert "policies may not write Ingress" in str(reasons[0])


def test_who_made_a_request_is_known_to_be_asked_for() -> None:
    asking = LABEL.replace("object.metadata.name", "request.userInfo.username")
    assert asks_who(one(asking)[0].rules[0])
    assert not asks_who(one(LABEL)[0].rules[0])


@pytest.mark.parametrize(
    ("body", "line", "told"),
    [
        ("variables:\n- {name: a, expression: 1 +}\n", 9, "CEL: 1:4: Syntax error"),
        ("variables:\n- {name: a, expression: variables.b}\n", 9, "undefined field 'b'"),
        ("variables:\n- {name: a}\n", 9, "Required value: expression"),
        (
            "matchConditions:\n- {name: a, expression: objekt}\n",
            9,
            "undeclared reference to 'objekt'",
        ),
        ("matchCondition: []\n", 8, 'unknown field "matchCondition"'),
        (
            "evaluation: {admission: {enabled: false}}\n",
            8,
            "disabling both admission and mutateExisting",
        ),
        ("failurePolicy: Maybe\n", 8, 'Unsupported value: "Maybe"'),
    ],
)
def test_every_refusal_names_its_line_and_field(body: str, line: int, told: str) -> None:
    found = problems(body + LABEL)
    assert any(each.startswith(f"{line}: spec") and told in each for each in found), found


def test_what_upstream_has_and_ringfence_does_not_is_told_and_never_runs() -> None:
    (policy,) = one("variables:\n- {name: a, expression: 'http.Get(\"x\")'}\n" + LABEL)
    action = policy.rules[0].action
    assert isinstance(action, Unsupported)
    assert "policies read the API only" in str(action.reasons[0])


def test_without_the_package_a_policy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "installed", lambda: False)
    (policy,) = one(LABEL)
    action = policy.rules[0].action
    assert isinstance(action, Unsupported)
    assert "pip install 'ringfence[cel]'" in str(action.reasons[0])


def test_the_other_kinds_of_the_group_are_refused_by_name() -> None:
    for kind in ("ValidatingPolicy", "NamespacedDeletingPolicy", "ImageValidatingPolicy"):
        (problem,) = load(
            f"apiVersion: policies.kyverno.io/v1\nkind: {kind}\nmetadata: {{name: x}}\n"
        ).problems
        assert problem.path == kind


def test_test_files_find_what_expressions_read(tmp_path: Path) -> None:
    copy = """\
    variables:
    - {name: source, expression: 'resource.Get("v1", "secrets", "default", "pull")'}
    generate:
    - expression: generator.Apply(object.metadata.name, [variables.source])
    """
    files = {
        "policy.yaml": text(copy, "GeneratingPolicy"),
        "namespace.yaml": "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
        "context.yaml": CONTEXT,
        "made.yaml": (
            "{apiVersion: v1, kind: Secret, metadata: {name: pull, namespace: shop},"
            " data: {a: Yg==}}"
        ),
        "kyverno-test.yaml": TEST,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    report = run_files(find_files([str(tmp_path)]), CaseSelector())
    assert [(case.ok, case.message) for case in report.cases] == [
        (True, "generated Secret shop/pull")
    ]
    assert report.warnings == ()
