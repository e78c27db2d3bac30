"""Variables, references, context entries, preconditions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.documents.json import Value, labels_of, mapping
from generators.kyverno.context import ContextScope, World, chooser, dotted
from generators.kyverno.engine import Environment, mutate
from generators.kyverno.failures import BadExpression, NotAllowed, UnresolvedVariable
from generators.kyverno.images import images_of
from generators.kyverno.language.functions import Surroundings
from generators.kyverno.language.operators import holds
from generators.kyverno.limits import GuardedLookups, Limits, allowing
from generators.kyverno.model import ConditionOperator, Document, Policy
from generators.kyverno.offline.cluster import DocumentCluster
from generators.kyverno.requests import Asker
from generators.kyverno.results import RuleOutcome
from generators.kyverno.variables import substitute
from tests.generators.kyverno.policies import (
    ANY_NAMESPACE,
    NOON,
    create,
    delete,
    environment,
    mutate_rule,
    ns,
    rule,
    thing,
)

SHOP = ns("shop-test02", client="test02")


def scope(**values: Value) -> ContextScope:
    lookups = GuardedLookups(DocumentCluster([]), Limits())
    return ContextScope(World(lookups, Surroundings(lambda: NOON, chooser(""))), values)


VALUES: dict[str, Value] = {
    "name": "shop",
    "number": 5,
    "list": ["a", "b"],
    "map": {"shop": "by name", "a.b": "dotted"},
    "request": {"object": {"metadata": {"labels": {"app": "x"}}}, "operation": "CREATE"},
    "evil": "{{ name }}",
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{{ name }}", "shop"),
        ("a-{{name}}-b", "a-shop-b"),
        ("{{ number }}", 5),
        ("n{{ number }}", "n5"),
        ("{{ list }}", ["a", "b"]),
        ("is {{ list }}", 'is ["a","b"]'),
        ("{{ map.{{ name }} }}", "by name"),
        ('{{ map."a.b" }}', "dotted"),
        ("{{ {x: name} }}", {"x": "shop"}),
        ("\\{{ name }}", "{{ name }}"),
        ("\\{{ name }} {{ name }}", "{{ name }} shop"),
        ("{{ none || 'd' }}", "d"),
        ("{{ evil }}", "{{ name }}"),
        ("x{{ evil }}", "x{{ name }}"),
        ({"{{ name }}": ["{{ number }}"]}, {"shop": [5]}),
        ({"a": "b", "c": "$(./../a)"}, {"a": "b", "c": "b"}),
        ({"a": {"(n)": 3}, "c": "$(>./../a/n)"}, {"a": {"(n)": 3}, "c": ">3.000000"}),
        ({"c": "\\$(a)"}, {"c": "$(a)"}),
        ({"metadata": {"labels": {"app": "{{ @ }}"}}}, {"metadata": {"labels": {"app": "x"}}}),
        (
            {"metadata": {"labels": {"+(app)": "{{ @ }}"}}},
            {"metadata": {"labels": {"+(app)": "x"}}},
        ),
    ],
)
def test_substitution(template: Value, value: Value) -> None:
    assert substitute(template, scope(**VALUES)) == value


@pytest.mark.parametrize(
    "template",
    [
        "{{ none }}",
        {"a": {"b": ["{{ none.more }}"]}},
        {"a": "$(./../none)"},
        "{{ request.object.x }}",
    ],
)
def test_what_leads_nowhere_is_an_error_with_its_path(template: Value) -> None:
    with pytest.raises(UnresolvedVariable) as caught:
        substitute(template, scope(**VALUES))
    if isinstance(template, dict):
        assert "a" in str(caught.value)


def test_templates_that_never_end_are_stopped() -> None:
    (policy,) = rule(
        f"""
        {ANY_NAMESPACE}
        context:
        - name: loop
          configMap: {{name: loop, namespace: x}}
        mutate: {{patchStrategicMerge: {{metadata: {{labels: {{a: "x{{{{ loop.data.a }}}}"}}}}}}}}
        """
    )
    config = thing("ConfigMap", "x", "loop", data={"a": "{{ loop.data.a }}{{ loop.data.a }}"})
    done = mutate([policy], create(SHOP), environment([config]))
    assert done.results[0].outcome is RuleOutcome.ERROR


def test_texts_of_a_configmap_are_read_for_variables_and_texts_of_requests_are_not() -> None:
    body = f"""
        {ANY_NAMESPACE}
        context:
        - name: settings
          configMap: {{name: settings, namespace: admin}}
        mutate:
          patchStrategicMerge:
            metadata:
              annotations:
                ours: "{{{{ settings.data.text }}}}"
                theirs: "{{{{ request.object.metadata.annotations.wish }}}}"
        """
    config = thing("ConfigMap", "admin", "settings", data={"text": "{{ request.object.kind }}!"})
    shop = ns("shop")
    shop["metadata"] = {"name": "shop", "annotations": {"wish": "{{ settings.data.text }}"}}
    done = mutate(rule(body), create(shop), environment([config]))
    annotations = done.document["metadata"]
    assert isinstance(annotations, dict)
    assert annotations["annotations"] == {
        "wish": "{{ settings.data.text }}",
        "ours": "Namespace!",
        "theirs": "{{ settings.data.text }}",
    }


@given(st.text("{}\\ abn'.|[]@$()", max_size=24))
def test_no_template_crashes(template: str) -> None:
    try:
        substitute(template, scope(a="x", b={"n": [1]}))
    except Exception as error:
        assert type(error).__module__ == "generators.kyverno.failures"  # noqa: PT017


def labelled(
    context: str, value: str, cluster: Environment, request: Document = SHOP, **named: str
) -> tuple[RuleOutcome, str]:
    """The outcome, and the label that the variable became or why not."""
    policies: tuple[Policy, ...] = rule(
        f"""
        match: {{any: [{{resources: {{kinds: [Namespace, ConfigMap]}}}}]}}
        context: {context}
        mutate: {{patchStrategicMerge: {{metadata: {{labels: {{got: "{value}"}}}}}}}}
        """,
        **named,
    )
    done = mutate(policies, create(request), cluster)
    (result,) = done.results
    return result.outcome, labels_of(done.document).get("got", result.message)


SETTINGS = thing("ConfigMap", "admin", "settings", data={"zone": "west"})


@pytest.mark.parametrize(
    ("context", "value", "expected"),
    [
        ("[{name: v, variable: {value: west}}]", "{{ v }}", "west"),
        ("[{name: v, variable: {value: {a: {b: west}}}}]", "{{ v.a.b }}", "west"),
        ("[{name: v, variable: {value: {a: west}, jmesPath: a}}]", "{{ v }}", "west"),
        (
            "[{name: v, variable: {jmesPath: request.object.metadata.name}}]",
            "{{ v }}",
            "shop-test02",
        ),
        ("[{name: v, variable: {jmesPath: request.none, default: west}}]", "{{ v }}", "west"),
        (
            "[{name: a, variable: {value: we}}, {name: b, variable: {value: '{{ a }}st'}}]",
            "{{ b }}",
            "west",
        ),
        ("[{name: m, configMap: {name: settings, namespace: admin}}]", "{{ m.data.zone }}", "west"),
        (
            "[{name: n, apiCall: {urlPath: '/api/v1/namespaces/bare', jmesPath: metadata.name}}]",
            "{{ n }}",
            "bare",
        ),
        (
            "[{name: n, apiCall: {urlPath: /api/v1/namespaces, jmesPath: 'items | length(@)'}}]",
            "n{{ n }}",
            "n2",
        ),
        (
            "[{name: n, apiCall: {urlPath: '/api/v1/namespaces/x', jmesPath: y, default: none}}]",
            "{{ n }}",
            "none",
        ),
        (
            "[{name: unused, configMap: {name: none, namespace: none}}]",
            "{{ request.object.metadata.name }}",
            "shop-test02",
        ),
    ],
)
def test_context(context: str, value: str, expected: str) -> None:
    cluster = environment([SETTINGS, SHOP, ns("bare")])
    assert labelled(context, value, cluster) == (RuleOutcome.PASS, expected)


@pytest.mark.parametrize(
    ("context", "value", "why"),
    [
        (
            "[{name: m, configMap: {name: none, namespace: x}}]",
            "{{ m.data.a }}",
            "ConfigMap x/none",
        ),
        (
            "[{name: b, variable: {value: '{{ a }}'}}, {name: a, variable: {value: x}}]",
            "{{ b }}",
            "a",
        ),
        ("[{name: n, apiCall: {urlPath: '/api/v1/namespaces/none'}}]", "{{ n.kind }}", "not found"),
        ("[{name: n, apiCall: {urlPath: '/api/../etc'}}]", "{{ n }}", "not a plain path"),
    ],
)
def test_a_context_that_cannot_be_read_is_an_error(context: str, value: str, why: str) -> None:
    outcome, message = labelled(context, value, environment())
    assert outcome is RuleOutcome.ERROR
    assert why in message


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/namespaces", True),
        ("/api/v1/namespaces/shop?limit=1", True),
        ("/api/v1/namespaces?labelSelector=a%3Db&limit=5", True),
        ("/api/v1/namespaces?watch=true", False),
        ("/api/v1/namespaces?%77atch=1", False),
        ("/api/v1/namespaces?limit=1&watch", False),
        ("/api/v1/namespaces?limit=1;watch=1", False),
        ("/api/v1/namespaces?limit=1%26watch=1", True),
        ("/api/v1/namespaces/shop%3Fwatch=1", False),
        ("/api/v1/namespaces/shop/secrets", False),
        ("/api/v1/secrets", False),
        ("/apis/apps/v1/deployments", False),
        ("/api/v1/namespaces/%2e%2e/secrets", False),
        ("/api/v1/namespaces/a%2fsecrets", False),
        ("http://example.com/api/v1/namespaces", False),
        ("/api/v1//namespaces", False),
    ],
)
def test_only_paths_of_the_operators_list_are_read(path: str, allowed: bool) -> None:
    cluster = environment([ns("shop"), ns("namespaces")], limits=Limits())
    context = f"[{{name: n, apiCall: {{urlPath: '{path}', jmesPath: kind}}}}]"
    outcome, message = labelled(context, "{{ n }}", cluster)
    assert (outcome is RuleOutcome.PASS) is allowed, message


KASTEN = "config.kio.kasten.io/v1alpha1"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (f"/apis/{KASTEN}/policies", True),
        (f"/apis/{KASTEN}/policies?limit=5", True),
        (f"/apis/{KASTEN}/namespaces/kasten-io/policies", True),
        (f"/apis/{KASTEN}/namespaces/kasten-io/policies/gold", True),
        (f"/apis/{KASTEN}/namespaces/kasten-io/policies/gold/status", False),
        (f"/apis/{KASTEN}/namespaces/kasten-io/policies?watch=1", False),
        (f"/apis/{KASTEN}/watch/policies", False),
        (f"/apis/{KASTEN}/namespaces/kasten-io/profiles", False),
        ("/apis/config.kio.kasten.io/v1beta1/policies", False),
        ("/apis/kyverno.io/v1/policies", False),
        ("/apis/apps/v1/deployments", False),
        ("/api/v1/namespaces/shop/secrets", False),
        ("/api/v1/namespaces/shop/secrets/a", False),
        ("/api/v1/pods", False),
        ("/apis/storage.example.com/v1/secrets", False),
    ],
)
def test_a_kind_that_the_operator_names_with_group_and_version_is_read_by_its_paths(
    path: str, allowed: bool
) -> None:
    """Nothing of the core group is: Secrets are in it."""
    named = (f"{KASTEN}/Policy", "Secret", "v1/Secret", "v1/Pod", "apps/Deployment")
    limits = allowing((*named, "storage.example.com/v1/Secret"))
    guarded = GuardedLookups(environment().lookups, limits)
    if allowed:
        assert guarded.checked(path) == path
        with pytest.raises(NotAllowed, match="--allow-kind"):
            GuardedLookups(environment().lookups, Limits()).checked(path)
    else:
        with pytest.raises(NotAllowed):
            guarded.checked(path)


def test_a_namespaced_policy_reads_an_allowed_kind_in_its_namespace_only() -> None:
    guarded = GuardedLookups(environment().lookups, allowing([f"{KASTEN}/Policy"]), "shop")
    assert guarded.checked(f"/apis/{KASTEN}/namespaces/shop/policies")
    for path in ("policies", "policies/namespaces", "namespaces/kasten-io/policies"):
        with pytest.raises(NotAllowed, match="may not read"):
            guarded.checked(f"/apis/{KASTEN}/{path}")


@pytest.mark.parametrize(
    "context",
    [
        "[{name: m, configMap: {name: settings, namespace: admin}}]",
        "[{name: m, configMap: {name: settings, namespace: '{{ request.object.data.wish }}'}}]",
        "[{name: m, apiCall: {urlPath: '/api/v1/namespaces/admin/configmaps/settings'}}]",
        "[{name: m, apiCall: {urlPath: '/api/v1/namespaces'}}]",
    ],
)
def test_a_namespaced_policy_reads_nothing_outside_its_namespace(context: str) -> None:
    request = thing("ConfigMap", "shop", "c", data={"wish": "admin"})
    cluster = environment([SETTINGS, request])
    outcome, message = labelled(
        context, "{{ m.data.zone }}", cluster, request, kind="Policy", namespace="shop"
    )
    assert outcome is RuleOutcome.ERROR
    assert "may not read" in message


def test_roots_of_a_request() -> None:
    robot = Asker("system:serviceaccount:ci:deployer", ("g",), ("ci:r",), ("c",))
    wanted = {
        "{{ request.operation }}": "CREATE",
        "{{ request.name }}": "shop-test02",
        "{{ request.userInfo.username | split(@, ':') | [2] }}": "ci",
        "{{ request.roles[0] | replace_all(@, ':', '.') }}": "ci.r",
        "{{ request.clusterRoles[0] }}": "c",
        "{{ serviceAccountName }}": "deployer",
        "{{ serviceAccountNamespace }}": "ci",
        "{{ request.kind.kind }}": "Namespace",
    }
    for expression, value in wanted.items():
        patch = f'metadata: {{labels: {{got: "{expression}"}}}}'
        done = mutate(mutate_rule(patch), create(SHOP, robot), environment())
        assert labels_of(done.document).get("got") == value, done.results


def test_on_delete_the_object_is_the_old_one() -> None:
    (policy,) = rule(
        """
        match: {any: [{resources: {kinds: [Namespace], operations: [DELETE]}}]}
        preconditions:
          all: [{key: "{{request.object.metadata.name}}", operator: Equals, value: gone}]
        generate:
          apiVersion: v1
          kind: ConfigMap
          name: "{{request.object.metadata.name}}"
          namespace: archive
          data: {data: {a: b}}
        """
    )
    from generators.kyverno.engine import generate

    made = generate([policy], delete(ns("gone")), environment())
    assert [str(w.key) for w in made.wanted] == ["ConfigMap archive/gone"]


def test_given_values_stand_in_for_lookups_and_requests() -> None:
    values = dotted({"m.data.zone": "east", "request.object.metadata.name": "other"})
    cluster = environment(values=values)
    context = "[{name: m, configMap: {name: x, namespace: y}}]"
    text = "{{ m.data.zone }}-{{ request.object.metadata.name }}"
    assert labelled(context, text, cluster) == (RuleOutcome.PASS, "east-other")


Op = ConditionOperator
CONDITIONS: list[tuple[Value, ConditionOperator, Value, bool]] = [
    ("a", Op.EQUALS, "a", True),
    ("shop-test02", Op.EQUALS, "*-test02", True),
    ("*-test02", Op.EQUALS, "shop-test02", False),
    ("a", Op.EQUAL, "?", True),
    ("a", Op.NOT_EQUAL, "b", True),
    (None, Op.NOT_EQUALS, "", False),
    ("5", Op.EQUALS, 5, False),
    (["pods", "nodes/proxy", "*"], Op.EQUALS, "nodes/proxy", False),
    ("*", Op.EQUALS, "nodes/proxy", False),
    ("1Gi", Op.EQUALS, "1024Mi", True),
    ("1h", Op.EQUALS, "60m", True),
    ("1h", Op.EQUALS, 3600, True),
    (1, Op.EQUALS, "1", True),
    (1, Op.EQUALS, 1.0, True),
    (True, Op.EQUALS, 1, False),
    (True, Op.EQUALS, True, True),
    (None, Op.EQUALS, "", False),
    ({"a": 1}, Op.EQUALS, {"a": 1}, True),
    (["a"], Op.EQUALS, ["b"], False),
    ("a", Op.NOT_EQUALS, "b", True),
    ("a", Op.NOT_EQUALS, "*", False),
    ("a", Op.ANY_IN, ["a", "b"], True),
    (["x", "b"], Op.ANY_IN, ["a", "b"], True),
    (["x"], Op.ANY_IN, ["a", "b"], False),
    ("shop", Op.ANY_IN, ["s*"], True),
    ("s*", Op.ANY_IN, ["shop"], True),
    ("a", Op.ANY_IN, '["a", "b"]', True),
    (5, Op.ANY_IN, "1-10", True),
    (50, Op.ANY_IN, "1-10", False),
    ("a", Op.ANY_IN, None, False),
    ("a", Op.ANY_IN, "a", True),
    (["a", "b"], Op.ALL_IN, ["a", "b", "c"], True),
    (["a", "x"], Op.ALL_IN, ["a", "b", "c"], False),
    ([], Op.ALL_IN, ["a"], True),
    ("a", Op.IN, ["a"], True),
    (["a", "x"], Op.ANY_NOT_IN, ["a"], True),
    (["a"], Op.ANY_NOT_IN, ["a"], False),
    (["x", "y"], Op.ALL_NOT_IN, ["a"], True),
    (["x", "a"], Op.ALL_NOT_IN, ["a"], False),
    ("x", Op.NOT_IN, ["a"], True),
    (3, Op.GREATER, 2, True),
    ("2Gi", Op.GREATER, "1Gi", True),
    ("10", Op.GREATER, "9", True),
    ("1.10.0", Op.GREATER, "1.9.0", True),
    ("2h", Op.GREATER, "30m", True),
    (2, Op.GREATER_OR_EQUAL, 2, True),
    (1, Op.LESS, 2, True),
    (2, Op.LESS_OR_EQUAL, "1", False),
    ("a", Op.LESS, "b", False),
    ([1], Op.LESS, 2, False),
    ("90m", Op.LONGER, "1h", True),
    (60, Op.LONGER_OR_EQUAL, "1m", True),
    ("10s", Op.SHORTER, "1m", True),
    ("1m", Op.SHORTER_OR_EQUAL, 60, True),
]


@pytest.mark.parametrize(("key", "operator", "value", "expected"), CONDITIONS)
def test_conditions(key: Value, operator: ConditionOperator, value: Value, expected: bool) -> None:
    assert holds(key, operator, value) is expected


def test_every_operator_has_a_row() -> None:
    assert {row[1] for row in CONDITIONS} == set(ConditionOperator)


LABEL = "metadata: {labels: {a: b}}"


@pytest.mark.parametrize(
    ("preconditions", "passes"),
    [
        ("{all: [{key: '{{ none || `5` }}', operator: Equals, value: x}]}", False),
        ("{all: [{key: a, operator: Equals, value: a}], any: []}", True),
        (
            "{any: [{key: a, operator: Equals, value: b}, {key: a, operator: Equals, value: a}]}",
            True,
        ),
        (
            "{all: [{key: a, operator: Equals, value: a}],"
            " any: [{key: a, operator: Equals, value: b}]}",
            False,
        ),
        ("[{key: a, operator: Equals, value: a}]", True),
        ("{all: [{key: '{{ none || `[]` }}', operator: AnyIn, value: [x]}]}", False),
    ],
)
def test_preconditions(preconditions: str, passes: bool) -> None:
    done = mutate(
        mutate_rule(LABEL, f"preconditions: {preconditions}"), create(SHOP), environment()
    )
    assert done.results[0].outcome is (RuleOutcome.PASS if passes else RuleOutcome.SKIP), (
        done.results
    )


def test_an_unresolved_variable_is_told_with_file_line_and_field() -> None:
    patch = """
    metadata:
      labels:
        client: "{{ request.object.metadata.labels.none }}"
    """
    done = mutate(mutate_rule(patch), create(SHOP), environment())
    (result,) = done.results
    assert result.outcome is RuleOutcome.ERROR
    assert "policy.yaml:14: spec.rules[0].mutate.patchStrategicMerge.metadata.labels.client" in (
        result.message
    )
    assert "there is no 'none'" in result.message


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx", ("docker.io", "nginx", "latest", "docker.io/nginx:latest")),
        ("ghcr.io/x/side:v2", ("ghcr.io", "x/side", "v2", "ghcr.io/x/side:v2")),
        ("localhost:5000/x", ("localhost:5000", "x", "latest", "localhost:5000/x:latest")),
        ("UPPER/x", ("UPPER", "x", "latest", "UPPER/x:latest")),
        (f"n:1@sha256:{'b' * 64}", ("docker.io", "n", "1", f"docker.io/n@sha256:{'b' * 64}")),
    ],
)
def test_images_are_read_by_their_parts(image: str, expected: tuple[str, ...]) -> None:
    containers: Value = [{"name": "c", "image": image}]
    pod: Document = {"kind": "Pod", "spec": {"containers": containers}}
    job: Document = {"kind": "Job", "spec": {"template": {"spec": pod["spec"]}}}
    for document in (pod, job):
        found = mapping(images_of(document), "containers", "c")
        shown = tuple(found.get(key) for key in ("registry", "path", "tag", "reference"))
        assert shown == expected


def test_what_is_no_image_is_told() -> None:
    bad: Value = [{"name": "c", "image": "bad image"}]
    with pytest.raises(BadExpression, match="invalid image 'bad image'"):
        images_of({"kind": "Pod", "spec": {"containers": bad}})
    assert images_of({"kind": "Namespace"}) == {}
