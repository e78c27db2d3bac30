"""What another tenant file means is said before it is in force: a sentence for each kind."""

from __future__ import annotations

import re

import pytest

from generators.isolation.consequences import consequences, effect
from generators.objects import NetworkPolicy, Operator, Peer, Requirement, Rule, Selector
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig

OLD = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
mode: strict
admins: {groups: [platform-team]}
shared:
  - name: ingress
    namespaces: {names: [ingress]}
tenants:
  - name: one
    namespaces: {suffixes: ["-one"]}
    members: {groups: [team-one]}
    allowFrom: [{tenant: two, ports: [{port: 5432}]}]
  - name: two
    namespaces: {suffixes: ["-two"]}
    allowTo: [{tenant: one}]
"""


def config(text: str) -> TenantConfig:
    return parse_tenants(text.encode(), "tenants.yaml")


ROWS = {
    "key": (("labelKey: client", "labelKey: proof"), "labelKey client becomes proof"),
    "key, not retired": (
        ("labelKey: client", "labelKey: proof"),
        r"add retiredLabelKeys: \[client\]",
    ),
    "mode": (("mode: strict", "mode: audit"), "nothing is cut"),
    "admin": (("[platform-team]", "[platform-team, ops]"), "new admins, .*: group ops"),
    "no admin": (("[platform-team]", "[ops]"), "no admins any more: group platform-team"),
    "rename": (("name: two\n", "name: deux\n"), "two is deux from now on: .*, in quarantine"),
    "affix": (('["-two"]', '["-zwei"]'), 'suffix "-two" is two\'s no more'),
    "affix, new": (('["-two"]', '["-zwei"]'), 'suffix "-zwei" is two\'s: namespaces .* follow'),
    "member": (("[team-one]", "[team-one, x]"), "new members of one: group x"),
    "member gone": (("[team-one]", "[x]"), "what they made stays one's"),
    "shared": (("names: [ingress]", "names: [edge]"), "namespaces edge on every port may enter"),
    "grant": (("port: 5432", "port: 80"), "two may enter one on TCP 80"),
    "grant gone": (("    allowTo: [{tenant: one}]\n", ""), "two may not enter one any more"),
}


@pytest.mark.parametrize(("edit", "expected"), ROWS.values(), ids=ROWS)
def test_each_kind_of_change_has_its_sentence(edit: tuple[str, str], expected: str) -> None:
    new = OLD.replace(*edit)
    if edit[0] == "name: two\n":
        new = new.replace("tenant: two", "tenant: deux")
    if "allowTo" in edit[0]:
        new = new.replace("    allowFrom: [{tenant: two, ports: [{port: 5432}]}]\n", "")
    assert new != OLD
    said = consequences(config(OLD), config(new))
    assert any(re.search(expected, sentence) for sentence in said), said


def test_a_tenant_that_leaves_says_that_its_namespaces_open() -> None:
    new = OLD[: OLD.index("  - name: two")].replace(
        "    allowFrom: [{tenant: two, ports: [{port: 5432}]}]\n", ""
    )
    (first, *_) = consequences(config(OLD), config(new))
    assert first.startswith("tenant two leaves the file")
    assert "the others go into quarantine" in first


def test_the_same_file_means_nothing() -> None:
    assert consequences(config(OLD), config(OLD)) == ()


def test_policies_that_select_the_old_key_are_named() -> None:
    selector = Selector((Requirement("client", Operator.IN, ("two",)),))
    policy = NetworkPolicy("a", "mine", ingress=(Rule((Peer(namespace_selector=selector),)),))
    new = config(OLD.replace("labelKey: client", "labelKey: proof"))
    said = consequences(config(OLD), new, [policy])
    assert "select label client, which no namespace will carry: a/mine" in said


@pytest.mark.parametrize(
    ("former", "latter", "expected"),
    [
        (None, None, ""),
        ("one", "one", ""),
        ("one", None, "every pod may enter it"),
        (None, "one", "closes to everybody but one"),
        ("one", "two", "opens to two and closes to one"),
    ],
)
def test_who_reaches_a_namespace_from_now_on(
    former: str | None, latter: str | None, expected: str
) -> None:
    said = effect(config(OLD), config(OLD), former, latter)
    assert (expected in said) == (bool(said) or not expected)
