"""Who may write, change and delete the NetworkPolicies that Ringfence generates."""

from __future__ import annotations

import pytest

from generators.labels import MANAGED_BY, MANAGER
from generators.tenants.assignment import Requester
from generators.tenants.model import TenantConfig
from tests.webhook.reviews import (
    CONTROLLER,
    DEPLOYER,
    NAMESPACE_CONTROLLER,
    ONE,
    PLATFORM,
    ROBOT,
    ROOT,
    netpol,
    on_policy,
    who,
)
from tests.webhook.test_decisions import CLASH
from webhook.review import Decision
from webhook.serving import validate

GENERATED = {MANAGED_BY: MANAGER}


PLAIN = {"app": "web"}


POLICIES: list[tuple[str, str, dict[str, str] | None, dict[str, str] | None]] = [
    ("20 edit", "UPDATE", GENERATED, GENERATED),
    ("20 take the mark off", "UPDATE", GENERATED, PLAIN),
    ("20 take all labels off", "UPDATE", GENERATED, None),
    ("20 put the mark on", "UPDATE", PLAIN, GENERATED),
    ("20 fake one", "CREATE", None, GENERATED),
    ("20 delete", "DELETE", GENERATED, None),
]


@pytest.mark.parametrize(
    ("operation", "old", "new"), [row[1:] for row in POLICIES], ids=[row[0] for row in POLICIES]
)
class TestGeneratedPolicies:
    def decide(
        self,
        config: TenantConfig,
        operation: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
        by: Requester,
    ) -> Decision:
        before = None if operation == "CREATE" else netpol(old)
        after = None if operation == "DELETE" else netpol(new)
        return validate.decide(config, on_policy(operation, after, before, by))

    @pytest.mark.parametrize("by", [ONE, ROBOT, DEPLOYER, CLASH], ids=who)
    def test_are_not_for_tenants(
        self,
        config: TenantConfig,
        operation: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
        by: Requester,
    ) -> None:
        decision = self.decide(config, operation, old, new, by)
        assert not decision.allowed
        assert "app-test01/allow-ingress-namespace" in decision.message

    @pytest.mark.parametrize("by", [ROOT, PLATFORM, CONTROLLER], ids=["root", "admin", "ours"])
    def test_are_for_admins_and_the_controller(
        self,
        config: TenantConfig,
        operation: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
        by: Requester,
    ) -> None:
        assert self.decide(config, operation, old, new, by).allowed

    def test_may_only_be_deleted_by_kubernetes_own_cleaners(
        self,
        config: TenantConfig,
        operation: str,
        old: dict[str, str] | None,
        new: dict[str, str] | None,
    ) -> None:
        decision = self.decide(config, operation, old, new, NAMESPACE_CONTROLLER)
        assert decision.allowed is (operation == "DELETE")


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
def test_policies_of_tenants_are_their_own(config: TenantConfig, operation: str) -> None:
    before = None if operation == "CREATE" else netpol(PLAIN)
    after = None if operation == "DELETE" else netpol()
    assert validate.decide(config, on_policy(operation, after, before, ONE)).allowed
