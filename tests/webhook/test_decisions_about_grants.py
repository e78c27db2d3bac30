"""Whose word a grant is that tenants agree on by themselves."""

from __future__ import annotations

import pytest

from generators.labels import GRANTS_ANNOTATION
from generators.tenants.assignment import Requester
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig
from tests.webhook.reviews import (
    CONTROLLER,
    ONE,
    PLATFORM,
    ROBOT,
    ROOT,
    TENANTS,
    JSONObject,
    create,
    ns,
    update,
)
from tests.webhook.test_decisions import FULL, SUBRESOURCES
from webhook.review import Denial
from webhook.serving import validate

WORD = "test01 from test02:5432/TCP"


def saying(word: str | None, name: str = "app-test01") -> JSONObject:
    return ns(name, FULL, annotations=word and {GRANTS_ANNOTATION: word})


@pytest.fixture
def self_service() -> TenantConfig:
    return parse_tenants((TENANTS + "grants: self-service\n").encode(), "tenants.yaml")


@pytest.mark.parametrize("subresource", SUBRESOURCES, ids=lambda s: f"namespaces/{s}".rstrip("/"))
@pytest.mark.parametrize(("was", "now"), [(None, WORD), (WORD, None)], ids=["given", "taken back"])
@pytest.mark.parametrize(
    ("by", "allowed"),
    [(ONE, True), (ROBOT, False), (PLATFORM, True), (ROOT, True), (CONTROLLER, False)],
    ids=["member", "robot", "admin", "root", "controller"],
)
def test_a_tenant_s_word_is_that_of_its_members(
    self_service: TenantConfig,
    was: str | None,
    now: str | None,
    by: Requester,
    allowed: bool,
    subresource: str,
) -> None:
    review = update(saying(was), saying(now), by, subresource)
    assert validate.decide(self_service, review).allowed is allowed


def test_no_member_speaks_for_another_tenant(self_service: TenantConfig) -> None:
    decision = validate.decide(self_service, update(saying(None), saying("test02 to test01"), ONE))
    assert decision.message == (
        'namespace "app-test01": annotation ringfence.io/grants is refused: "test02 to test01" is '
        "the word of tenant test02; only its members in tenants.yaml and admins may give or take "
        "it back; ask one"
    )
    assert decision.denial is Denial.FORBIDDEN


def test_a_member_changes_no_other_word_beside_its_own(self_service: TenantConfig) -> None:
    both = f"{WORD}, test02 to test01"
    assert not validate.decide(self_service, update(saying(both), saying(None), ONE)).allowed
    mine_alone = update(saying(both), saying("test02 to test01"), ONE)
    assert validate.decide(self_service, mine_alone).allowed


def test_a_new_namespace_may_say_it_at_once(self_service: TenantConfig) -> None:
    assert validate.decide(self_service, create(saying(WORD), ONE)).allowed
    assert not validate.decide(self_service, create(saying(WORD), ROBOT)).allowed


def test_where_the_file_keeps_grants_nobody_may_write_one(config: TenantConfig) -> None:
    for by in (ONE, PLATFORM):
        decision = validate.decide(config, update(saying(None), saying(WORD), by))
        assert "may not grant by itself; ask an admin for the grant" in decision.message
    assert validate.decide(config, update(saying(WORD), saying(None), ONE)).allowed


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("test01 from nowhere", "tenants.yaml has no tenant nowhere; correct the name"),
        ("test01 form test02", '"test01 form test02" is no consent; write "OWN from OTHER"'),
    ],
)
def test_a_word_that_means_nothing_is_refused(
    self_service: TenantConfig, word: str, said: str
) -> None:
    decision = validate.decide(self_service, update(saying(None), saying(word), ONE))
    assert not decision.allowed
    assert said in decision.message
