"""The assignment table, one row a situation: who asks, for what, the outcome, the words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.tenants.assignment import (
    NOBODY,
    Assignment,
    Outcome,
    Requester,
    assign,
    assign_by_name,
    is_admin,
)
from generators.tenants.load import parse_tenants

FILE = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
admins: {users: [root], groups: [platform], serviceAccounts: [ops/bot]}
protectedNamespaces: [kube-system]
shared: [{name: ingress, namespaces: {names: [ingress]}}]
tenants:
- name: blue
  namespaces: {names: [legacy-shop], prefixes: [blue-], suffixes: [-blue, -dark-blue]}
  members: {users: [ann, both], groups: [team-blue], serviceAccounts: [ci/deployer]}
  labels: {cost-centre: "4711"}
- name: red
  namespaces: {names: [blue-moon], suffixes: [-red, -darkblue]}
  members: {groups: [team-red], users: [both]}
- name: grey
  namespaces: {suffixes: [-grey]}
  members: {groups: ["system:authenticated"]}
"""
CONFIG = parse_tenants(FILE.encode(), "t.yaml")
STRICT = parse_tenants((FILE + "defaults: {unassigned: deny}\n").encode(), "t.yaml")

ANN = Requester("ann", frozenset({"team-blue"}))
BOTH = Requester("both")
ROBOT = Requester("robot")
ADMIN = Requester("ada", frozenset({"platform", "team-blue"}))

OK, NONE, KEPT = Outcome.ASSIGNED, Outcome.UNASSIGNED, Outcome.RESERVED
NO, TIE = Outcome.DENIED, Outcome.AMBIGUOUS


@dataclass(frozen=True)
class Row:
    who: Requester
    name: str
    wish: str | None
    outcome: Outcome
    tenant: str | None = None
    reason: str = ""


