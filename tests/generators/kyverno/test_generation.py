"""Generate rules: data, clone, cloneList, foreach; marks, guards, and the matrix of changes."""

from __future__ import annotations

import pytest

from generators.documents.json import labels_of, mapping, object_key_of
from generators.kyverno.engine import Generated, generate
from generators.kyverno.limits import Limits, parse_kind
from generators.kyverno.model import Document, Operation
from generators.kyverno.ownership import Owner, label_text, policy_label, unmarked
from generators.kyverno.requests import PolicyRequest
from generators.kyverno.results import RuleOutcome
from generators.kyverno.synchronize import (
    Making,
    Reaction,
    Stale,
    SyncEvent,
    reaction,
    same,
    stale,
)
from generators.labels import MANAGED_BY, POLICY_LABEL, RULE_LABEL
from tests.generators.kyverno.policies import (
    EVERY_KIND,
    create,
    environment,
    generate_rule,
    ns,
    policies,
    rule,
    thing,
)

SHOP = ns("shop-test02", client="test02")
DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
name: default-deny
namespace: "{{request.object.metadata.name}}"
synchronize: true
data:
  metadata: {labels: {team: a}}
  spec: {podSelector: {}, policyTypes: [Ingress]}
"""


def one(made: Generated) -> Document:
    assert [result.outcome for result in made.results] == [RuleOutcome.PASS], made.results
    (wanted,) = made.wanted
    return wanted.document


def test_data_becomes_the_object_with_its_owners_marks() -> None:
    made = generate(generate_rule(DENY), create(SHOP), environment())
    document = one(made)
    assert unmarked(document) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "default-deny",
            "namespace": "shop-test02",
            "labels": {"team": "a"},
        },
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    assert labels_of(document)[MANAGED_BY] == "ringfence"
    assert labels_of(document)[POLICY_LABEL] == "kyverno.policy"
    assert labels_of(document)[RULE_LABEL] == "rule"
    assert made.wanted[0].synchronize


def test_the_same_input_gives_the_same_objects() -> None:
    text = DENY.replace("default-deny", "deny-{{ random('[a-z]{6}') }}")
    first, second = (generate(generate_rule(text), create(SHOP), environment()) for _ in range(2))
    other = generate(generate_rule(text), create(ns("other")), environment())
    assert first == second
    assert first.wanted[0].key.name != other.wanted[0].key.name


SECRET: Document = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {
        "name": "pull",
        "namespace": "admin",
        "uid": "1",
        "resourceVersion": "2",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{}],
        "ownerReferences": [{"uid": "x"}],
        "labels": {"copy": "me"},
    },
    "data": {"a": "Yg=="},
    "status": {"x": "y"},
}
CLONE = """
apiVersion: v1
kind: Secret
name: pull
namespace: "{{request.object.metadata.name}}"
synchronize: true
clone: {namespace: admin, name: pull}
"""


def test_a_clone_leaves_behind_what_belongs_to_the_live_object() -> None:
    made = generate(generate_rule(CLONE), create(SHOP), environment([SECRET], EVERY_KIND))
    document = one(made)
    assert unmarked(document) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pull", "namespace": "shop-test02", "labels": {"copy": "me"}},
        "data": {"a": "Yg=="},
    }
    assert str(made.wanted[0].source) == "Secret admin/pull"


def test_a_clone_of_itself_is_nothing_to_do() -> None:
    made = generate(generate_rule(CLONE), create(ns("admin")), environment([SECRET], EVERY_KIND))
    assert (made.wanted, made.results[0].outcome) == ((), RuleOutcome.SKIP)


def test_a_source_that_is_not_there_is_an_error() -> None:
    made = generate(generate_rule(CLONE), create(SHOP), environment([], EVERY_KIND))
    assert made.results[0].outcome is RuleOutcome.ERROR
    assert "Secret admin/pull is not there" in made.results[0].message


def test_a_clone_list_copies_what_its_selector_picks() -> None:
    policy = generate_rule(
        """
        namespace: "{{request.object.metadata.name}}"
        cloneList:
          namespace: admin
          kinds: [v1/Secret, v1/ConfigMap]
          selector: {matchLabels: {copy: me}}
        """
    )
    config = thing("ConfigMap", "admin", "c")
    config["metadata"] = {"name": "c", "namespace": "admin", "labels": {"copy": "me"}}
    cluster = environment([SECRET, config, thing("ConfigMap", "admin", "d")], EVERY_KIND)
    made = generate(policy, create(SHOP), cluster)
    keys = [str(wanted.key) for wanted in made.wanted]
    assert keys == ["Secret shop-test02/pull", "ConfigMap shop-test02/c"]


def test_foreach_generates_for_each_element_whose_preconditions_hold() -> None:
    policy = generate_rule(
        """
        foreach:
        - list: "split(request.object.metadata.annotations.peers, ',')"
          context: [{name: peer, variable: {value: "{{ element }}"}}]
          preconditions: {all: [{key: "{{ element }}", operator: NotEquals, value: ""}]}
          apiVersion: v1
          kind: ConfigMap
          name: "peer-{{ elementIndex }}"
          namespace: "{{request.object.metadata.name}}"
          data: {data: {peer: "{{ peer }}"}}
        """
    )
    shop = ns("shop")
    shop["metadata"] = {"name": "shop", "annotations": {"peers": "a,,b"}}
    made = generate(policy, create(shop), environment())
    found = {wanted.key.name: mapping(wanted.document, "data")["peer"] for wanted in made.wanted}
    assert found == {"peer-0": "a", "peer-2": "b"}
    assert [wanted.owner.item for wanted in made.wanted] == ["0.a", "0.b"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("default-deny", "Default_Deny"), "name a lowercase"),
        (("{{request.object.metadata.name}}", ""), "has no namespace"),
        (("{{request.object.metadata.name}}", "{{request.object.metadata.labels.none}}"), "none"),
        (("{{request.object.metadata.name}}", "kube-system"), "kube-system is protected"),
        (("{team: a}", "{team: " + "x" * 64 + "}"), "labels.team"),
        (("{team: a}", "{team: 1}"), "not a string"),
        (("NetworkPolicy", "Deployment"), "--allow-kind networking.k8s.io/v1/Deployment"),
    ],
)
def test_what_may_not_be_generated_is_an_error(change: tuple[str, str], why: str) -> None:
    made = generate(generate_rule(DENY.replace(*change)), create(SHOP), environment())
    assert made.results[0].outcome is RuleOutcome.ERROR
    assert why in made.results[0].message
    assert made.wanted == ()


LOOPS = """
apiVersion: v1
kind: %s
name: "%s"
namespace: "%s"
data: {data: {a: b}}
"""


def test_a_rule_that_would_trigger_itself_is_an_error() -> None:
    policy = rule(
        "match: {any: [{resources: {kinds: [ConfigMap]}}]}\ngenerate:\n"
        + "\n".join(f"  {line}" for line in (LOOPS % ("ConfigMap", "copy", "shop")).split("\n"))
    )
    made = generate(policy, create(thing("ConfigMap", "shop", "c")), environment())
    assert "would loop" in made.results[0].message


def test_a_namespaced_policy_generates_into_its_own_namespace_only() -> None:
    body = (
        "match: {any: [{resources: {kinds: [Secret]}}]}\ngenerate:\n  apiVersion: v1\n"
        "  kind: ConfigMap\n  name: c\n  namespace: %s\n  data: {data: {a: b}}"
    )
    trigger = create(thing("Secret", "shop", "s"))
    for namespace, outcome in (("shop", RuleOutcome.PASS), ("other", RuleOutcome.ERROR)):
        policy = rule(body % namespace, kind="Policy", namespace="shop")
        made = generate(policy, trigger, environment())
        assert made.results[0].outcome is outcome


def test_a_cluster_scoped_object_takes_no_namespace() -> None:
    text = LOOPS % ("ClusterRole", "r", "{{request.object.metadata.name}}")
    text = text.replace("apiVersion: v1", "apiVersion: rbac.authorization.k8s.io/v1")
    made = generate(generate_rule(text), create(SHOP), environment([], EVERY_KIND))
    assert "belongs to no namespace" in made.results[0].message


def test_a_dry_run_generates_nothing() -> None:
    dry = PolicyRequest(Operation.CREATE, SHOP, {}, dry_run=True)
    assert generate(generate_rule(DENY), dry, environment()) == Generated((), ())


def test_names_that_are_too_long_for_labels_are_cut_and_told_apart() -> None:
    long = "a" * 80
    assert len(label_text(long)) <= 63
    assert label_text(long) != label_text(long + "b")
    assert label_text("short") == "short"
    assert label_text("-x/") != label_text("x.")
    text = f"""
        apiVersion: kyverno.io/v1
        kind: ClusterPolicy
        metadata: {{name: {long}}}
        spec:
          rules:
          - name: {"r" * 63}
            match: {{any: [{{resources: {{kinds: [Namespace]}}}}]}}
            generate:
              apiVersion: v1
              kind: ConfigMap
              name: c
              namespace: x
              data: {{data: {{a: b}}}}
        """
    document = one(generate(policies(text), create(SHOP), environment()))
    assert all(len(value) <= 63 for value in labels_of(document).values())
    assert labels_of(document)[POLICY_LABEL] == policy_label(long)
    assert labels_of(document)[RULE_LABEL] == "r" * 63
    assert mapping(document, "metadata", "annotations")["ringfence.io/policy"] == long


NOTHING, AGAIN, BACK, GONE = Reaction.NOTHING, Reaction.RECREATE, Reaction.RESTORE, Reaction.DELETE
MATRIX: list[tuple[SyncEvent, Reaction, Reaction, Reaction, Reaction]] = [
    (SyncEvent.DOWNSTREAM_DELETED, AGAIN, NOTHING, AGAIN, NOTHING),
    (SyncEvent.DOWNSTREAM_EDITED, BACK, NOTHING, BACK, NOTHING),
    (SyncEvent.TRIGGER_DELETED, GONE, NOTHING, GONE, NOTHING),
    (SyncEvent.TRIGGER_NO_LONGER_APPLIES, GONE, NOTHING, GONE, NOTHING),
    (SyncEvent.POLICY_DELETED, GONE, NOTHING, NOTHING, NOTHING),
    (SyncEvent.POLICY_CHANGED, BACK, NOTHING, NOTHING, NOTHING),
    (SyncEvent.SOURCE_CHANGED, NOTHING, NOTHING, BACK, NOTHING),
    (SyncEvent.SOURCE_DELETED, NOTHING, NOTHING, GONE, NOTHING),
]


@pytest.mark.parametrize("row", MATRIX, ids=[row[0].name for row in MATRIX])
def test_the_matrix_of_changes(
    row: tuple[SyncEvent, Reaction, Reaction, Reaction, Reaction],
) -> None:
    event, *expected = row
    cells = [(m, s) for m in (Making.DATA, Making.CLONE) for s in (True, False)]
    assert [reaction(event, m, synchronize=s) for m, s in cells] == expected


def test_the_matrix_has_every_event() -> None:
    assert [row[0] for row in MATRIX] == list(SyncEvent)


def test_orphans_stay_when_their_policy_goes() -> None:
    kept = reaction(SyncEvent.POLICY_DELETED, Making.DATA, synchronize=True, orphan=True)
    assert kept is NOTHING


def test_defaults_and_marks_of_the_server_are_no_difference() -> None:
    desired: Document = {"metadata": {"name": "a", "labels": {}}, "spec": {"podSelector": {}}}
    live: Document = {
        "metadata": {"name": "a", "uid": "1", "resourceVersion": "9", "managedFields": [{}]},
        "spec": {},
        "status": {"x": 1},
    }
    assert same(desired, live)
    assert not same(desired, {**live, "spec": {"x": "y"}})


def test_only_what_a_rule_made_and_no_longer_wants_is_stale() -> None:
    made = generate(generate_rule(DENY), create(SHOP), environment()).wanted
    (wanted,) = made
    gone = Owner("policy", "rule", wanted.owner.trigger, "", "1")
    old = Stale(object_key_of(thing("ConfigMap", "shop", "old")), gone)
    assert stale([Stale(wanted.key, wanted.owner), old], made) == (old,)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Secret", ("", "Secret")),
        ("v1/Secret", ("", "Secret")),
        ("apps/v1/Deployment", ("apps", "Deployment")),
        ("apps/Deployment", ("apps", "Deployment")),
    ],
)
def test_allowed_kinds_are_written_as_people_write_kinds(text: str, kind: tuple[str, str]) -> None:
    assert parse_kind(text) == kind
    assert Limits(kinds=frozenset({kind})).kinds == frozenset({kind})
