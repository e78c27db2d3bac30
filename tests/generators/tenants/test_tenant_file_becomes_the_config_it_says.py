"""What a right file means: each field in the model, defaults, lines, consented grants."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from generators.errors import InputError
from generators.tenants.load import load_tenants, parse_tenants
from generators.tenants.model import (
    ALWAYS_PROTECTED,
    DEFAULT_LABEL_KEY,
    Grant,
    Mode,
    NameMatch,
    NamespaceNames,
    Port,
    SharedComponent,
    SubjectKind,
    Subjects,
    Tenant,
    TenantConfig,
    Unassigned,
    common_ports,
)

HEAD = "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\n"
FULL = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
mode: audit
admins: {users: [root], groups: [platform-team], serviceAccounts: [ops/bot]}
protectedNamespaces: [vault]
shared:
  - name: ingress
    namespaces: {names: [ingress]}
    hostNetwork: true
  - name: monitoring
    namespaces: {names: [monitoring, alerts]}
    ports: [{port: 9090, protocol: TCP}, {port: 1, endPort: 3, protocol: UDP}, {protocol: SCTP}]
tenants:
  - name: test02
    namespaces: {suffixes: ["-test02"]}
    allowTo: [{tenant: test01}]
  - name: test01
    namespaces: {names: [legacy-shop], prefixes: ["test01-"], suffixes: ["-test01"]}
    members: {users: [], groups: [team-test01], serviceAccounts: [ci/deployer]}
    labels: {cost-centre: "4711"}
    allowFrom: [{tenant: test02, ports: [{port: 5432}]}]
    allowMasked: true
defaults: {unassigned: deny}
"""


def config(text: str) -> TenantConfig:
    return parse_tenants(text.encode(), "t.yaml")


def test_every_field_reaches_the_model() -> None:
    assert config(FULL) == TenantConfig(
        label_key="client",
        mode=Mode.AUDIT,
        admins=Subjects(
            frozenset({"root"}),
            frozenset({"platform-team"}),
            frozenset({"system:serviceaccount:ops:bot"}),
        ),
        protected_namespaces=ALWAYS_PROTECTED | {"vault"},
        shared=(
            SharedComponent("ingress", ("ingress",), host_network=True, line=8),
            SharedComponent(
                "monitoring",
                ("alerts", "monitoring"),
                (Port("TCP", 9090), Port("UDP", 1, 3), Port("SCTP")),
                line=11,
            ),
        ),
        tenants={
            "test01": Tenant(
                "test01",
                NamespaceNames(("legacy-shop",), ("test01-",), ("-test01",)),
                Subjects(
                    groups=frozenset({"team-test01"}),
                    service_accounts=frozenset({"system:serviceaccount:ci:deployer"}),
                ),
                {"cost-centre": "4711"},
                allow_from=(Grant("test02", (Port("TCP", 5432),), 22),),
                allow_masked=True,
                line=18,
            ),
            "test02": Tenant(
                "test02",
                NamespaceNames(suffixes=("-test02",)),
                allow_to=(Grant("test01", (), 17),),
                line=15,
            ),
        },
        unassigned=Unassigned.DENY,
        file="t.yaml",
        digest=hashlib.sha256(FULL.encode()).hexdigest(),
    )


def test_tenants_are_in_name_order_and_labels_too() -> None:
    assert list(config(FULL).tenants) == ["test01", "test02"]


def test_smallest_file_has_the_defaults() -> None:
    made = config(HEAD)
    assert made.label_key == DEFAULT_LABEL_KEY
    assert made.mode is Mode.STRICT
    assert made.protected_namespaces == ALWAYS_PROTECTED
    assert made.unassigned is Unassigned.IGNORE
    assert (dict(made.tenants), made.shared, made.admins) == ({}, (), Subjects())


def test_names_and_members_know_their_lines() -> None:
    tenant = config(FULL).tenants["test01"]
    assert tenant.namespaces.lines == {
        (NameMatch.NAME, "legacy-shop"): 19,
        (NameMatch.PREFIX, "test01-"): 19,
        (NameMatch.SUFFIX, "-test01"): 19,
    }
    assert tenant.members.lines == {
        (SubjectKind.GROUP, "team-test01"): 20,
        (SubjectKind.SERVICE_ACCOUNT, "system:serviceaccount:ci:deployer"): 20,
    }


def test_json_is_a_tenant_file_too() -> None:
    text = '{"apiVersion": "ringfence.io/v1alpha1", "kind": "TenantConfig", "labelKey": "x"}'
    assert config(text).label_key == "x"


def test_byte_order_mark_is_no_part_of_the_file() -> None:
    assert parse_tenants(b"\xef\xbb\xbf" + HEAD.encode(), "t.yaml").tenants == {}


