"""What one field manager wants of a namespace's labels, without an API server."""

from __future__ import annotations

import pytest
import yaml

from generators.documents.json import Document
from tests.conftest import Run
from webhook.release.labels import (
    LabelsOutcome,
    LabelWish,
    changed_by_admission,
    contradiction,
    owners,
    role_to_ask_for,
    who,
)


def owned(*managers: str, **labels: str) -> Document:
    """A namespace with those labels, all of them set by each of the managers."""
    keys: Document = {f"f:{key}": {} for key in labels}
    fields = {"f:metadata": {"f:labels": keys}}
    entries = [{"manager": manager, "fieldsV1": fields} for manager in managers]
    return {"metadata": {"name": "team", "labels": labels, "managedFields": entries}}


def wish(manager: str = "ringfence-shop", **labels: str) -> LabelWish:
    return LabelWish("team", manager, labels)


@pytest.mark.parametrize(
    ("labels", "removed", "given"),
    [
        ({"a": "1"}, (), {"a": "1"}),
        ({}, (), {}),
        ({}, ("old",), {"kept": "x"}),
        ({"a": "1"}, ("old",), {"a": "1", "kept": "x"}),
        ({"kept": "y"}, ("old", "never-there"), {"kept": "y"}),
    ],
    ids=["exactly these", "none", "only one less", "one more, one less", "another value"],
)
def test_what_is_applied_follows_from_what_is_wanted_and_had(
    labels: dict[str, str], removed: tuple[str, ...], given: dict[str, str]
) -> None:
    wanted = LabelWish("team", "ringfence-shop", labels, frozenset(removed))
    assert wanted.given({"old": "x", "kept": "x"}) == given


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("ringfence-shop", 'release "shop"'),
        ("ringfence-shop/front", 'release "shop" (its "front")'),
        ("kubectl-label", 'field manager "kubectl-label"'),
        ("ringfence", 'field manager "ringfence"'),
    ],
)
def test_managers_are_called_what_people_call_them(manager: str, words: str) -> None:
    assert who(manager) == words


def test_owners_are_read_from_managed_fields() -> None:
    assert owners(owned("ringfence-b", "ringfence-a", client="x")) == {
        "client": ("ringfence-a", "ringfence-b")
    }
    assert owners({"metadata": {"name": "team"}}) == {}


def test_a_contradiction_names_both_and_the_way_out() -> None:
    found = contradiction(wish(), {"client": "mine"}, owned("ringfence-other", client="theirs"))
    assert found == (
        'namespace "team": release "shop" wants client=mine, but release "other" has set '
        "client=theirs; a namespace has one value of a label: give both the same, or install one "
        "of them in another namespace"
    )


@pytest.mark.parametrize(
    "namespace",
    [owned("ringfence-other", client="mine"), owned("ringfence-shop", client="old"), owned()],
    ids=["the same value", "only our own", "nobody's"],
)
def test_no_contradiction(namespace: Document) -> None:
    assert contradiction(wish(), {"client": "mine"}, namespace) is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"client": "mine"}, None),
        ({"client": "theirs"}, "client=mine (it is theirs)"),
        ({"client": ""}, "client=mine (it is empty)"),
        ({}, "client=mine (it is absent)"),
    ],
    ids=["taken", "another value", "empty", "dropped"],
)
def test_what_admission_made_of_it_is_told(labels: dict[str, str], words: str | None) -> None:
    found = changed_by_admission({"client": "mine"}, {"metadata": {"labels": labels}})
    assert found is None if words is None else found is not None and words in found


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        (
            "system:serviceaccount:team:labeler",
            {"kind": "ServiceAccount", "namespace": "team", "name": "labeler"},
        ),
        ("dana", {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "dana"}),
    ],
)
def test_the_role_to_ask_for_covers_one_namespace(user: str, subject: dict[str, str]) -> None:
    role, binding = yaml.safe_load_all(role_to_ask_for("team", user))
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["namespaces"],
            "resourceNames": ["team"],
            "verbs": ["get", "patch"],
        }
    ]
    assert binding["subjects"] == [subject]
    assert {role["metadata"]["namespace"], binding["metadata"]["namespace"]} == {"team"}


def test_an_outcome_has_a_line_for_each_label() -> None:
    kept = {"c": ("ringfence-other", "kubectl-label"), "d": ()}
    assert LabelsOutcome("team", {"a": "1"}, ("b",), kept).lines() == [
        'namespace "team": a=1 is set',
        'namespace "team": b is removed',
        'namespace "team": c stays: also set by release "other" and field manager "kubectl-label"',
        'namespace "team": d stays: admission of this cluster keeps it',
    ]
    assert LabelsOutcome("team", {}).lines() == ['namespace "team": nothing to change']


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["Team"], '"Team": a lowercase RFC 1123 label must'),
        (["team", "client"], '"client" is not KEY=VALUE'),
        (["team", "a b=c"], 'label key "a b"'),
        (["team", "client=" + "x" * 64], 'value of label "client" (64 characters)'),
        (["team", "a=1", "a=2"], "the same label is given twice"),
        (["team", "a=1", "--remove", "a"], "a is both to be set and to be removed"),
        (["team", "--field-manager", ""], "1 to 128 printable characters"),
        (["team", "--remove", "/a"], 'label key "/a"'),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value)[:30],
)
def test_bad_usage_is_refused_before_anybody_is_asked(
    ringfence: Run, words: list[str], complaint: str
) -> None:
    done = ringfence("namespace", "label", *words)
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.split())
