"""Whose an existing namespace is: record, label, name and proof, in every combination."""

from __future__ import annotations

import pytest

from generators.isolation.plan import wanted_for
from generators.isolation.record import Basis, RecordEntry, entry_text, parse_entry
from generators.isolation.tenancy import Finding, Ownership, left_behind, ownership
from generators.objects import Namespace
from generators.tenants.load import parse_tenants
from generators.tenants.model import Tenant, TenantConfig

TENANTS = b"""\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
shared:
  - name: ingress
    namespaces: {names: [ingress]}
tenants:
  - name: one
    namespaces: {suffixes: ["-one"]}
    labels: {cost-centre: "1"}
  - name: two
    namespaces: {prefixes: ["tie-"], suffixes: ["-two"]}
"""
NAME, ADMISSION = Basis.NAME, Basis.ADMISSION
SET_BACK, MOVED = Finding.LABEL_SET_BACK, Finding.MOVED
UNKNOWN, GONE = Finding.UNKNOWN_TENANT, Finding.TENANT_GONE
CLAIMED, TIE, RELEASED = Finding.CLAIMED, Finding.AMBIGUOUS, Finding.RELEASED


@pytest.fixture(scope="module")
def config() -> TenantConfig:
    return parse_tenants(TENANTS, "tenants.yaml")


def decide(
    config: TenantConfig,
    name: str,
    label: str | None,
    recorded: tuple[str, Basis] | None,
    proven: bool | None,
) -> Ownership:
    """`proven` None = nobody may ask."""

    def ask() -> bool:
        assert proven is not None, "asked without need"
        return proven

    labels = {} if label is None else {"client": label}
    entry = None if recorded is None else RecordEntry(name, *recorded)
    return ownership(config, Namespace(name, labels, uid="u"), entry, ask)


ROWS = [
    # name, label, record, proven -> tenant, basis, finding
    pytest.param("a-one", None, None, None, "one", NAME, CLAIMED, id="existed before"),
    pytest.param("a", None, None, None, None, NAME, None, id="nobody's"),
    pytest.param("a-one", "one", None, None, "one", NAME, None, id="labelled by its name"),
    pytest.param("a", "one", None, True, "one", ADMISSION, None, id="a member's"),
    pytest.param("a", "one", None, False, None, NAME, SET_BACK, id="forged"),
    pytest.param("a-one", "two", None, True, "two", ADMISSION, None, id="an admin's choice"),
    pytest.param("a-one", "two", None, False, "one", NAME, SET_BACK, id="forged against the name"),
    pytest.param("a", "three", None, False, None, NAME, SET_BACK, id="forged unknown"),
    pytest.param("a-one", "one", ("one", NAME), None, "one", NAME, None, id="in order"),
    pytest.param("a", "one", ("one", ADMISSION), None, "one", ADMISSION, None, id="stays"),
    pytest.param("a", "two", ("one", ADMISSION), True, "two", ADMISSION, MOVED, id="moved"),
    pytest.param("a", "two", ("one", ADMISSION), False, "one", ADMISSION, SET_BACK, id="stolen"),
    pytest.param("a", None, ("one", ADMISSION), True, None, NAME, MOVED, id="withdrawn"),
    pytest.param("a", None, ("one", ADMISSION), False, "one", ADMISSION, None, id="label lost"),
    pytest.param("a-one", None, ("one", NAME), None, "one", NAME, None, id="name's label lost"),
    pytest.param("a-two", "one", ("one", NAME), None, "two", NAME, MOVED, id="the file moved it"),
    pytest.param("a", "one", ("one", NAME), None, None, NAME, MOVED, id="the file let it go"),
    pytest.param("a", "old", ("old", ADMISSION), None, "old", ADMISSION, GONE, id="tenant left"),
    pytest.param("a", "old", ("old", NAME), None, "old", NAME, GONE, id="tenant left, by name"),
    pytest.param("tie-one", "old", ("old", NAME), None, "old", NAME, GONE, id="left for a tie"),
    pytest.param("a", None, ("old", NAME), True, None, NAME, RELEASED, id="released"),
    pytest.param("a", None, ("old", NAME), False, "old", NAME, GONE, id="left, label lost"),
    pytest.param("a", "two", ("old", NAME), True, "two", ADMISSION, MOVED, id="left, then moved"),
    pytest.param("a", "two", ("old", NAME), False, "old", NAME, SET_BACK, id="left, then stolen"),
    pytest.param("tie-one", None, None, None, None, NAME, TIE, id="a tie"),
    pytest.param("tie-one", "two", None, True, "two", ADMISSION, None, id="an admin ends a tie"),
    pytest.param("tie-one", "two", None, False, None, NAME, SET_BACK, id="forged into a tie"),
    pytest.param("tie-one", "one", ("one", NAME), None, "one", NAME, None, id="recorded before"),
    pytest.param("a-two", "old", ("old", NAME), None, "two", NAME, GONE, id="left for another"),
    pytest.param("ingress", "one", None, None, None, NAME, SET_BACK, id="shared"),
    pytest.param("kube-system", "one", ("one", ADMISSION), None, None, NAME, SET_BACK, id="system"),
    pytest.param("kube-system", None, None, None, None, NAME, None, id="system in order"),
]


