"""An agent says which policies it does not read, where nobody else enforces them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bench.parts.replay import Replayed
from enforcer.sources.api import ApiSupply
from enforcer.sources.tenants import AgentTenants
from enforcer.sources.unread import unread
from generators.documents.json import Document
from generators.kube.resources import Resource
from generators.kube.transport import Bounds
from tests.testbed.waiting import eventually


class Serving:
    """An API server that serves these kinds of cilium.io/v2."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds

    def find(self, group: str, version: str, kind: str) -> Resource | None:
        served = (group, version) == ("cilium.io", "v2") and kind in self._kinds
        return Resource(group, version, f"{kind.lower()}s", kind) if served else None


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((), ""),
        (("CiliumNetworkPolicy",), "serves CiliumNetworkPolicy, and nothing on this node"),
        (
            ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"),
            "CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy",
        ),
        (("CiliumNetworkPolicy", "CiliumNode"), ""),
    ],
)
def test_an_agent_says_that_it_does_not_read_what_is_served(
    kinds: tuple[str, ...], said: str
) -> None:
    found = unread(Serving(*kinds))
    assert said in found
    assert bool(found) is bool(said)


class WithCiliumsPolicies(Replayed):
    """An API server that serves CiliumNetworkPolicies, and nothing else of Cilium."""

    def read(
        self, path: str, query: Mapping[str, str] | None = None, *, bounds: Bounds | None = None
    ) -> Document:
        """Of cilium.io/v2 its one kind."""
        if path != "/apis/cilium.io/v2":
            return super().read(path, query, bounds=bounds)
        kind = {"name": "ciliumnetworkpolicies", "kind": "CiliumNetworkPolicy", "namespaced": True}
        return {"resources": [{**kind, "verbs": ["list", "watch"]}]}


def test_an_agent_that_follows_an_api_server_tells_it_and_stays_ready() -> None:
    supply = ApiSupply(WithCiliumsPolicies({}), "node", AgentTenants(None), "ringfence-system")
    supply.start(lambda: None)
    try:
        eventually(lambda: supply.health().notices, "it is told")
        assert "serves CiliumNetworkPolicy" in supply.health().notices[0]
        assert "cilium.io" not in supply.health().errors
    finally:
        supply.stop()