ROWS = {
    # by name alone: nobody's member
    "exact name": Row(ROBOT, "legacy-shop", None, OK, "blue", 'name is name "legacy-shop"'),
    "prefix": Row(ROBOT, "blue-x", None, OK, "blue", 'matches prefix "blue-" of tenant blue (t.ya'),
    "suffix": Row(
        ROBOT, "x-red", None, OK, "red", 'matches suffix "-red" of tenant red (t.yaml:13)'
    ),
    "exact name beats affix": Row(ROBOT, "blue-moon", None, OK, "red", 'is name "blue-moon"'),
    "longest affix wins": Row(ROBOT, "blue-x-darkblue", None, OK, "red", '"-darkblue"'),
    "longest of one tenant": Row(ROBOT, "x-dark-blue", None, OK, "blue", '"-dark-blue"'),
    "two affixes of one tenant are no tie": Row(ROBOT, "blue-x-blue", None, OK, "blue", '"blue-"'),
    "affix alone is a name": Row(ROBOT, "blue-", None, OK, "blue"),
    "shorter than any affix": Row(ROBOT, "x", None, NONE, None, "matches no name"),
    "look-alike case": Row(ROBOT, "x-Red", None, NONE),
    "tie": Row(ROBOT, "blue-x-grey", None, TIE, None, "tenant blue (t.yaml:9) and matches suffix"),
    "tie with a wish": Row(ROBOT, "blue-x-grey", "blue", TIE),
    "wish of the name": Row(ROBOT, "x-red", "red", OK, "red"),
    "wish of another": Row(ROBOT, "x-red", "blue", NO, None, "contradicts the name"),
    "wish of no tenant": Row(ROBOT, "x-red", "pink", NO, None, "contradicts the name"),
    "empty wish": Row(ROBOT, "x-red", "", NO),
    "wish without a match": Row(ROBOT, "x", "red", NO, None, "proves nothing"),
    # member of one tenant
    "member, name of theirs": Row(ANN, "x-blue", None, OK, "blue", 'by user "ann" (t.yaml:10)'),
    "member, name of nobody": Row(ANN, "anything", None, OK, "blue", "is a member of tenant blue"),
    "member, name of another": Row(ANN, "x-red", None, NO, None, "of tenant red (t.yaml:13), but"),
    "member, own label": Row(ANN, "anything", "blue", OK, "blue"),
    "member, another's label": Row(ANN, "anything", "red", NO, None, "asks for another tenant"),
    "member, unknown label": Row(ANN, "anything", "pink", NO),
    "member, empty label": Row(ANN, "anything", "", NO),
    "member, own label, name of another": Row(ANN, "x-red", "blue", NO, None, '"-red"'),
    "member, tie": Row(ANN, "blue-x-grey", None, TIE),
    "member by group": Row(
        Requester("u", frozenset({"team-red"})), "x", None, OK, "red", 'by group "team-red"'
    ),
    "member by service account": Row(
        Requester("system:serviceaccount:ci:deployer"), "x", None, OK, "blue", "by service account"
    ),
    "service account of another namespace": Row(
        Requester("system:serviceaccount:cj:deployer"), "x", None, NONE
    ),
    "short name of a service account": Row(Requester("ci/deployer"), "x", None, NONE),
    "user called like a group": Row(Requester("team-blue"), "x", None, NONE),
    "group called like a user": Row(Requester("u", frozenset({"ann"})), "x", None, NONE),
    # member of several
    "several, name chooses": Row(BOTH, "x-red", None, OK, "red", "tenants blue, red"),
    "several, name and label": Row(BOTH, "x-red", "red", OK, "red"),
    "several, label contradicts": Row(BOTH, "x-red", "blue", NO, None, "contradicts the name"),
    "several, label chooses": Row(BOTH, "x", "blue", OK, "blue", 'chosen by label client: "blue"'),
    "several, label of a third": Row(BOTH, "x", "grey", NO, None, "asks for another tenant"),
    "several, nothing chooses": Row(
        BOTH, "x", None, NO, None, "blue, red and the name chooses none"
    ),
    "several, name of a third": Row(BOTH, "x-grey", None, NO, None, "tenant grey (t.yaml:16), but"),
    "several, tie": Row(BOTH, "blue-x-grey", "blue", TIE),
    # admin
    "admin, label": Row(ADMIN, "x", "red", OK, "red", "an admin asked for it"),
    "admin, label against the name": Row(ADMIN, "x-blue", "red", OK, "red"),
    "admin, name": Row(ADMIN, "x-red", None, OK, "red"),
    "admin, neither": Row(ADMIN, "x", None, NONE),
    "admin, unknown label": Row(ADMIN, "x", "pink", NO, None, "known: blue, grey, red"),
    "admin, label settles a tie": Row(ADMIN, "blue-x-grey", "grey", OK, "grey"),
    "admin, tie": Row(ADMIN, "blue-x-grey", None, TIE),
    # protected and shared
    "protected": Row(ROBOT, "kube-system", None, KEPT, None, "is protected"),
    "protected, label": Row(ROBOT, "kube-system", "blue", NO, None, 'remove label client: "blue"'),
    "protected, admin": Row(ADMIN, "kube-system", None, KEPT),
    "protected, admin with label": Row(ADMIN, "kube-system", "blue", NO),
    "protected, member": Row(ANN, "kube-system", None, NO, None, "may not create it"),
    "shared": Row(ROBOT, "ingress", None, KEPT, None, "shared component ingress (t.yaml:6)"),
    "shared, member": Row(ANN, "ingress", None, NO),
    "shared, member with label": Row(ANN, "ingress", "blue", NO),
}


def decide(row: Row) -> Assignment:
    labels = {} if row.wish is None else {"client": row.wish}
    return assign(CONFIG, row.name, {**labels, "app": "x"}, row.who)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_assignment(row: Row) -> None:
    found = decide(row)
    assert (found.outcome, found.tenant) == (row.outcome, row.tenant), found.reason
    assert row.reason in found.reason
    assert found.allowed is (row.outcome in {OK, NONE, KEPT})


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_only_an_assigned_namespace_gets_labels_and_all_of_them(row: Row) -> None:
    wanted = {None: {}, "blue": {"client": "blue", "cost-centre": "4711"}}
    found = decide(row)
    assert found.labels == wanted.get(row.tenant, {"client": str(row.tenant)})
    assert list(found.labels) == sorted(found.labels)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_asking_again_with_the_labels_of_the_answer_changes_nothing(row: Row) -> None:
    first = decide(row)
    if first.allowed:
        again = assign(CONFIG, row.name, first.labels, row.who)
        assert (again.outcome, again.tenant) == (first.outcome, first.tenant)


ADMINS = {
    "user": (Requester("root"), True),
    "group": (Requester("u", frozenset({"platform"})), True),
    "service account": (Requester("system:serviceaccount:ops:bot"), True),
    "masters": (Requester("u", frozenset({"system:masters"})), True),
    "user called like the group": (Requester("platform"), False),
    "group called like the user": (Requester("u", frozenset({"root"})), False),
    "user called masters": (Requester("system:masters"), False),
    "member": (ANN, False),
    "nobody": (NOBODY, False),
}


