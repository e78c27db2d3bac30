"""Policy files: what is read, what is refused with file and line, what is left out loudly."""

from __future__ import annotations

import textwrap

import pytest

from generators.errors import InputError
from generators.kyverno.model import (
    ApplyRules,
    FailurePolicy,
    Generation,
    Mutation,
    Operation,
    Place,
    Unsupported,
)
from generators.kyverno.offline.lint import Sort, lint
from generators.kyverno.offline.loading import Loaded, policies_in, policy_from
from generators.objects import Origin

GOOD = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: label
spec:
  rules:
  - name: label
    match:
      any:
      - resources:
          kinds: [Namespace]
          operations: [CREATE, UPDATE]
    mutate:
      patchStrategicMerge:
        metadata:
          labels:
            client: "{{ request.object.metadata.name }}"
"""


def load(text: str) -> Loaded:
    return policies_in(textwrap.dedent(text).encode(), "p.yaml")


def test_a_policy_knows_where_everything_was_written() -> None:
    (policy,) = load(GOOD).policies
    (rule,) = policy.rules
    assert policy.origin == Origin("p.yaml", 1)
    assert rule.place == Place("p.yaml", 7, "spec.rules[0]")
    assert rule.match.filters[0].operations == frozenset({Operation.CREATE, Operation.UPDATE})
    assert isinstance(rule.action, Mutation)
    template = rule.action.patch.strategic
    assert template is not None
    place = template.place_of(("metadata", "labels", "client"))
    assert (place.line, place.path) == (
        17,
        "spec.rules[0].mutate.patchStrategicMerge.metadata.labels.client",
    )


def test_switches_of_a_policy() -> None:
    (policy,) = load(GOOD).policies
    defaults = (policy.apply, policy.failure, policy.admission, policy.background)
    assert defaults == (ApplyRules.ALL, FailurePolicy.FAIL, True, True)
    head = (
        "spec:\n  applyRules: One\n  failurePolicy: Ignore\n  admission: false\n"
        "  background: false\n  useServerSideApply: true\n"
    )
    (policy,) = load(GOOD.replace("spec:\n", head)).policies
    switched = (policy.apply, policy.failure, policy.admission, policy.background)
    assert switched == (ApplyRules.ONE, FailurePolicy.IGNORE, False, False)
    assert policy.server_side


def test_what_is_about_upstreams_webhook_is_ignored() -> None:
    head = "spec:\n  schemaValidation: false\n  webhookTimeoutSeconds: 5\n  emitWarning: true\n"
    text = GOOD.replace("spec:\n", head).replace(
        "    match:", "    reportProperties: {a: b}\n    match:", 1
    )
    loaded = load(text)
    assert loaded.problems == ()
    assert lint(loaded) == ()


def test_the_rules_switch_wins_over_the_policys() -> None:
    body = """\
    apiVersion: kyverno.io/v2beta1
    kind: Policy
    metadata: {name: p, namespace: shop}
    spec:
      generateExisting: true
      rules:
      - name: one
        match: {any: [{resources: {kinds: [Secret]}}]}
        generate: {generateExisting: false, SYNC apiVersion: v1, kind: ConfigMap, name: c,
          namespace: shop, data: {data: {a: b}}}
      - name: two
        match: {any: [{resources: {kinds: [Secret]}}]}
        generate: {apiVersion: v1, kind: ConfigMap, name: d, namespace: shop, data: {data: {a: b}}}
    """
    text = body.replace("SYNC", "synchronize: true, orphanDownstreamOnPolicyDelete: true,")
    (policy,) = load(text).policies
    assert policy.key == "shop/p"
    first, second = (rule.action for rule in policy.rules)
    assert isinstance(first, Generation)
    assert isinstance(second, Generation)
    assert (first.existing, first.synchronize, first.orphan) == (False, True, True)
    assert (second.existing, second.synchronize, second.orphan) == (True, False, False)


REFUSED: list[tuple[str, str, str, int]] = [
    ("misspelt field", "    match:", "    mach:", 7),
    ("misspelt spec", "  rules:", "  rulez:", 6),
    ("no operations like this", "[CREATE, UPDATE]", "[CREAT]", 12),
    ("unknown match field", "kinds: [Namespace]", "kind: [Namespace]", 11),
    ("no name", "  name: label\nspec", "  labels: {}\nspec", 1),
    ("two actions", "    mutate:", "    validate: {}\n    mutate:", 7),
    ("no patch", "patchStrategicMerge", "patchStrategicMerg", 14),
    ("number as a switch", "spec:\n", "spec:\n  background: 1\n", 6),
    ("api version", "kyverno.io/v1", "kyverno.io/v9", 1),
    ("broken YAML", "any:\n", "any: [\n", 10),
    ("rule name", "- name: label", "- name: " + "x" * 64, 7),
]


@pytest.mark.parametrize(
    ("old", "new", "line"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_wrong_document_is_refused_with_its_line(old: str, new: str, line: int) -> None:
    assert old in GOOD
    loaded = load(GOOD.replace(old, new, 1))
    assert loaded.policies == ()
    assert line in [problem.line for problem in loaded.problems], loaded.problems
    assert all(problem.file == "p.yaml" and problem.fix for problem in loaded.problems)


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (
            "{match: {any: [{resources: {kinds: [Pod]}}], all: [{resources: {kinds: [Pod]}}]}, A}",
            "any and all are both given",
        ),
        ("{M, context: [{name: a}], A}", "exactly one source"),
        ("{M, preconditions: {all: [{key: a, operator: Is, value: b}]}, A}", "Unsupported value"),
        ("{M, preconditions: {all: [{key: a, value: b}]}, A}", "Required value: operator"),
        (
            "{M, mutate: {mutateExistingOnPolicyUpdate: true, patchStrategicMerge: {a: b}}}",
            "needs targets",
        ),
        ("{M, mutate: {patchStrategicMerge: {a: b}, patchesJson6902: ''}}", "exactly one form"),
        (
            "{M, generate: {apiVersion: v1, kind: Secret, name: a, data: {}, clone: {name: b}}}",
            "at most one source",
        ),
        ("{M, generate: {kind: Secret, name: a, data: {b: c}}}", "Required value: apiVersion"),
        ("{M, generate: {cloneList: {kinds: ['v1/*'], namespace: a}}}", "no wildcards"),
        (
            "{match: {any: [{subjects: [{kind: ServiceAccount, name: a}]}]}, A}",
            "needs a namespace",
        ),
        ("{match: {any: [{}]}, A}", "empty filter"),
        ("{match: {}, A}", "Required value: any, all or resources"),
        ("{M}", "exactly one action"),
    ],
)
def test_a_rule_that_no_api_server_takes_is_refused(rule: str, what: str) -> None:
    match = "match: {any: [{resources: {kinds: [Pod]}}]}"
    action = "mutate: {patchStrategicMerge: {metadata: {labels: {a: b}}}}"
    filled = rule.replace("{M", "{" + match).replace(", A}", f", {action}}}")
    loaded = load(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: p}\n"
        f"spec:\n  rules:\n  - {{name: r, {filled[1:]}\n"
    )
    assert loaded.policies == ()
    assert any(what in problem.what for problem in loaded.problems), loaded.problems


OTHER = {
    "validate": "validate: {message: no, pattern: {metadata: {labels: {a: '?*'}}}}",
    "verifyImages": "verifyImages: [{imageReferences: ['*']}]",
    "service": (
        "context: [{name: a, apiCall: {service: {url: 'http://x'}}}]\n"
        "    mutate: {patchStrategicMerge: {a: b}}"
    ),
    "POST": (
        "context: [{name: a, apiCall: {urlPath: /x, method: POST}}]\n"
        "    mutate: {patchStrategicMerge: {a: b}}"
    ),
    "globalReference": (
        "context: [{name: a, globalReference: {name: b}}]\n"
        "    mutate: {patchStrategicMerge: {a: b}}"
    ),
    "imageRegistry": (
        "context: [{name: a, imageRegistry: {reference: b}}]\n"
        "    mutate: {patchStrategicMerge: {a: b}}"
    ),
    "celPreconditions": (
        "celPreconditions: [{name: a, expression: b}]\n    mutate: {patchStrategicMerge: {a: b}}"
    ),
    "imageExtractors": "imageExtractors: {a: b}\n    mutate: {patchStrategicMerge: {a: b}}",
}


@pytest.mark.parametrize("body", OTHER.values(), ids=OTHER)
def test_what_is_not_carried_out_is_told_and_the_other_rules_still_run(body: str) -> None:
    text = GOOD + (
        "  - name: other\n    match: {any: [{resources: {kinds: [Namespace]}}]}\n"
        f"    {body}\n"
    )
    loaded = load(text)
    assert loaded.problems == ()
    first, second = loaded.policies[0].rules
    assert isinstance(first.action, Mutation)
    assert isinstance(second.action, Unsupported)
    (finding,) = lint(loaded)
    assert (finding.sort, finding.rule) == (Sort.UNSUPPORTED, "other")
    assert finding.place.line >= 18


@pytest.mark.parametrize(
    "kind",
    [
        "CleanupPolicy",
        "PolicyException",
        "ImageValidatingPolicy",
        "NamespacedImageValidatingPolicy",
        "NamespacedDeletingPolicy",
        "GlobalContextEntry",
    ],
)
def test_other_kinds_of_policies_are_refused_by_name(kind: str) -> None:
    loaded = load(f"apiVersion: kyverno.io/v2\nkind: {kind}\nmetadata: {{name: x}}\n")
    assert loaded.policies == ()
    (problem,) = loaded.problems
    assert "not" in problem.what


def test_lists_and_other_objects_in_the_same_file() -> None:
    items = textwrap.indent(GOOD, "    ").replace("    apiVersion", "  - apiVersion", 1)
    text = f"apiVersion: v1\nkind: List\nitems:\n{items}---\napiVersion: v1\nkind: Pod\n"
    loaded = load(text)
    assert (len(loaded.policies), loaded.skipped, loaded.problems) == (1, 1, ())


def test_objects_of_the_api_server_are_read_too() -> None:
    document = {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": "a", "uid": "1", "managedFields": []},
        "spec": {
            "rules": [
                {
                    "name": "r",
                    "match": {"any": [{"resources": {"kinds": ["Namespace"]}}]},
                    "mutate": {"patchStrategicMerge": {"metadata": {"labels": {"a": "b"}}}},
                }
            ]
        },
        "status": {"conditions": []},
    }
    assert policy_from(document, Origin("api-server", 1)).key == "a"
    with pytest.raises(InputError, match="Required value: spec"):
        policy_from({**document, "spec": None}, Origin("api-server", 1))
