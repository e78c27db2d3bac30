"""Who may put a namespace under audit, and how."""

from __future__ import annotations

import pytest

from generators.labels import MODE_ANNOTATION
from generators.tenants.assignment import Requester
from generators.tenants.model import TenantConfig
from tests.webhook.reviews import (
    CONTROLLER,
    ONE,
    PLATFORM,
    ROBOT,
    ROOT,
    JSONObject,
    create,
    ns,
    update,
)
from tests.webhook.test_decisions import FULL, SUBRESOURCES
from webhook.serving import validate


def under(mode: str | None, name: str = "app-test01") -> JSONObject:
    """A namespace of test01 with that mode."""
    return ns(name, FULL, annotations=mode and {MODE_ANNOTATION: mode})


@pytest.mark.parametrize("subresource", SUBRESOURCES, ids=lambda s: f"namespaces/{s}".rstrip("/"))
@pytest.mark.parametrize(("was", "now"), [(None, "audit"), ("audit", None)], ids=["on", "off"])
@pytest.mark.parametrize(
    ("by", "allowed"),
    [(ONE, False), (ROBOT, False), (PLATFORM, True), (ROOT, True), (CONTROLLER, True)],
    ids=["member", "robot", "admin", "root", "controller"],
)
def test_only_admins_decide_whether_a_namespace_is_only_audited(
    config: TenantConfig,
    was: str | None,
    now: str | None,
    by: Requester,
    allowed: bool,
    subresource: str,
) -> None:
    review = update(under(was), under(now), by, subresource)
    assert validate.decide(config, review).allowed is allowed


def test_a_member_makes_no_namespace_under_audit(config: TenantConfig) -> None:
    assert not validate.decide(config, create(under("audit"), ONE)).allowed
    assert validate.decide(config, create(under("audit"), PLATFORM)).allowed


def test_a_mode_that_does_not_exist_is_refused_by_name(config: TenantConfig) -> None:
    decision = validate.decide(config, update(under(None), under("adit"), PLATFORM))
    assert decision.message == (
        'namespace "app-test01": annotation ringfence.io/mode: unknown mode adit; '
        "write audit, or leave the annotation out"
    )
