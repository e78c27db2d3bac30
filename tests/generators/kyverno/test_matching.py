"""`match` and `exclude`: one row an attribute, and what surprises."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from generators.kyverno.engine import applicability
from generators.kyverno.failures import LookupFailed
from generators.kyverno.limits import Limits
from generators.kyverno.matchparsing import kind_pattern
from generators.kyverno.model import Document, KindPattern
from generators.kyverno.offline.cluster import DocumentCluster
from generators.kyverno.requests import Asker, PolicyRequest
from generators.kyverno.results import RuleOutcome
from tests.generators.kyverno.policies import (
    create,
    delete,
    environment,
    ns,
    rule,
    thing,
    update,
)

PATCH = "\nmutate: {patchStrategicMerge: {metadata: {labels: {a: b}}}}"
ANN = Asker("ann", ("team-a", "system:authenticated"), ("shop:editor",), ("admin", "cluster-admin"))
ROBOT = Asker("system:serviceaccount:ci:deployer", ("system:serviceaccounts",))
SHOP = ns("shop-test02", client="test02", tier="gold")
NOTED: Document = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "noted", "annotations": {"team.example/owner": "ann"}},
}
MAP = thing("ConfigMap", "shop-test02", "settings")


def applies(match: str, request: PolicyRequest, exclude: str = "") -> bool:
    body = f"match: {match}" + (f"\nexclude: {exclude}" if exclude else "") + PATCH
    (policy,) = rule(body)
    surroundings = environment([SHOP, ns("bare")])
    result = applicability(policy, policy.rules[0], request, surroundings)
    assert result is None or (result.outcome is RuleOutcome.EXCLUDED and result.message)
    return result is None


ROWS: list[tuple[str, str, PolicyRequest, bool]] = [
    ("kind", "{any: [{resources: {kinds: [Namespace]}}]}", create(SHOP), True),
    ("other kind", "{any: [{resources: {kinds: [Pod]}}]}", create(SHOP), False),
    ("kind is case sensitive", "{any: [{resources: {kinds: [namespace]}}]}", create(SHOP), False),
    ("one of the kinds", "{any: [{resources: {kinds: [Pod, Namespace]}}]}", create(SHOP), True),
    ("kind wildcard", "{any: [{resources: {kinds: ['*']}}]}", create(SHOP), True),
    ("version and kind", "{any: [{resources: {kinds: [v1/Namespace]}}]}", create(SHOP), True),
    ("other version", "{any: [{resources: {kinds: [v2/Namespace]}}]}", create(SHOP), False),
    ("group, version, kind", "{any: [{resources: {kinds: ['*/*/Name*']}}]}", create(SHOP), True),
    ("other group", "{any: [{resources: {kinds: [apps/v1/Namespace]}}]}", create(SHOP), False),
    ("older form", "{resources: {kinds: [Namespace]}}", create(SHOP), True),
    (
        "any is one of",
        "{any: [{resources: {kinds: [Pod]}}, {resources: {names: ['shop-*']}}]}",
        create(SHOP),
        True,
    ),
    (
        "all is each of",
        "{all: [{resources: {kinds: [Namespace]}}, {resources: {names: [x]}}]}",
        create(SHOP),
        False,
    ),
    ("name", "{any: [{resources: {kinds: [Namespace], name: '*-test02'}}]}", create(SHOP), True),
    ("names", "{any: [{resources: {names: [a, '*-test0?']}}]}", create(SHOP), True),
    ("no name", "{any: [{resources: {names: [a, b]}}]}", create(SHOP), False),
    (
        "namespaces of a Namespace are its name",
        "{any: [{resources: {kinds: [Namespace], namespaces: ['shop-*']}}]}",
        create(SHOP),
        True,
    ),
    ("namespaces", "{any: [{resources: {namespaces: ['shop-*']}}]}", create(MAP), True),
    ("other namespaces", "{any: [{resources: {namespaces: [x]}}]}", create(MAP), False),
    (
        "selector",
        "{any: [{resources: {selector: {matchLabels: {client: test02}}}}]}",
        create(SHOP),
        True,
    ),
    (
        "selector value wildcard",
        "{any: [{resources: {selector: {matchLabels: {client: 'test*'}}}}]}",
        create(SHOP),
        True,
    ),
    (
        "selector key wildcard",
        "{any: [{resources: {selector: {matchLabels: {'cl*': '*'}}}}]}",
        create(SHOP),
        True,
    ),
    (
        "selector key wildcard takes the key whose value fits",
        "{any: [{resources: {selector: {matchLabels: {'*': gold}}}}]}",
        create(SHOP),
        True,
    ),
    (
        "wildcards that nothing fits never match",
        "{any: [{resources: {selector: {matchLabels: {'x*': '*'}}}}]}",
        create(SHOP),
        False,
    ),
    (
        "selector expressions",
        "{any: [{resources: {selector: {matchExpressions: [{key: tier, operator: In, values:"
        " [gold]}, {key: old, operator: DoesNotExist}]}}}]}",
        create(SHOP),
        True,
    ),
    (
        "namespaceSelector",
        "{any: [{resources: {namespaceSelector: {matchLabels: {client: test02}}}}]}",
        create(MAP),
        True,
    ),
    (
        "namespaceSelector of other labels",
        "{any: [{resources: {namespaceSelector: {matchLabels: {client: x}}}}]}",
        create(MAP),
        False,
    ),
    (
        "namespaceSelector never selects a Namespace",
        "{any: [{resources: {namespaceSelector: {matchLabels: {client: test02}}}}]}",
        create(SHOP),
        False,
    ),
    (
        "annotations",
        "{any: [{resources: {annotations: {'team.*/owner': 'a?n'}}}]}",
        create(NOTED),
        True,
    ),
    ("no annotation", "{any: [{resources: {annotations: {x: '*'}}}]}", create(NOTED), False),
    ("update by default", "{any: [{resources: {kinds: [Namespace]}}]}", update(SHOP, SHOP), True),
    ("not delete by default", "{any: [{resources: {kinds: [Namespace]}}]}", delete(SHOP), False),
    (
        "delete when listed",
        "{any: [{resources: {kinds: [Namespace], operations: [DELETE]}}]}",
        delete(SHOP),
        True,
    ),
    (
        "create only",
        "{any: [{resources: {kinds: [Namespace], operations: [CREATE]}}]}",
        update(SHOP, SHOP),
        False,
    ),
    ("user", "{any: [{subjects: [{kind: User, name: ann}]}]}", create(SHOP, ANN), True),
    ("group", "{any: [{subjects: [{kind: Group, name: 'team-*'}]}]}", create(SHOP, ANN), True),
    (
        "service account",
        "{any: [{subjects: [{kind: ServiceAccount, name: deployer, namespace: ci}]}]}",
        create(SHOP, ROBOT),
        True,
    ),
    (
        "service account elsewhere",
        "{any: [{subjects: [{kind: ServiceAccount, name: deployer, namespace: x}]}]}",
        create(SHOP, ROBOT),
        False,
    ),
    ("cluster role", "{any: [{clusterRoles: [admin]}]}", create(SHOP, ANN), True),
    ("no cluster role", "{any: [{clusterRoles: [admin]}]}", create(SHOP, ROBOT), False),
    ("role", "{any: [{roles: ['shop:editor']}]}", create(SHOP, ANN), True),
    (
        "user parts are ANDed",
        "{any: [{clusterRoles: [admin], subjects: [{kind: User, name: bob}]}]}",
        create(SHOP, ANN),
        False,
    ),
    (
        "background work has no requester",
        "{any: [{resources: {kinds: [Namespace]}, clusterRoles: [admin]}]}",
        create(SHOP),
        True,
    ),
    (
        "a filter of users only never selects in the background",
        "{any: [{clusterRoles: [admin]}]}",
        create(SHOP),
        False,
    ),
]


@pytest.mark.parametrize(
    ("match", "request_", "expected"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_match(match: str, request_: PolicyRequest, expected: bool) -> None:
    assert applies(match, request_) is expected


EVERY = "{any: [{resources: {kinds: [Namespace]}}]}"


@pytest.mark.parametrize(
    ("exclude", "request_", "expected"),
    [
        pytest.param("{any: [{resources: {names: ['shop-*']}}]}", create(SHOP), False, id="any"),
        pytest.param("{any: [{resources: {names: [x]}}]}", create(SHOP), True, id="other"),
        pytest.param(
            "{all: [{resources: {names: ['shop-*']}}, {resources: {kinds: [Pod]}}]}",
            create(SHOP),
            True,
            id="all of them must hold",
        ),
        pytest.param("{resources: {names: ['shop-*']}}", create(SHOP), False, id="older form"),
        pytest.param("{clusterRoles: [cluster-admin]}", create(SHOP, ANN), False, id="admins"),
        pytest.param("{clusterRoles: [cluster-admin]}", create(SHOP, ROBOT), True, id="robots"),
        pytest.param(
            "{clusterRoles: [cluster-admin]}", create(SHOP), True, id="unknown requesters"
        ),
    ],
)
def test_exclude(exclude: str, request_: PolicyRequest, expected: bool) -> None:
    assert applies(EVERY, request_, exclude) is expected


def test_requests_of_our_own_are_skipped_unless_the_rule_wants_them() -> None:
    own = PolicyRequest(create(SHOP).operation, SHOP, {}, ROBOT, own=True)
    assert not applies(EVERY, own)
    (policy,) = rule(f"skipBackgroundRequests: false\nmatch: {EVERY}{PATCH}")
    assert applicability(policy, policy.rules[0], own, environment()) is None


def test_a_namespaced_policy_selects_in_its_namespace_only() -> None:
    body = "match: {any: [{resources: {kinds: [ConfigMap]}}]}" + PATCH
    (policy,) = rule(body, kind="Policy", namespace="other")
    result = applicability(policy, policy.rules[0], create(MAP), environment())
    assert result is not None
    assert "namespace other only" in result.message


class _Broken(DocumentCluster):
    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        raise LookupFailed("the cache is not there")


def test_a_failed_lookup_is_an_error_and_never_no_match() -> None:
    selector = "namespaceSelector: {matchLabels: {client: x}}"
    (policy,) = rule(f"match: {{any: [{{resources: {{{selector}}}}}]}}{PATCH}")
    broken = environment()
    broken = type(broken)(_Broken([]), Limits(), broken.clock)
    with pytest.raises(LookupFailed, match="cache"):
        applicability(policy, policy.rules[0], create(MAP), broken)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Pod", KindPattern("*", "*", "Pod")),
        ("v1/Pod", KindPattern("*", "v1", "Pod")),
        ("apps/v1/Deployment", KindPattern("apps", "v1", "Deployment")),
        ("Pod/exec", KindPattern("*", "*", "Pod", "exec")),
        ("Pod.status", KindPattern("*", "*", "Pod", "status")),
        ("v1/Pod/exec", KindPattern("*", "v1", "Pod", "exec")),
        ("apps/v1/Deployment/scale", KindPattern("apps", "v1", "Deployment", "scale")),
        ("*", KindPattern("*", "*", "*")),
        ("*/*/*", KindPattern("*", "*", "*")),
        (
            "networking.k8s.io/*/NetworkPolicy",
            KindPattern("networking.k8s.io", "*", "NetworkPolicy"),
        ),
    ],
)
def test_kinds(text: str, pattern: KindPattern) -> None:
    assert kind_pattern(text) == pattern


def test_pods_stand_for_their_ephemeral_containers() -> None:
    pod = thing("Pod", "shop-test02", "p")
    inside = PolicyRequest(create(pod).operation, pod, {}, None, "ephemeralcontainers")
    scaled = PolicyRequest(create(pod).operation, pod, {}, None, "status")
    assert applies("{any: [{resources: {kinds: [Pod]}}]}", inside)
    assert not applies("{any: [{resources: {kinds: [Pod]}}]}", scaled)
    assert applies("{any: [{resources: {kinds: [Pod/status]}}]}", scaled)
