"""The pure parts: what is followed, what differs, since when a rule counts."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from generators.documents.json import ObjectKey, ObjectKind, copied, mapping
from generators.kube.client import Client
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, SECRETS
from generators.kyverno.engine import generate
from generators.kyverno.model import Document
from generators.kyverno.ownership import Mark, Owner, mark_of
from generators.manifests.kinds import plural_of
from tests.controller.background.rules import SYNC, deny, rule
from tests.generators.kyverno.policies import (
    EVERY_KIND,
    create,
    environment,
    generate_rule,
    ns,
    policies,
)
from webhook.background.memory import ALWAYS, Memory, Newcomer
from webhook.background.needs import RuleNeeds, depends_on_trigger, needs_of
from webhook.background.rules import table_of
from webhook.background.writer import differences
from webhook.policies.book import HeldPolicy, Policies, PolicySource
from webhook.policies.kinds import GuessedKinds

COPY = """
apiVersion: v1
kind: Secret
name: pull
namespace: "{{request.object.metadata.name}}"
clone: {namespace: %s, name: pull}
"""


def needed(generate: str) -> RuleNeeds:
    (needs,) = needs_of(generate_rule(generate), GuessedKinds()).rules.values()
    return needs


def test_a_rule_follows_its_triggers_what_it_makes_and_what_it_copies() -> None:
    written = needed(COPY % "admin")
    assert written.triggers == {NAMESPACES}
    assert written.downstreams == {SECRETS}
    assert written.sources == {(SECRETS, "admin")}
    assert needed(COPY % '"{{request.object.metadata.name}}"').sources == {(SECRETS, "")}


def test_a_kind_that_is_only_known_later_is_a_problem_of_the_rule() -> None:
    text = COPY % "admin"
    assert "must be written out" in needed(text.replace("Secret", '"{{x}}"')).problem
    every = policies(policy("- name: r\n  match: {any: [{resources: {kinds: ['*']}}]}\n" + MAKES))
    (needs,) = needs_of(every, GuessedKinds()).rules.values()
    assert "would follow every object" in needs.problem


MAKES = "  generate: {apiVersion: v1, kind: Secret, name: s, namespace: n, data: {}}\n"


def policy(rules: str) -> str:
    head = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: p}\nspec:\n  rules:\n"
    return head + textwrap.indent(rules, "  ")


def test_rules_of_one_purpose_share_what_is_followed() -> None:
    both = policies(policy(rule("a", "x", deny("a", SYNC)) + rule("b", "x", deny("b", SYNC))))
    needs = needs_of(both, GuessedKinds())
    assert needs.triggers == {NAMESPACES}
    assert needs.downstreams == {NETWORK_POLICIES}


@pytest.mark.parametrize(
    ("patch", "depends"),
    [
        ("{metadata: {labels: {a: b}}}", False),
        ('{metadata: {labels: {a: "{{target.metadata.name}}"}}}', False),
        ('{metadata: {labels: {a: "{{request.object.metadata.name}}"}}}', True),
        ("{metadata: {labels: {a: \"{{random('[a-z]')}}\"}}}", True),
    ],
)
def test_a_rule_is_run_once_for_all_triggers_when_none_of_them_shows(
    patch: str, depends: bool
) -> None:
    text = f"""\
- name: r
  match: {{any: [{{resources: {{kinds: [Namespace]}}}}]}}
  mutate: {{targets: [{{apiVersion: v1, kind: Namespace}}], patchStrategicMerge: {patch}}}
"""
    ((found,),) = (each.rules for each in policies(policy(text)))
    assert depends_on_trigger(found) is depends


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("NetworkPolicy", "networkpolicies"),
        ("Gateway", "gateways"),
        ("Ingress", "ingresses"),
        ("ConfigMap", "configmaps"),
    ],
)
def test_plurals_as_they_are_usually_spelled(kind: str, plural: str) -> None:
    assert plural_of(kind) == plural


def test_everything_that_is_not_to_the_letter_differs() -> None:
    open_to_all: Document = {"kind": "NetworkPolicy", "spec": {"ingress": [{}]}}
    closed: Document = {"kind": "NetworkPolicy", "spec": {}}
    assert list(differences(closed, open_to_all))
    assert list(differences(open_to_all, closed))
    assert not list(differences(closed, copied(closed)))
    assert list(differences({"a": True}, {"a": 1}))
    assert not list(differences(closed, {**closed, "status": {"x": 1}}))


def test_marks_are_read_back_and_hold_for_one_object_only() -> None:
    text = COPY % "admin"
    source: Document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pull", "namespace": "admin"},
    }
    rules = generate_rule(f"{text}synchronize: true")
    made = generate(rules, create(ns("shop")), environment([source], EVERY_KIND))
    (wanted,) = made.wanted
    assert mark_of(wanted.document) == wanted.mark
    elsewhere = copied(wanted.document)
    elsewhere["metadata"] = {**mapping(elsewhere, "metadata"), "namespace": "other"}
    assert mark_of(elsewhere) is None
    garbled = copied(wanted.document)
    notes = {"ringfence.io/generated": "{", "ringfence.io/policy": "p"}
    garbled["metadata"] = {**mapping(garbled, "metadata"), "annotations": {**notes}}
    assert mark_of(garbled) is None


@pytest.mark.parametrize(
    ("owner", "kind", "believed"),
    [
        (("p", "made"), ("networking.k8s.io", "NetworkPolicy"), True),
        (("p", "made"), ("", "ConfigMap"), False),
        (("p", "made"), ("", "Namespace"), False),
        (("p", "other"), ("networking.k8s.io", "NetworkPolicy"), False),
    ],
)
def test_a_mark_counts_for_kinds_that_its_rule_makes(
    owner: tuple[str, str], kind: tuple[str, str], believed: bool
) -> None:
    rules = policies(policy(rule("made", "x", deny("wall", SYNC))))
    table = table_of(
        Policies(tuple(HeldPolicy(each, PolicySource.FILE, "") for each in rules)), GuessedKinds()
    )
    trigger = ObjectKey(ObjectKind("", "v1", "Namespace"), "", "shop")
    mark = Mark(Owner(*owner, trigger, "uid", "0"))
    assert table.makes(mark, ObjectKind(kind[0], "v1", kind[1])) is believed


NAME = ("policy", "rule")


def test_since_when_a_rule_counts(tmp_path: Path) -> None:
    """Nothing is sent: a memory that was not loaded knows nothing."""
    nowhere = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "x"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
    nowhere.write_text(json.dumps(config))
    memory = Memory(Client.connect(str(nowhere)), "ringfence-system")
    assert memory.since(NAME).introduced > 1 << 60
    memory.introduce([Newcomer(NAME, existing=False, pattern="a", version=7)], complete=True)
    assert (memory.since(NAME).introduced, memory.since(NAME).done) == (7, 7)
    memory.advance(NAME, 9)
    memory.introduce([Newcomer(NAME, existing=False, pattern="b", version=20)], complete=True)
    assert (memory.since(NAME).introduced, memory.since(NAME).done) == (7, 9)
    assert [memory.had(NAME, each) for each in ("a", "b", "x")] == [True, False, False]
    memory.introduce([Newcomer(NAME, existing=True, pattern="c", version=20)], complete=True)
    assert (memory.since(NAME).introduced, memory.since(NAME).done) == (ALWAYS, ALWAYS)
    memory.introduce([], complete=False)
    assert memory.since(NAME).introduced == ALWAYS
    memory.introduce([], complete=True)
    assert memory.since(NAME).introduced > 1 << 60