@pytest.mark.parametrize(
    ("name", "label", "recorded", "proven", "tenant", "basis", "finding"), ROWS
)
def test_who_owns_a_namespace(
    config: TenantConfig,
    name: str,
    label: str | None,
    recorded: tuple[str, Basis] | None,
    proven: bool | None,
    tenant: str | None,
    basis: Basis,
    finding: Finding | None,
) -> None:
    found = decide(config, name, label, recorded, proven)
    assert (found.assignment.tenant, found.basis, found.finding) == (tenant, basis, finding)
    assert not found.held
    expected = None if tenant is None else RecordEntry(name, tenant, basis)
    assert found.entry(name) == expected


def test_what_nobody_has_decided_is_in_quarantine(config: TenantConfig) -> None:
    tie, gone = decide(config, "tie-one", None, None, None), ("old", Basis.NAME)
    for found in (tie, decide(config, "a", "old", gone, None)):
        assert found.quarantined
        wanted = wanted_for(config, Namespace(found.assignment.namespace), found.assignment)
        assert all(w.because.startswith("in quarantine: ") for w in wanted)
        assert [type(w.item).__name__ for w in wanted] == ["Namespace", "NetworkPolicy"]


def test_a_forged_label_does_not_end_the_quarantine_of_a_tie(config: TenantConfig) -> None:
    assert decide(config, "tie-one", "two", None, False).quarantined


def test_an_unknown_tenant_that_passed_admission_is_held(config: TenantConfig) -> None:
    found = decide(config, "a", "three", None, True)
    assert (found.held, found.finding) == (True, UNKNOWN)


def test_a_decision_by_admission_carries_all_labels_of_the_tenant(config: TenantConfig) -> None:
    found = decide(config, "a", "one", None, True)
    assert found.assignment.labels == {"client": "one", "cost-centre": "1"}


THREE = {"cost-centre": "1", "team": "a"}
LEFT = [
    # labels, former's, latter's -> what goes
    pytest.param({"cost-centre": "1", "team": "a", "x": "y"}, THREE, {}, set(THREE), id="all"),
    pytest.param(THREE, THREE, {"team": "b"}, {"cost-centre"}, id="the latter sets one"),
    pytest.param({"cost-centre": "2", "team": "a"}, THREE, {}, {"team"}, id="another value stays"),
    pytest.param({"x": "y"}, THREE, {}, set(), id="none there"),
    pytest.param(THREE, None, {}, set(), id="the former left the file"),
    pytest.param(THREE, THREE, None, set(THREE), id="nobody's from now on"),
]


@pytest.mark.parametrize(("labels", "former", "latter", "expected"), LEFT)
def test_what_a_former_tenant_left_behind(
    labels: dict[str, str],
    former: dict[str, str] | None,
    latter: dict[str, str] | None,
    expected: set[str],
) -> None:
    before = None if former is None else Tenant("one", labels=former)
    after = None if latter is None else Tenant("two", labels=latter)
    assert left_behind(labels, before, after) == expected


CENTRE = {"cost-centre": "1", "app": "x"}
CHANGES = [
    # name, labels, record -> labels that are wanted; None = nothing is
    pytest.param("a", {"client": "two"}, ("one", ADMISSION), {"client": "two"}, id="moved"),
    pytest.param("a-two", {"client": "one"}, ("one", NAME), {"client": "two"}, id="by the file"),
    pytest.param("a", {}, ("one", ADMISSION), {}, id="withdrawn"),
    pytest.param("ingress", {"client": "one"}, ("one", NAME), {}, id="shared from now on"),
]


@pytest.mark.parametrize(("name", "label", "recorded", "expected"), CHANGES)
def test_a_namespace_that_changes_its_tenant_loses_the_formers_labels(
    config: TenantConfig,
    name: str,
    label: dict[str, str],
    recorded: tuple[str, Basis],
    expected: dict[str, str],
) -> None:
    namespace = Namespace(name, CENTRE | label, uid="u")
    decided = ownership(config, namespace, RecordEntry(name, *recorded), lambda: True)
    assert decided.left_behind == {"cost-centre"}
    wanted = wanted_for(config, namespace, decided.assignment, (), decided.left_behind)
    assert isinstance(wanted[0].item, Namespace)
    assert wanted[0].item.labels == {"app": "x"} | expected


@pytest.mark.parametrize("recorded", [None, RecordEntry("a", "one", ADMISSION)])
def test_without_a_change_nothing_is_left_behind(
    config: TenantConfig, recorded: RecordEntry | None
) -> None:
    namespace = Namespace("a", CENTRE | {"client": "one"}, uid="u")
    assert ownership(config, namespace, recorded, lambda: True).left_behind == frozenset()


@pytest.mark.parametrize("basis", list(Basis))
def test_an_entry_reads_back_as_it_was_written(basis: Basis) -> None:
    entry = RecordEntry("a", "one", basis)
    assert parse_entry(entry_text(entry)) == entry


@pytest.mark.parametrize(
    "text", ["", "[]", "1", '{"namespace":"a"}', '{"namespace":"a","tenant":"t","by":"me"}']
)
def test_what_is_no_entry_is_none(text: str) -> None:
    assert parse_entry(text) is None