@pytest.mark.parametrize(("who", "yes"), ADMINS.values(), ids=ADMINS)
def test_admins(who: Requester, yes: bool) -> None:
    assert is_admin(CONFIG, who) is yes


AUTHENTICATED = frozenset({"system:authenticated"})
SYSTEM = {
    "system:serviceaccount:kube-system:namespace-controller": False,
    "system:node:worker-1": False,
    "system:kube-controller-manager": False,
    "system:kube-scheduler": False,
    "system:apiserver": False,
    "system:serviceaccount:kube-systemx:fake": True,
    "system:serviceaccount:default:default": True,
    "system:nodes": True,
    "alice": True,
}


@pytest.mark.parametrize(("username", "member"), SYSTEM.items(), ids=SYSTEM)
def test_parts_of_the_cluster_are_nobodys_members(username: str, member: bool) -> None:
    found = assign(CONFIG, "x", {}, Requester(username, AUTHENTICATED))
    assert found.tenant == ("grey" if member else None)
    assert found.allowed


DENY = {
    "nobody's": (ROBOT, "x", NO),
    "nobody's with a match": (ROBOT, "x-red", OK),
    "system": (Requester("system:apiserver"), "x", NO),
    "admin": (ADMIN, "x", NONE),
    "protected": (ROBOT, "kube-system", KEPT),
    "member": (ANN, "x", OK),
}


@pytest.mark.parametrize(("who", "name", "outcome"), DENY.values(), ids=DENY)
def test_unassigned_deny_refuses_namespaces_of_nobody_to_all_but_admins(
    who: Requester, name: str, outcome: Outcome
) -> None:
    assert assign(STRICT, name, {}, who).outcome is outcome


GENERATED = {
    "member": (ANN, None, OK, "blue"),
    "member, own label": (ANN, "blue", OK, "blue"),
    "member, another's label": (ANN, "red", NO, None),
    "several, label": (BOTH, "red", OK, "red"),
    "several, label of a third": (BOTH, "grey", NO, None),
    "several": (BOTH, None, NONE, None),
    "admin, label": (ADMIN, "red", OK, "red"),
    "admin, unknown label": (ADMIN, "pink", NO, None),
    "admin": (ADMIN, None, NONE, None),
    "nobody's": (ROBOT, None, NONE, None),
    "nobody's, label": (ROBOT, "red", NONE, None),
}


@pytest.mark.parametrize(("who", "wish", "outcome", "tenant"), GENERATED.values(), ids=GENERATED)
def test_generated_name_is_not_decided_on_before_it_is_known(
    who: Requester, wish: str | None, outcome: Outcome, tenant: str | None
) -> None:
    labels = {} if wish is None else {"client": wish}
    for config in (CONFIG, STRICT):
        found = assign(config, "", labels, who, generated=True)
        assert (found.outcome, found.tenant) == (outcome, tenant)


BY_NAME = {"x-red": OK, "x": NONE, "kube-system": KEPT, "ingress": KEPT, "blue-x-grey": TIE}


@pytest.mark.parametrize(("name", "outcome"), BY_NAME.items(), ids=BY_NAME)
def test_what_exists_is_judged_by_name_and_never_refused(name: str, outcome: Outcome) -> None:
    assert assign_by_name(STRICT, name).outcome is outcome


NAMES = st.sampled_from(["x", "x-red", "x-blue", "blue-x-grey", "legacy-shop", "kube-system"])
WISHES = st.none() | st.sampled_from(["blue", "red", "grey", "pink", ""])
GROUPS = st.frozensets(st.sampled_from(["team-blue", "team-red", "system:authenticated"]))
USERS = st.sampled_from(["u", "ann", "both", "system:node:n", "system:serviceaccount:ci:deployer"])


@given(USERS, GROUPS, NAMES, WISHES)
def test_who_is_no_admin_never_gets_a_tenant_they_are_no_member_of_nor_the_name(
    username: str, groups: frozenset[str], name: str, wish: str | None
) -> None:
    labels = {} if wish is None else {"client": wish}
    found = assign(CONFIG, name, labels, Requester(username, groups))
    theirs = {member.tenant for member in CONFIG.memberships(username, groups)}
    by_name = assign_by_name(CONFIG, name).tenant
    assert found.tenant in {None, by_name, *theirs}
    if by_name is not None:
        assert found.tenant in {None, by_name}
    if found.tenant is not None and wish is not None:
        assert wish == found.tenant
