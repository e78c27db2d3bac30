"""Whatever a policy or an object holds: no crash, no hang, the same answer twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from generators.documents.json import Value
from generators.errors import InputError
from generators.kyverno.engine import applicability, generate, mutate, mutate_existing
from generators.kyverno.failures import RuleFailure
from generators.kyverno.offline.lint import lint
from generators.kyverno.offline.loading import Loaded, policies_in
from generators.kyverno.offline.testing import CaseSelector, find_files, run_files
from tests.generators.kyverno.policies import create, environment, ns, thing

WORDS = st.sampled_from(
    [
        "",
        "*",
        "a",
        "a-*",
        "Namespace",
        "v1",
        "shop",
        "{{ request.object.metadata.name }}",
        "{{ request.object }}",
        "{{ element }}",
        "{{ @ }}",
        "{{ c.data.x }}",
        "{{ random('[a-z]*') }}",
        "{{ {{ a }} }}",
        "{{",
        "}}",
        "\\{{ a }}",
        "$(a)",
        "$(./../name)",
        "(name)",
        "+(a)",
        "<(name)",
        "^(a)",
        "X(a)",
        "!a",
        "1-10",
        ">1",
        "a|b&c",
        "/metadata/labels/a",
        "request.object.metadata",
        "- {op: add, path: /metadata/labels/a, value: '{{ a }}'}",
        "{{ a || 'b' }}",
        "$patch",
        "delete",
        "{{ request.object.metadata.labels | items(@, 'k', 'v') }}",
        "Equals",
        "AnyIn",
    ]
)
JSON: st.SearchStrategy[Value] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | st.text("ab1{}'`|@.[]()&*$\\\n", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=10,
)
PATCHES = st.fixed_dictionaries(
    {"patchStrategicMerge": st.dictionaries(WORDS, JSON, max_size=3)}
) | (st.fixed_dictionaries({"patchesJson6902": WORDS | JSON}))
FILTERS = st.fixed_dictionaries(
    {"kinds": st.just(["Namespace", "*/a"])},
    optional={
        "names": st.lists(WORDS, max_size=2).map(lambda names: ["shop", *names]),
        "selector": st.fixed_dictionaries(
            {"matchLabels": st.dictionaries(WORDS, WORDS, max_size=2)}
        ),
    },
)
LABELS = st.dictionaries(WORDS, WORDS | JSON, max_size=3)
LISTS = st.sampled_from(
    ["`[1, {}]`", "request.object.metadata.labels.a | [@]", "keys(request.object)", "split(a, '')"]
)
DATA = st.fixed_dictionaries(
    {}, optional={"metadata": st.fixed_dictionaries({"labels": LABELS}), "data": JSON}
)
NAMES = st.sampled_from(["shop", "c", "{{ request.object.metadata.name }}-{{ a }}"]) | WORDS
ACTIONS = st.one_of(
    PATCHES.map(lambda patch: {"mutate": patch}),
    LABELS.map(
        lambda labels: {"mutate": {"patchStrategicMerge": {"metadata": {"labels": labels}}}}
    ),
    st.tuples(LISTS | JSON.filter(bool), PATCHES).map(
        lambda pair: {"mutate": {"foreach": [{"list": pair[0], **pair[1]}]}}
    ),
    st.tuples(st.just("*") | WORDS, PATCHES).map(
        lambda pair: {
            "mutate": {
                "targets": [{"apiVersion": "v1", "kind": "Namespace", "name": pair[0]}],
                **pair[1],
            }
        }
    ),
    st.fixed_dictionaries(
        {"kind": st.just("ConfigMap"), "name": NAMES, "namespace": NAMES, "data": DATA}
    ).map(lambda body: {"generate": {"apiVersion": "v1", **body}}),
)
RULES = st.builds(
    lambda one, action, key, value, context: {
        "name": "r",
        "match": {"any": [{"resources": one}]},
        "preconditions": {
            "any": [
                {"key": key, "operator": "AnyIn", "value": value},
                {"key": "a", "operator": "Equals", "value": "a"},
            ]
        },
        "context": [{"name": "a", "variable": {"value": context or ""}}],
        **action,
    },
    FILTERS,
    ACTIONS,
    JSON,
    JSON,
    JSON,
)
OBJECTS = st.builds(
    lambda labels, annotations: {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "labels": labels, "annotations": annotations},
    },
    st.dictionaries(WORDS, WORDS, max_size=3),
    JSON,
)


def read(*rules: object) -> Loaded:
    document = {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": "p"},
        "spec": {"rules": rules},
    }
    return policies_in(json.dumps(document).encode(), "p.json")


@given(RULES, OBJECTS)
def test_any_rule_on_any_object_ends_in_the_same_results_twice(
    rule: object, document: dict[str, object]
) -> None:
    loaded = read(rule)
    lint(loaded)
    request = create(cast("dict[str, Value]", document))
    cluster = environment([request.resource, ns("other"), thing("ConfigMap", "shop", "c")])
    first = [
        mutate(loaded.policies, request, cluster),
        mutate_existing(loaded.policies, request, cluster),
        generate(loaded.policies, request, cluster),
    ]
    second = [
        mutate(loaded.policies, request, cluster),
        mutate_existing(loaded.policies, request, cluster),
        generate(loaded.policies, request, cluster),
    ]
    assert first == second
    for policy in loaded.policies:
        for one in policy.rules:
            try:
                applicability(policy, one, request, cluster)
            except RuleFailure:
                continue


@given(JSON)
def test_any_document_is_a_policy_or_a_list_of_problems(body: Value) -> None:
    document = {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": "p"},
        "spec": body,
    }
    loaded = policies_in(json.dumps(document).encode(), "p.json")
    assert bool(loaded.policies) is not bool(loaded.problems)


@given(
    st.dictionaries(
        st.sampled_from(
            ["match", "exclude", "context", "preconditions", "mutate", "generate", "name"]
        ),
        JSON,
        max_size=7,
    )
)
def test_any_rule_is_read_or_refused(rule: dict[str, Value]) -> None:
    loaded = read(rule)
    assert bool(loaded.policies) is not bool(loaded.problems)
    lint(loaded)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader_or_the_linter(data: bytes) -> None:
    lint(policies_in(data, "p.yaml"))


FIELDS = st.sampled_from(
    ["policies", "resources", "targetResources", "variables", "values", "userinfo", "results"]
)
INSIDE = JSON.filter(lambda value: not {"/", ".."} & set(re.findall(r"/|\.\.", json.dumps(value))))
"""Nothing that leads out of the test's own folder."""
EXPECTATIONS = st.dictionaries(
    st.sampled_from(["policy", "rule", "kind", "resources", "result", "patchedResources"]),
    INSIDE | st.sampled_from(["p", "r", "policy.json", "namespaces.json"]),
    max_size=6,
)
GIVEN = st.dictionaries(
    st.sampled_from(["globalValues", "policies", "namespaceSelector", "rules"]), JSON, max_size=3
)


@given(
    st.dictionaries(FIELDS, INSIDE, max_size=3),
    st.lists(EXPECTATIONS, max_size=2),
    GIVEN,
    RULES,
    OBJECTS,
)
def test_any_test_file_is_judged_or_refused(
    body: dict[str, Value],
    results: list[dict[str, Value]],
    values: dict[str, Value],
    rule: object,
    document: object,
) -> None:
    test = {
        "kind": "Test",
        "policies": ["policy.json"],
        "resources": ["namespaces.json"],
        "values": values,
        "results": results,
        **body,
    }
    policy = {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": "p"},
        "spec": {"rules": [rule]},
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in (
            ("kyverno-test.yaml", test),
            ("policy.json", policy),
            ("namespaces.json", document),
        ):
            (folder / file).write_text(json.dumps(content))
        try:
            report = run_files(find_files([name]), CaseSelector())
        except InputError:
            return
        assert all(case.message for case in report.cases)
