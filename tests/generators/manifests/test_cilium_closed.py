"""An invalid policy that an API server has taken closes, and no more than it must."""

from __future__ import annotations

import pytest

from generators.documents.json import Document
from generators.manifests import closed_cilium
from generators.objects import (
    Direction,
    Labels,
    NetworkPolicy,
    Origin,
    Pod,
    Rule,
)
from generators.selectors import selects

IN, OUT = Direction.INGRESS, Direction.EGRESS
WEB: Document = {"matchLabels": {"app": "web"}}
REFUSED: Document = {"fromGroups": [{}]}
LABELS: Labels = {"kubernetes.io/metadata.name": "a"}


def parts(spec: object, kind: str = "CiliumNetworkPolicy", **more: object) -> list[NetworkPolicy]:
    document: Document = {
        "apiVersion": "cilium.io/v2",
        "kind": kind,
        "metadata": {"name": "p", "namespace": "a"},
        **({"spec": spec} if spec is not None else {}),
        **more,
    }
    return list(closed_cilium(document, Origin("api-server")).parts)


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({"endpointSelector": WEB, "ingress": [REFUSED]}, {IN}),
        ({"endpointSelector": WEB, "egress": [{"toFQDNs": [{}]}]}, {OUT}),
        ({"endpointSelector": WEB, "ingress": [REFUSED], "egress": []}, {IN}),
        ({"endpointSelector": WEB, "ingress": "all", "egress": None}, {IN}),
        ({"endpointSelector": WEB, "ingressDeny": [REFUSED]}, {IN}),
        ({"endpointSelector": WEB, "ingress": [REFUSED], "egres": [{}]}, {IN, OUT}),
        ({"endpointSelector": WEB, "ingress": []}, {IN, OUT}),
        (
            {
                "endpointSelector": WEB,
                "enableDefaultDeny": {"ingress": False},
                "ingress": [REFUSED],
            },
            set(),
        ),
        ({"endpointSelector": WEB, "enableDefaultDeny": "no", "ingress": [REFUSED]}, {IN}),
        ("nonsense", {IN, OUT}),
    ],
)
def test_it_closes_what_it_speaks_about_and_allows_nothing(
    spec: object, directions: set[Direction]
) -> None:
    (part,) = parts(spec)
    assert part.directions == directions
    assert not [rule for rule in (*part.ingress, *part.egress) if not rule.deny]


@pytest.mark.parametrize(
    ("spec", "web", "other"),
    [
        ({"endpointSelector": WEB, "ingress": [REFUSED]}, True, False),
        ({"endpointSelector": {}, "ingress": [REFUSED]}, True, True),
        ({"endpointSelector": {"matchLabels": "web"}, "ingress": [REFUSED]}, True, True),
        ({"ingress": [REFUSED]}, True, True),
        ({"endpointSelector": {"matchLabels": {"reserved:init": ""}}, "x": 1}, False, False),
    ],
)
def test_it_selects_as_it_says_or_all_that_it_could_select(
    spec: object, web: bool, other: bool
) -> None:
    (part,) = parts(spec)
    pods = [Pod("a", "p", labels={"app": app}) for app in ("web", "other")]
    assert [selects(part, pod, LABELS) for pod in pods] == [web, other]
    elsewhere = Pod("b", "p", labels={"app": "web"})
    assert not selects(part, elsewhere, {"kubernetes.io/metadata.name": "b"})


def test_one_about_nodes_concerns_no_pod() -> None:
    assert parts({"nodeSelector": {}, "ingress": [{}]}, "CiliumClusterwideNetworkPolicy") == []


def test_rules_that_deny_stay_where_they_can_be_read_and_else_deny_everybody() -> None:
    denied = {"fromEndpoints": [WEB]}
    (part,) = parts(
        {"endpointSelector": {}, "ingressDeny": [denied], "egress": [{"toGroups": [1]}]}
    )
    assert [rule.deny for rule in part.ingress] == [True]
    assert part.ingress[0].peers
    (part,) = parts({"endpointSelector": {}, "ingressDeny": [denied, REFUSED]})
    assert part.ingress == (Rule(deny=True, name="ingressDeny[0]"),)


def test_each_part_stands_for_itself_and_all_of_them_are_closed() -> None:
    found = parts(
        {"endpointSelector": WEB, "ingress": [{}]},
        specs=[{"endpointSelector": WEB, "egress": [{"toGroups": [1]}]}, 7],
    )
    assert [(part.part, set(part.directions)) for part in found] == [
        ("", {IN}),
        ("specs[0]", {OUT}),
        ("specs[1]", {IN, OUT}),
    ]


@pytest.mark.parametrize("specs", [None, [], "x", {}])
def test_one_without_any_part_says_nothing(specs: object) -> None:
    assert parts(None, specs=specs) == []


def test_one_that_is_nested_too_deeply_to_be_read_closes_its_namespace() -> None:
    deep: object = {}
    for _ in range(10_000):
        deep = {"x": deep}
    (part,) = parts(deep)
    assert part.directions == {IN, OUT}