OVERLAPS = {
    "name of one matched by affix of another": ("names: [a-shop]", "suffixes: [-shop]"),
    "prefix inside a longer prefix": ("prefixes: [a-]", "prefixes: [a-b-]"),
    "suffix inside a longer suffix": ("suffixes: [-shop]", "suffixes: [-web-shop]"),
    "prefix and suffix, one longer": ("prefixes: [a-]", "suffixes: [-bcd]"),
    "prefix and suffix, equally long": ("prefixes: [a-]", "suffixes: [-b]"),
}


@pytest.mark.parametrize(("one", "other"), OVERLAPS.values(), ids=OVERLAPS)
def test_overlap_that_one_match_wins_is_no_defect(one: str, other: str) -> None:
    tenants = "tenants:\n- {name: a, namespaces: {%s}}\n- {name: b, namespaces: {%s}}\n"
    assert len(config(HEAD + tenants % (one, other)).tenants) == 2


def test_shared_component_may_live_in_a_protected_namespace() -> None:
    text = HEAD + "shared: [{name: dns, namespaces: {names: [kube-system]}}]\n"
    assert config(text).component("kube-system") == SharedComponent("dns", ("kube-system",), line=3)


HTTP, RANGE = Port("TCP", 80), Port("TCP", 80, 90)
COMMON: dict[str, tuple[tuple[Port, ...], tuple[Port, ...], tuple[Port, ...] | None]] = {
    "all and all": ((), (), ()),
    "all and one": ((), (HTTP,), (HTTP,)),
    "one and all": ((HTTP,), (), (HTTP,)),
    "same": ((HTTP,), (HTTP,), (HTTP,)),
    "other protocol": ((HTTP,), (Port("UDP", 80),), None),
    "other port": ((HTTP,), (Port("TCP", 81),), None),
    "one of a range": ((RANGE,), (Port("TCP", 85),), (Port("TCP", 85),)),
    "two ranges": ((RANGE,), (Port("TCP", 85, 99),), (Port("TCP", 85, 90),)),
    "ranges that touch": ((RANGE,), (Port("TCP", 90, 99),), (Port("TCP", 90),)),
    "ranges apart": ((RANGE,), (Port("TCP", 91, 99),), None),
    "every port of a protocol": ((Port("UDP"),), (Port("UDP", 1, 5),), (Port("UDP", 1, 5),)),
    "every port twice": ((Port("UDP"),), (Port("UDP"),), (Port("UDP"),)),
    "overlapping items become one": (
        (Port("TCP", 1, 5), Port("TCP", 4, 9)),
        (Port("TCP"),),
        (Port("TCP", 1, 9),),
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "common"), COMMON.values(), ids=COMMON)
def test_common_ports(
    ours: tuple[Port, ...], theirs: tuple[Port, ...], common: tuple[Port, ...] | None
) -> None:
    assert common_ports(ours, theirs) == common
    assert common_ports(theirs, ours) == common


def test_consented_grants_have_both_sides_ports_in_file_order() -> None:
    tenants = """\
tenants:
- name: shop
  namespaces: {names: [shop]}
  allowFrom:
  - {tenant: web, ports: [{port: 80, endPort: 90}, {port: 443}]}
  - {tenant: cron}
- {name: web, namespaces: {names: [web]}, allowTo: [{tenant: shop, ports: [{port: 85}]}]}
- {name: cron, namespaces: {names: [cron]}, allowTo: [{tenant: shop, ports: [{protocol: UDP}]}]}
"""
    made = config(HEAD + tenants)
    assert made.consented("shop") == (
        Grant("web", (Port("TCP", 85),), 7),
        Grant("cron", (Port("UDP"),), 8),
    )
    assert made.consented("web") == ()


def test_one_consent_alone_is_no_grant() -> None:
    """The file would be refused; a config made otherwise must not open anything."""
    made = TenantConfig(
        tenants={
            "a": Tenant("a", allow_from=(Grant("b"), Grant("gone"))),
            "b": Tenant("b", allow_to=(Grant("c"),)),
        }
    )
    assert made.consented("a") == ()


def test_consents_without_a_common_port_open_nothing() -> None:
    made = TenantConfig(
        tenants={
            "a": Tenant("a", allow_from=(Grant("b", (HTTP,)),)),
            "b": Tenant("b", allow_to=(Grant("a", (Port("TCP", 81),)),)),
        }
    )
    assert made.consented("a") == ()


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0"], ids=["missing", "folder", "NUL"])
def test_file_that_cannot_be_read_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_tenants(tmp_path / name)


def test_file_on_disk_is_named_in_the_config(tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(FULL)
    assert load_tenants(file).file == str(file)
