"""An agent says which policies it does not read, where nobody else enforces them."""

from __future__ import annotations

import pytest

from enforcer.sources.unread import unread
from generators.kube.resources import Resource


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
