"""A plan turns what is there into what is wanted, tells why, and touches nothing else."""

from __future__ import annotations

import pytest

from generators.cluster import declared_namespaces
from generators.documents.writing import to_yaml
from generators.isolation.plan import Action, Change, plan, wanted_by_name
from generators.manifests import namespace_document, policy_document
from generators.objects import Namespace
from tests.generators.builders import config, documents, namespace, pod, policy

NAME = "allow-ingress-namespace"
MANAGED = "app.kubernetes.io/managed-by: ringfence"
LABELLED = namespace("a-blue", "client: blue")
RIGHT = (
    "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {client: blue}}}]}, "
    "{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]}]"
)
LABELS = (
    f"{MANAGED}, ringfence.io/policy: tenant-isolation, ringfence.io/rule: {NAME}, argo: adopted"
)


def changes(*texts: str) -> tuple[Change, ...]:
    found = documents(*texts)
    namespaces = declared_namespaces(found)
    return plan(wanted_by_name(config(), namespaces.values()), namespaces, found.policies)


def short(*texts: str) -> list[str]:
    return [f"{c.action} {c.kind} {c.namespace}/{c.name}" for c in changes(*texts)]


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        (
            [namespace("a-blue")],
            ["Update Namespace /a-blue", f"Create NetworkPolicy a-blue/{NAME}"],
        ),
        ([LABELLED], ["Keep Namespace /a-blue", f"Create NetworkPolicy a-blue/{NAME}"]),
        (
            [LABELLED, policy(f"a-blue/{NAME}", RIGHT, LABELS)],
            ["Keep Namespace /a-blue", f"Keep NetworkPolicy a-blue/{NAME}"],
        ),
        (
            [LABELLED, policy(f"a-blue/{NAME}", f"{RIGHT}, policyTypes: [Ingress]", LABELS)],
            ["Keep Namespace /a-blue", f"Keep NetworkPolicy a-blue/{NAME}"],
        ),
        (
            [LABELLED, policy(f"a-blue/{NAME}", RIGHT, MANAGED)],
            ["Keep Namespace /a-blue", f"Update NetworkPolicy a-blue/{NAME}"],
        ),
        (
            [LABELLED, policy(f"a-blue/{NAME}", RIGHT)],
            ["Keep Namespace /a-blue", f"Update NetworkPolicy a-blue/{NAME}"],
        ),
        ([namespace("free")], []),
        ([pod("a-blue/web")], ["Update Namespace /a-blue", f"Create NetworkPolicy a-blue/{NAME}"]),
        ([namespace("free", "client: blue")], ["Update Namespace /free"]),
        ([policy("free/theirs")], []),
        ([policy(f"free/{NAME}", RIGHT)], []),
        ([policy(f"free/{NAME}", RIGHT, MANAGED)], [f"Delete NetworkPolicy free/{NAME}"]),
        ([policy("free/old", RIGHT, f"{MANAGED}, ringfence.io/policy: from-kyverno")], []),
    ],
)
def test_what_a_plan_does(live: list[str], expected: list[str]) -> None:
    assert short(*live) == expected


def test_the_label_of_a_namespace_of_nobody_is_removed() -> None:
    (change,) = changes(namespace("free", "client: blue, team: t"))
    assert isinstance(change.item, Namespace)
    assert "client" not in change.item.labels
    assert change.item.labels["team"] == "t"


@pytest.mark.parametrize(
    ("drift", "told"),
    [
        (RIGHT.replace("blue", "red"), "drifted: ingress"),
        (f"{RIGHT}, policyTypes: [Ingress, Egress]", "drifted: policyTypes"),
        (f"{RIGHT}, egress: [{{}}], policyTypes: [Ingress]", "drifted: egress"),
        (RIGHT.replace("{}", "{matchLabels: {a: b}}", 1), "drifted: podSelector"),
    ],
)
def test_drift_is_told(drift: str, told: str) -> None:
    update = changes(LABELLED, policy(f"a-blue/{NAME}", drift, LABELS))[1]
    assert (update.action, update.because.endswith(told)) == (Action.UPDATE, True)


def test_each_change_says_who_wants_it() -> None:
    labelled, created = changes(namespace("a-blue"))
    assert labelled.because == (
        'tenant blue (tenants.yaml:9): name matches suffix "-blue" of tenant blue '
        "(tenants.yaml:10); labels that change: client"
    )
    assert created.because == "tenant blue (tenants.yaml:9) isolates namespace a-blue"


def test_deletions_come_last() -> None:
    found = short(namespace("z-blue"), policy(f"a/{NAME}", RIGHT, MANAGED))
    assert [line.split()[0] for line in found] == ["Update", "Create", "Delete"]


def test_nothing_is_touched_in_a_terminating_namespace() -> None:
    dying = LABELLED + "\nstatus: {phase: Terminating}"
    assert short(dying) == ["Keep Namespace /a-blue"]
    dying = namespace("free") + "\nstatus: {phase: Terminating}"
    assert short(dying, policy(f"free/{NAME}", RIGHT, MANAGED)) == []


def test_a_plan_that_was_applied_is_kept() -> None:
    items = [change.item for change in changes(namespace("a-blue"), namespace("b-red"))]
    applied = [
        to_yaml(
            [namespace_document(item) if isinstance(item, Namespace) else policy_document(item)]
        )
        for item in items
        if item is not None
    ]
    assert {change.action for change in changes(*applied)} == {Action.KEEP}
