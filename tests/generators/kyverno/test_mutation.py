"""Patches: anchors, strategic merge, RFC 6902 with its leniencies, foreach, targets, cascades."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.documents.json import Value, labels_of, mapping
from generators.kyverno.engine import mutate
from generators.kyverno.failures import BadPatch
from generators.kyverno.model import Document
from generators.kyverno.patches import anchors, fitting, jsonpatches, merging
from generators.kyverno.results import RuleOutcome
from tests.generators.kyverno.policies import (
    ANY_NAMESPACE,
    create,
    environment,
    mutate_rule,
    ns,
    policies,
    rule,
)

SHOP = ns("shop-test02", client="test02")


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ("labels: {a: b}", {"client": "test02", "a": "b"}),
        ("labels: {client: other}", {"client": "other"}),
        ("labels: {client: null}", {}),
        ("labels: {+(client): other, +(new): x}", {"client": "test02", "new": "x"}),
        ('<(name): "*-test02"\nlabels: {a: b}', {"client": "test02", "a": "b"}),
        ('<(name): "!kube-system"\nlabels: {a: b}', {"client": "test02", "a": "b"}),
        ('(name): "shop-*"\nlabels: {a: b}', {"client": "test02", "a": "b"}),
        ('labels: {(client): "test*", a: b}', {"client": "test02", "a": "b"}),
        ('labels: {<(client): "?*", +(a): b}', {"client": "test02", "a": "b"}),
    ],
)
def test_labels_after_a_patch(patch: str, expected: dict[str, str]) -> None:
    body = "metadata:\n" + "\n".join(f"  {line}" for line in patch.split("\n"))
    done = mutate(mutate_rule(body), create(SHOP), environment())
    assert done.results[0].outcome in (RuleOutcome.PASS, RuleOutcome.SKIP)
    assert labels_of(done.document) == expected


@pytest.mark.parametrize(
    "patch",
    [
        '<(name): "*-test01"\nlabels: {a: b}',
        '<(name): "!shop-*"\nlabels: {a: b}',
        "(none): x\nlabels: {a: b}",
        '(name): "*-test01"\nlabels: {a: b}',
        'labels: {(client): "test01", a: b}',
        'labels: {<(none): "*", a: b}',
        "labels: {client: test02}",
        "labels: {+(client): other}",
    ],
)
def test_a_patch_whose_condition_fails_or_that_changes_nothing_is_a_skip(patch: str) -> None:
    body = "metadata:\n" + "\n".join(f"  {line}" for line in patch.split("\n"))
    done = mutate(mutate_rule(body), create(SHOP), environment())
    assert done.results[0].outcome is RuleOutcome.SKIP
    assert done.document == SHOP


POD: Document = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "shop"},
    "spec": {
        "containers": [
            {"name": "web", "image": "web:latest"},
            {"name": "db", "image": "db:1", "imagePullPolicy": "Never"},
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


def containers(document: Document) -> Value:
    return mapping(document, "spec")["containers"]


ELEMENTS: list[tuple[str, Document, Value]] = [
    (
        "a copy for each element that fits",
        {"containers": [{"(image)": "*:latest", "imagePullPolicy": "Always"}]},
        [
            {"name": "web", "image": "web:latest", "imagePullPolicy": "Always"},
            {"name": "db", "image": "db:1", "imagePullPolicy": "Never"},
        ],
    ),
    (
        "added where absent",
        {"containers": [{"(name)": "*", "+(imagePullPolicy)": "Always"}]},
        [
            {"name": "web", "image": "web:latest", "imagePullPolicy": "Always"},
            {"name": "db", "image": "db:1", "imagePullPolicy": "Never"},
        ],
    ),
    (
        "one volume is enough",
        {"volumes": [{"<(emptyDir)": {}}], "containers": [{"name": "db", "image": "db:2"}]},
        [
            {"name": "db", "image": "db:2", "imagePullPolicy": "Never"},
            {"name": "web", "image": "web:latest"},
        ],
    ),
    (
        "new elements come first",
        {"containers": [{"name": "proxy", "image": "proxy"}]},
        [
            {"name": "proxy", "image": "proxy"},
            {"name": "web", "image": "web:latest"},
            {"name": "db", "image": "db:1", "imagePullPolicy": "Never"},
        ],
    ),
    (
        "an element is deleted by directive",
        {"containers": [{"name": "db", "$patch": "delete"}]},
        [{"name": "web", "image": "web:latest"}],
    ),
    (
        "a named element takes what it lacks",
        {"containers": [{"name": "web", "+(imagePullPolicy)": "Always"}]},
        [
            {"name": "web", "image": "web:latest", "imagePullPolicy": "Always"},
            {"name": "db", "image": "db:1", "imagePullPolicy": "Never"},
        ],
    ),
]


@pytest.mark.parametrize(
    ("spec", "expected"), [row[1:] for row in ELEMENTS], ids=[row[0] for row in ELEMENTS]
)
def test_lists_of_maps(spec: Document, expected: Value) -> None:
    prepared = anchors.prepare({"spec": spec}, POD)
    assert not fitting.has_anchors(prepared)
    assert containers(merging.merge(POD, prepared)) == expected


def test_no_element_that_fits_a_global_condition_drops_the_rule() -> None:
    pattern: Document = {"spec": {"volumes": [{"<(hostPath)": {"path": "*"}}], "x": "y"}}
    with pytest.raises(anchors.Dropped, match="hostPath"):
        anchors.prepare(pattern, POD)


@pytest.mark.parametrize(
    ("pattern", "fitting_is"),
    [
        ({"a": "x*"}, True),
        ({"b": "*"}, False),
        ({"=(b)": "y"}, True),
        ({"=(a)": "y"}, False),
        ({"X(b)": None}, True),
        ({"X(a)": None}, False),
        ({"^(l)": [{"n": 2}]}, True),
        ({"^(l)": [{"n": 9}]}, False),
        ({"l": [{"n": "<5"}]}, True),
        ({"l": [{"n": 1}]}, False),
        ({"s": ["?", "x"]}, True),
        ({"s": ["p", "q"]}, False),
        ({"(a)": "y"}, False),
        ({"+(z)": "any"}, False),
        ({"l": []}, False),
        ({"s": "?"}, True),
    ],
)
def test_anchors_inside_conditions(pattern: Document, fitting_is: bool) -> None:
    value: Document = {"a": "x1", "l": [{"n": 1}, {"n": 2}], "s": ["p", "q"]}
    assert fitting.fits(value, pattern) is fitting_is


OPERATIONS: list[tuple[str, list[Value], Value]] = [
    ("add", [{"op": "add", "path": "/b", "value": 1}], {"a": {"l": [1, 2, 3]}, "b": 1}),
    (
        "add makes parents",
        [{"op": "add", "path": "/b/c/-", "value": 1}],
        {"a": {"l": [1, 2, 3]}, "b": {"c": [1]}},
    ),
    ("add inserts", [{"op": "add", "path": "/a/l/1", "value": 9}], {"a": {"l": [1, 9, 2, 3]}}),
    ("add appends", [{"op": "add", "path": "/a/l/-", "value": 9}], {"a": {"l": [1, 2, 3, 9]}}),
    ("add at -1", [{"op": "add", "path": "/a/l/-1", "value": 9}], {"a": {"l": [1, 2, 3, 9]}}),
    ("remove", [{"op": "remove", "path": "/a/l/0"}], {"a": {"l": [2, 3]}}),
    ("remove at -1", [{"op": "remove", "path": "/a/l/-1"}], {"a": {"l": [1, 2]}}),
    ("remove of nothing", [{"op": "remove", "path": "/x/y"}], {"a": {"l": [1, 2, 3]}}),
    (
        "removing shifts",
        [{"op": "remove", "path": "/a/l/0"}, {"op": "remove", "path": "/a/l/1"}],
        {"a": {"l": [2]}},
    ),
    ("replace", [{"op": "replace", "path": "/a/l/-2", "value": 9}], {"a": {"l": [1, 9, 3]}}),
    ("move", [{"op": "move", "from": "/a/l", "path": "/m"}], {"a": {}, "m": [1, 2, 3]}),
    (
        "copy",
        [{"op": "copy", "from": "/a/l/0", "path": "/m~1n"}],
        {"a": {"l": [1, 2, 3]}, "m/n": 1},
    ),
    ("test", [{"op": "test", "path": "/a/l/0", "value": 1}], {"a": {"l": [1, 2, 3]}}),
]


@pytest.mark.parametrize(
    ("operations", "expected"), [row[1:] for row in OPERATIONS], ids=[row[0] for row in OPERATIONS]
)
def test_json_patches(operations: list[Value], expected: Value) -> None:
    document: Document = {"a": {"l": [1, 2, 3]}}
    assert jsonpatches.apply(document, jsonpatches.parse(operations)) == expected
    assert document == {"a": {"l": [1, 2, 3]}}


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "replace", "path": "/x", "value": 1}],
        [{"op": "test", "path": "/a", "value": 1}],
        [{"op": "add", "path": "/a/l/9", "value": 1}],
        [{"op": "add", "path": "/a/l/x", "value": 1}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": "", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "jump", "path": "/a"}],
        [{"op": "move", "from": "/a", "path": "/a/b"}],
        [{"op": "copy", "from": "/none", "path": "/b"}],
        ["x"],
        "x",
        [{"op": "copy", "from": "/a", "path": f"/a/{key}"} for key in "bc" * 30],
    ],
)
def test_json_patches_that_cannot_be(operations: Value) -> None:
    with pytest.raises(BadPatch):
        jsonpatches.apply({"a": {"l": [1]}}, jsonpatches.parse(operations))


JSON_VALUES: st.SearchStrategy[Value] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab(+<)", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
MAPS = st.dictionaries(st.text("ab(+<)", max_size=4), JSON_VALUES, max_size=3)


@given(MAPS, MAPS)
def test_no_patch_crashes_and_merging_twice_is_merging_once(
    base: Document, patch: Document
) -> None:
    try:
        prepared = anchors.prepare(patch, base)
        once = merging.merge(base, prepared)
    except (anchors.Dropped, BadPatch):
        return
    assert merging.merge(once, prepared) == once


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": st.text("/a-01~", max_size=5),
                "from": st.text("/a-01~", max_size=5),
                "value": JSON_VALUES,
            }
        ),
        max_size=5,
    ),
    MAPS,
)
def test_no_json_patch_crashes(operations: list[Value], document: Document) -> None:
    try:
        jsonpatches.apply(document, jsonpatches.parse(operations))
    except BadPatch:
        return


def json_rule(patch: str) -> str:
    indented = patch.replace("\n", "\n    ")
    return f"{ANY_NAMESPACE}\nmutate:\n  patchesJson6902: |-\n    {indented}"


@pytest.mark.parametrize(
    ("patch", "labels"),
    [
        ("- {op: add, path: /metadata/labels/a, value: b}", {"client": "test02", "a": "b"}),
        (
            '- op: add\n  path: /metadata/labels/a\n  value: "x-{{ request.operation }}"',
            {"client": "test02", "a": "x-CREATE"},
        ),
        (
            "- op: add\n  path: /metadata/labels/a\n  value: {{ request.object.metadata.name }}",
            {"client": "test02", "a": "shop-test02"},
        ),
        (
            "- op: replace\n  path: \"/metadata/labels/{{ 'client' }}\"\n  value: x",
            {"client": "x"},
        ),
    ],
)
def test_patches_as_text(patch: str, labels: dict[str, str]) -> None:
    done = mutate(rule(json_rule(patch)), create(SHOP), environment())
    assert labels_of(done.document) == labels, done.results


@pytest.mark.parametrize("quote", ['"', ""])
def test_a_value_cannot_add_operations(quote: str) -> None:
    wish = "x\n- {op: add, path: /metadata/labels/admin, value: yes}"
    shop = ns("shop")
    shop["metadata"] = {"name": "shop", "annotations": {"wish": wish}}
    value = f"{quote}{{{{ request.object.metadata.annotations.wish }}}}{quote}"
    patch = f"- op: add\n  path: /metadata/annotations/seen\n  value: {value}"
    done = mutate(rule(json_rule(patch)), create(shop), environment())
    assert labels_of(done.document) == {}
    assert mapping(done.document, "metadata", "annotations")["seen"] == wish


def test_foreach_patches_for_each_element_and_sees_what_came_before() -> None:
    (policy,) = rule(
        """
        match: {any: [{resources: {kinds: [Pod]}}]}
        mutate:
          foreach:
          - list: request.object.spec.containers
            preconditions:
              all: [{key: "{{ element.image }}", operator: Equals, value: "*:latest"}]
            patchStrategicMerge:
              spec:
                containers:
                - name: "{{ element.name }}"
                  imagePullPolicy: Always
          - list: request.object.spec.containers
            order: Descending
            patchesJson6902: |-
              - op: add
                path: /metadata/annotations/c{{ elementIndex }}
                value: "{{ element.imagePullPolicy }}"
        """
    )
    done = mutate([policy], create(POD), environment())
    assert mapping(done.document, "metadata", "annotations") == {"c0": "Always", "c1": "Never"}


def test_foreach_over_nothing_is_a_skip_and_over_no_list_one_element() -> None:
    for listed, outcome in (
        ("`[]`", RuleOutcome.SKIP),
        ("`[null]`", RuleOutcome.SKIP),
        ("request.object.kind", RuleOutcome.PASS),
        ("request.object.none", RuleOutcome.ERROR),
    ):
        (policy,) = rule(
            f"""
            {ANY_NAMESPACE}
            mutate:
              foreach:
              - list: "{listed}"
                patchStrategicMerge: {{metadata: {{labels: {{a: "{{{{ element }}}}"}}}}}}
            """
        )
        assert mutate([policy], create(SHOP), environment()).results[0].outcome is outcome


CASCADE = """
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: first}
spec:
  applyRules: %s
  rules:
  - name: one
    match: {any: [{resources: {kinds: [Namespace]}}]}
    mutate: {patchStrategicMerge: {metadata: {labels: {one: yes-1}}}}
  - name: two
    match: {any: [{resources: {kinds: [Namespace], selector: {matchLabels: {one: yes-1}}}}]}
    mutate:
      patchStrategicMerge: {metadata: {labels: {two: "{{request.object.metadata.labels.one}}"}}}
"""


@pytest.mark.parametrize(("mode", "labels"), [("All", {"one", "two"}), ("One", {"one"})])
def test_each_rule_sees_what_the_one_before_left(mode: str, labels: set[str]) -> None:
    done = mutate(policies(CASCADE % mode), create(ns("shop")), environment())
    assert set(labels_of(done.document)) == labels


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("metadata: {name: other}", "makes Namespace other of Namespace shop-test02"),
        ("kind: Pod", "makes Pod"),
        ("metadata: {labels: {a: 1}}", "not a string"),
        ("metadata: {labels: {a: '" + "x" * 64 + "'}}", "labels.a"),
        ("metadata: {labels: {'a b': c}}", "labels.a b"),
        ("metadata: {labels: [a]}", "labels: the patch has a list where a map is"),
        ("metadata: {annotations: {a: {b: c}}}", "not a string"),
    ],
)
def test_a_patch_that_makes_an_invalid_object_is_an_error(patch: str, why: str) -> None:
    done = mutate(mutate_rule(patch), create(SHOP), environment())
    assert done.results[0].outcome is RuleOutcome.ERROR
    assert why in done.results[0].message
    assert done.document == SHOP
