"""Who may write, change and delete the NetworkPolicies that Ringfence generates."""

from __future__ import annotations

from typing import NamedTuple

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


class Write(NamedTuple):
    """One request about a policy, by its labels before and after."""

    operation: str
    old: dict[str, str] | None
    new: dict[str, str] | None


GENERATED_POLICIES = {
    "20 edit": Write("UPDATE", GENERATED, GENERATED),
    "20 take the mark off": Write("UPDATE", GENERATED, PLAIN),
    "20 take all labels off": Write("UPDATE", GENERATED, None),
    "20 put the mark on": Write("UPDATE", PLAIN, GENERATED),
    "20 fake one": Write("CREATE", None, GENERATED),
    "20 delete": Write("DELETE", GENERATED, None),
}


def decide(config: TenantConfig, write: Write, by: Requester) -> Decision:
    before = None if write.operation == "CREATE" else netpol(write.old)
    after = None if write.operation == "DELETE" else netpol(write.new)
    return validate.decide(config, on_policy(write.operation, after, before, by))


@pytest.mark.parametrize("write", GENERATED_POLICIES.values(), ids=GENERATED_POLICIES)
class TestGeneratedPolicies:
    @pytest.mark.parametrize("by", [ONE, ROBOT, DEPLOYER, CLASH], ids=who)
    def test_are_not_for_tenants(self, config: TenantConfig, write: Write, by: Requester) -> None:
        decision = decide(config, write, by)
        assert not decision.allowed
        assert "app-test01/allow-ingress-namespace" in decision.message

    @pytest.mark.parametrize("by", [ROOT, PLATFORM, CONTROLLER], ids=["root", "admin", "ours"])
    def test_are_for_admins_and_the_controller(
        self, config: TenantConfig, write: Write, by: Requester
    ) -> None:
        assert decide(config, write, by).allowed

    def test_may_only_be_deleted_by_kubernetes_own_cleaners(
        self, config: TenantConfig, write: Write
    ) -> None:
        decision = decide(config, write, NAMESPACE_CONTROLLER)
        assert decision.allowed is (write.operation == "DELETE")


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
def test_policies_of_tenants_are_their_own(config: TenantConfig, operation: str) -> None:
    assert decide(config, Write(operation, PLAIN, None), ONE).allowed
