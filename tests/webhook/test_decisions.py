"""Who may do what to the tenant of a namespace: one row a case, both webhooks together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generators.labels import MODE_ANNOTATION
from generators.tenants.assignment import Requester
from generators.tenants.model import TenantConfig, Unassigned
from tests.webhook.reviews import (
    BOTH,
    CONTROLLER,
    DEPLOYER,
    KEY,
    NAMESPACE_CONTROLLER,
    ONE,
    PLATFORM,
    ROBOT,
    ROOT,
    TWO,
    JSONObject,
    create,
    labels,
    ns,
    patched,
    update,
    who,
)
from webhook.review import Decision, Denial
from webhook.serving import mutate, validate

T1 = {KEY: "test01"}
T2 = {KEY: "test02"}
FULL = {KEY: "test01", "cost-centre": "4711"}
WRONG = {KEY: "test01", "cost-centre": "1"}
SUBRESOURCES = ["", "status", "finalize"]

SYSTEM_IN_EVERY_GROUP = Requester(
    "system:serviceaccount:kube-system:replicaset-controller", frozenset({"team-test02"})
)
MEMBER_TWICE = Requester("anna", frozenset(["team-test01", "team-test01"]))
CLASH = Requester("system:serviceaccount:other:deployer", frozenset({"system:serviceaccounts"}))


def created(
    config: TenantConfig, name: str, wish: dict[str, str] | None, by: Requester
) -> tuple[Decision, JSONObject]:
    """CREATE through both webhooks: the refusing decision or the last one, and the object."""
    subject = ns(name, wish)
    first = mutate.decide(config, create(subject, by))
    if not first.allowed:
        return first, subject
    final = patched(subject, first)
    return validate.decide(config, create(final, by)), final


CREATIONS: list[tuple[str, Requester, str, dict[str, str] | None, str | None]] = [
    ("member of one gets that tenant", ONE, "anything", None, "test01"),
    ("member of one, the name agrees", ONE, "app-test01", None, "test01"),
    ("member of one by service account", DEPLOYER, "anything", None, "test01"),
    ("a group given twice counts once", MEMBER_TWICE, "anything", None, "test01"),
    ("member of one may say the label", ONE, "anything", T1, "test01"),
    ("member of several, the name chooses", BOTH, "app-test02", None, "test02"),
    ("member of several, the label chooses", BOTH, "anything", T2, "test02"),
    ("admin, the label", PLATFORM, "anything", T2, "test02"),
    ("admin, the label against the name", PLATFORM, "app-test01", T2, "test02"),
    ("admin, the name", PLATFORM, "app-test01", None, "test01"),
    ("admin, neither", PLATFORM, "anything", None, None),
    ("system:masters is an admin", ROOT, "anything", T1, "test01"),
    ("nobody's member, the name", ROBOT, "app-test02", None, "test02"),
    ("nobody's member, an exact name", ROBOT, "legacy-shop", None, "test01"),
    ("nobody's member, no match", ROBOT, "anything", None, None),
    ("parts of the cluster are no members", SYSTEM_IN_EVERY_GROUP, "anything", None, None),
    ("a service account of that name elsewhere", CLASH, "anything", None, None),
    ("protected, by an admin", PLATFORM, "kube-system", None, None),
    ("shared, by a robot", ROBOT, "ingress", None, None),
]


@pytest.mark.parametrize(
    ("by", "name", "wish", "tenant"), [row[1:] for row in CREATIONS], ids=[r[0] for r in CREATIONS]
)
def test_a_created_namespace_belongs_to(
    config: TenantConfig,
    by: Requester,
    name: str,
    wish: dict[str, str] | None,
    tenant: str | None,
) -> None:
    decision, final = created(config, name, wish, by)
    assert decision.allowed
    assert decision.warnings == ()
    assert labels(final).get(KEY) == tenant
    assert labels(final).get("cost-centre") == ("4711" if tenant == "test01" else None)


REFUSED_CREATIONS: list[tuple[str, Requester, str, dict[str, str] | None, str]] = [
    ("1 another tenant's label, member", ONE, "anything", T2, "test02"),
    ("1 another tenant's label, robot", ROBOT, "app-test01", T2, "test02"),
    ("1 a label is a wish, no proof", ROBOT, "anything", T1, "test01"),
    ("1 another tenant's name", TWO, "app-test01", None, "test01"),
    ("1 another tenant's exact name", TWO, "legacy-shop", None, "test01"),
    ("member of several, neither chooses", BOTH, "anything", None, "test01, test02"),
    ("member of several, label against name", BOTH, "app-test01", T2, "test02"),
    ("5 a tenant for a protected namespace", ROBOT, "kube-system", T1, "protected"),
    ("5 even by an admin", PLATFORM, "kube-system", T1, "protected"),
    ("5 a tenant for a shared namespace", ROOT, "ingress", T1, "shared"),
    ("5 a member makes a protected one", ONE, "kube-public", None, "protected"),
    ("9 another case", ONE, "anything", {KEY: "Test01"}, "Test01"),
    ("9 a trailing dot", ONE, "anything", {KEY: "test01."}, "test01."),
    ("9 a space", ONE, "anything", {KEY: "test01 "}, "test01 "),
    ("9 the empty value", ONE, "anything", {KEY: ""}, ""),
    ("9 a homograph", PLATFORM, "anything", {KEY: "t\u0435st01"}, "no tenant"),
    ("unknown tenant, admin", PLATFORM, "anything", {KEY: "nix"}, "no tenant"),
]


@pytest.mark.parametrize(
    ("by", "name", "wish", "says"),
    [row[1:] for row in REFUSED_CREATIONS],
    ids=[r[0] for r in REFUSED_CREATIONS],
)
def test_a_creation_is_refused_by_both_webhooks(
    config: TenantConfig, by: Requester, name: str, wish: dict[str, str] | None, says: str
) -> None:
    """Both: the mutating webhook may have been down when the request passed it."""
    review = create(ns(name, wish), by)
    for decision in (mutate.decide(config, review), validate.decide(config, review)):
        assert not decision.allowed
        assert decision.patch == ()
        assert says in decision.message


def test_a_refusal_names_tenant_rule_and_line(config: TenantConfig) -> None:
    decision, _ = created(config, "app-test01", None, TWO)
    for part in ("test01", '"-test01"', "tenants.yaml:11", "team-test02"):
        assert part in decision.message


def test_nobody_s_namespace_is_refused_where_the_file_says_so(config: TenantConfig) -> None:
    closed = replace(config, unassigned=Unassigned.DENY)
    assert not created(closed, "anything", None, ROBOT)[0].allowed
    assert created(closed, "anything", None, PLATFORM)[0].allowed


class TestGenerateName:
    """Threat 8: the name is empty while /mutate decides."""

    def test_the_requester_alone_may_decide(self, config: TenantConfig) -> None:
        decision = mutate.decide(config, create(ns("", generateName="x-"), ONE))
        assert labels(patched(ns(""), decision)) == FULL

    def test_the_name_decides_later(self, config: TenantConfig) -> None:
        decision = mutate.decide(config, create(ns("", generateName="test01-"), ROBOT))
        assert decision.allowed
        assert decision.patch == ()

    def test_what_needs_the_name_is_not_refused_yet(self, config: TenantConfig) -> None:
        closed = replace(config, unassigned=Unassigned.DENY)
        for by in (ROBOT, BOTH):
            assert mutate.decide(closed, create(ns("", generateName="test01-"), by)).allowed

    def test_the_final_name_is_judged(self, config: TenantConfig) -> None:
        final = ns("test01-x7x2p", FULL, generateName="test01-")
        assert not validate.decide(config, create(final, TWO, name="")).allowed
        assert validate.decide(config, create(final, ONE, name="")).allowed

    def test_what_the_controller_has_to_label_is_said(self, config: TenantConfig) -> None:
        final = ns("test01-x7x2p", generateName="test01-")
        decision = validate.decide(config, create(final, ROBOT, name=""))
        assert decision.allowed
        assert "client" in decision.warnings[0]

    def test_no_name_at_all_is_refused(self, config: TenantConfig) -> None:
        assert not validate.decide(config, create(ns("", generateName="x-"), ONE)).allowed


def test_a_namespace_that_mutate_never_saw_is_let_through_with_a_warning(
    config: TenantConfig,
) -> None:
    decision = validate.decide(config, create(ns("app-test01"), ONE))
    assert decision.allowed
    assert decision.warnings == (
        "not labelled yet: client, cost-centre; the controller will do it",
    )


TAMPERING: list[tuple[str, str, dict[str, str] | None, dict[str, str] | None]] = [
    ("2 to another tenant", "app-test01", FULL, FULL | T2),
    ("2 the label away", "app-test01", FULL, {"cost-centre": "4711"}),
    ("2 all labels away", "app-test01", FULL, None),
    ("6 a label where none was", "anything", None, T1),
    ("6 the label that the name says", "app-test01", None, T1),
    ("5 adopt a system namespace", "kube-system", None, T1),
    ("5 adopt a shared namespace", "ingress", {"a": "b"}, {"a": "b"} | T1),
    ("to a tenant that is not there", "app-test01", FULL, FULL | {KEY: "nix"}),
    ("to the empty value", "app-test01", FULL, FULL | {KEY: ""}),
    ("another case", "app-test01", FULL, FULL | {KEY: "Test01"}),
    ("a further label of the tenant", "app-test01", FULL, T1 | {"cost-centre": "0815"}),
    ("a further label away", "app-test01", FULL, T1),
]


@pytest.mark.parametrize("subresource", SUBRESOURCES, ids=lambda s: f"namespaces/{s}".rstrip("/"))
@pytest.mark.parametrize("by", [ONE, TWO, BOTH, ROBOT, NAMESPACE_CONTROLLER], ids=who)
@pytest.mark.parametrize(
    ("name", "old", "new"), [row[1:] for row in TAMPERING], ids=[row[0] for row in TAMPERING]
)
class TestTampering:
    def test_is_refused(
        self,
        config: TenantConfig,
        name: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
        by: Requester,
        subresource: str,
    ) -> None:
        decision = validate.decide(config, update(ns(name, old), ns(name, new), by, subresource))
        assert not decision.allowed
        assert name in decision.message
        assert "tenants.yaml" in decision.message
        assert ";" in decision.message  # what to do

    def test_is_refused_while_terminating(
        self,
        config: TenantConfig,
        name: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
        by: Requester,
        subresource: str,
    ) -> None:
        """Threat 11."""
        dying = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"]}
        before, after = ns(name, old, **dying), ns(name, new, **dying)
        assert not validate.decide(config, update(before, after, by, subresource)).allowed

    def test_is_not_hidden_by_a_patch(
        self,
        config: TenantConfig,
        name: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
        by: Requester,
        subresource: str,
    ) -> None:
        before, after = ns(name, old), ns(name, new)
        decision = mutate.decide(config, update(before, after, by, subresource))
        final = patched(after, decision)
        mended = not subresource and (old or {}).items() > (new or {}).items()
        assert bool(decision.warnings) == mended
        judged = validate.decide(config, update(before, final, by, subresource))
        assert judged.allowed == mended
        if mended:
            assert labels(final) == old


def test_what_a_request_leaves_out_is_kept_with_a_warning(config: TenantConfig) -> None:
    audited = {MODE_ANNOTATION: "audit"}
    before = ns("app-test01", FULL | {"app": "shop"}, annotations=audited | {"note": "x"})
    after = ns("app-test01", {"team": "blue"})
    decision = mutate.decide(config, update(before, after, ONE))
    assert decision.allowed
    assert [warning.split()[0] for warning in decision.warnings] == [
        "client=test01",
        "cost-centre=4711",
    ]
    final = patched(after, decision)
    assert labels(final) == FULL | {"team": "blue"}
    assert validate.decide(config, update(before, final, ONE)).allowed


def test_an_admin_takes_the_label_away(config: TenantConfig) -> None:
    review = update(ns("app-test01", FULL), ns("app-test01", {"app": "x"}), PLATFORM)
    decision = mutate.decide(config, review)
    assert (decision.patch, decision.warnings) == ((), ())


def test_a_members_namespace_does_not_pass_without_its_label(config: TenantConfig) -> None:
    """Nobody could tell later whose it is: the name does not say it."""
    decision = validate.decide(config, create(ns("plain"), ONE))
    assert decision.denial is Denial.NOT_YET
    assert "client=test01" in decision.message
    assert validate.decide(config, create(ns("plain", T1), ONE)).allowed


def test_a_refused_move_says_whose_the_namespace_is_and_what_to_do(config: TenantConfig) -> None:
    review = update(ns("app-test01", FULL), ns("app-test01", FULL | T2), ONE)
    assert validate.decide(config, review).message == (
        'namespace "app-test01": changing label client from test01 to test02 is refused: '
        "it belongs to tenant test01 (tenants.yaml:10), and only admins of tenants.yaml may "
        "change that; undo this change of the label or ask an admin"
    )


TRUSTED: list[tuple[str, str, dict[str, str] | None, dict[str, str] | None, bool]] = [
    ("may move", "app-test01", FULL, T2, True),
    ("may remove", "app-test01", FULL, None, True),
    ("may add", "anything", None, T1, True),
    ("may not name a tenant that is not there", "anything", None, {KEY: "nix"}, False),
    ("may not give a protected namespace away", "kube-system", None, T1, False),
    ("may not give a shared namespace away", "ingress", None, T1, False),
    ("may clean a protected namespace", "kube-system", T1, None, True),
    ("may change further labels", "app-test01", FULL, T1 | {"cost-centre": "1"}, True),
]


@pytest.mark.parametrize("subresource", SUBRESOURCES, ids=lambda s: f"namespaces/{s}".rstrip("/"))
@pytest.mark.parametrize("by", [ROOT, PLATFORM, CONTROLLER], ids=["root", "admin", "controller"])
@pytest.mark.parametrize(
    ("name", "old", "new", "allowed"), [row[1:] for row in TRUSTED], ids=[r[0] for r in TRUSTED]
)
def test_admins_and_the_controller(
    config: TenantConfig,
    name: str,
    old: dict[str, str] | None,
    new: dict[str, str] | None,
    allowed: bool,
    by: Requester,
    subresource: str,
) -> None:
    review = update(ns(name, old), ns(name, new), by, subresource)
    assert validate.decide(config, review).allowed is allowed


def test_another_controller_user_may_be_named(config: TenantConfig) -> None:
    review = update(ns("anything"), ns("anything", T1), ROBOT)
    assert not validate.decide(config, review).allowed
    assert validate.decide(config, review, controller=ROBOT.username).allowed
    mine = update(ns("anything"), ns("anything", T1), CONTROLLER)
    assert not validate.decide(config, mine, controller=ROBOT.username).allowed


HARMLESS: list[tuple[str, str, dict[str, str] | None, dict[str, str] | None]] = [
    ("another label", "app-test01", FULL, FULL | {"a": "b"}),
    ("labels that look alike (9)", "app-test01", FULL, FULL | {"Client": "x", "client.": "y"}),
    ("14 an exclusion label excludes nothing", "app-test01", FULL, FULL | {"ringfence": "off"}),
    ("a further label set right", "app-test01", T1 | {"cost-centre": "1"}, FULL),
    ("a further label that was wrong", "app-test01", WRONG, WRONG | {"a": "b"}),
    ("nobody's namespace", "anything", None, {"a": "b"}),
    ("a stray label that was there", "kube-system", T1, T1 | {"a": "b"}),
    ("a tenant that the file lost", "anything", {KEY: "gone"}, {KEY: "gone", "a": "b"}),
]


@pytest.mark.parametrize("by", [ONE, ROBOT, NAMESPACE_CONTROLLER], ids=who)
@pytest.mark.parametrize(
    ("name", "old", "new"), [row[1:] for row in HARMLESS], ids=[row[0] for row in HARMLESS]
)
def test_what_leaves_the_tenant_alone_is_let_through(
    config: TenantConfig,
    name: str,
    old: dict[str, str] | None,
    new: dict[str, str] | None,
    by: Requester,
) -> None:
    assert validate.decide(config, update(ns(name, old), ns(name, new), by)).allowed


def test_an_exclusion_label_does_not_carry_a_change_through(config: TenantConfig) -> None:
    """Threat 14: the exemption asked for in the same request."""
    exempt = {"admission.ringfence.io/ignore": "true", "control-plane": "true"}
    review = update(ns("app-test01", FULL), ns("app-test01", exempt | T2), ONE)
    assert not validate.decide(config, review).allowed


MOVES: list[tuple[str, dict[str, str], dict[str, str], dict[str, str]]] = [
    ("the former's labels go", FULL | {"a": "b"}, FULL | {"a": "b"} | T2, T2 | {"a": "b"}),
    ("the latter's come", T2 | {"a": "b"}, T1 | {"a": "b"}, FULL | {"a": "b"}),
    ("another value stays", WRONG, WRONG | T2, WRONG | T2),
    ("what the admin sets stays", WRONG, FULL | T2, FULL | T2),
    ("an unknown tenant changes nothing", FULL, FULL | {KEY: "nix"}, FULL | {KEY: "nix"}),
    ("given to its first tenant", {"a": "b"}, {"a": "b"} | T1, FULL | {"a": "b"}),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in MOVES], ids=[row[0] for row in MOVES]
)
def test_an_admins_move_takes_the_labels_of_the_tenant_along(
    config: TenantConfig, old: dict[str, str], new: dict[str, str], expected: dict[str, str]
) -> None:
    before, after = ns("anything", old), ns("anything", new)
    decision = mutate.decide(config, update(before, after, PLATFORM))
    assert labels(patched(after, decision)) == expected
    for nobody in (ONE, ROBOT):
        assert mutate.decide(config, update(before, after, nobody)).patch == ()


class TestRepair:
    def repaired(
        self, config: TenantConfig, name: str, kept: dict[str, str] | None, by: Requester
    ) -> dict[str, str]:
        """Labels after an UPDATE that leaves the labels of the namespace as they were."""
        before = ns(name, kept)
        decision = mutate.decide(config, update(before, before, by))
        final = patched(before, decision)
        assert validate.decide(config, update(before, final, by)).allowed
        return labels(final)

    @pytest.mark.parametrize("by", [ONE, TWO, ROBOT, PLATFORM], ids=who)
    def test_further_labels_come_back_with_any_update(
        self, config: TenantConfig, by: Requester
    ) -> None:
        assert self.repaired(config, "app-test01", T1, by) == FULL
        assert self.repaired(config, "app-test01", T1 | {"cost-centre": "1"}, by) == FULL

    def test_an_admin_brings_the_tenant_label(self, config: TenantConfig) -> None:
        assert self.repaired(config, "app-test01", None, PLATFORM) == FULL
        assert self.repaired(config, "app-test01", {KEY: "gone"}, PLATFORM) == FULL

    @pytest.mark.parametrize("by", [ONE, BOTH, ROBOT], ids=who)
    def test_nobody_else_does(self, config: TenantConfig, by: Requester) -> None:
        assert self.repaired(config, "app-test01", None, by) == {}
        assert self.repaired(config, "app-test01", {KEY: "gone"}, by) == {KEY: "gone"}

    @pytest.mark.parametrize("after", [T2, {KEY: "gone"}], ids=["moved", "unknown"])
    @pytest.mark.parametrize("by", [ONE, PLATFORM, CONTROLLER], ids=who)
    def test_what_the_request_does_to_the_label_is_not_undone(
        self, config: TenantConfig, after: dict[str, str] | None, by: Requester
    ) -> None:
        review = update(ns("app-test01", FULL), ns("app-test01", after), by)
        assert mutate.decide(config, review).patch == ()

    @pytest.mark.parametrize("name", ["kube-system", "ringfence-system", "ingress"])
    def test_protected_and_shared_namespaces_stay_as_they_are(
        self, config: TenantConfig, name: str
    ) -> None:
        for kept in (None, {"a": "b"}, T1):
            assert self.repaired(config, name, kept, PLATFORM) == (kept or {})

    @pytest.mark.parametrize("subresource", ["status", "finalize"])
    def test_subresources_are_never_patched(self, config: TenantConfig, subresource: str) -> None:
        review = update(ns("app-test01"), ns("app-test01"), PLATFORM, subresource)
        assert mutate.decide(config, review).patch == ()


MALFORMED: list[tuple[str, object]] = [
    ("a list", ["a"]),
    ("a string", "client=test01"),
    ("a number as value", {KEY: 1}),
    ("null as value", {KEY: None}),
    ("a map as value", {KEY: {"x": "y"}}),
    ("true", True),
]


@pytest.mark.parametrize("bad", [row[1] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
@pytest.mark.parametrize("by", [ONE, PLATFORM], ids=["member", "admin"])
def test_malformed_labels_are_refused(config: TenantConfig, bad: object, by: Requester) -> None:
    good, wrong = ns("app-test01", FULL), ns("app-test01", bad)
    for review in (create(wrong, by), update(good, wrong, by), update(wrong, good, by)):
        for decision in (mutate.decide(config, review), validate.decide(config, review)):
            assert decision.denial is not None
            assert decision.denial.code == 422


def test_metadata_that_is_no_object_is_refused(config: TenantConfig) -> None:
    subjects: list[JSONObject] = [{}, {"metadata": None}, {"metadata": ["x"]}]
    for subject in subjects:
        assert not validate.decide(config, create(subject, PLATFORM, name="x")).allowed
