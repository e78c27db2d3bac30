"""While walls are written they deny, whatever they were and become."""

from __future__ import annotations

import json
from itertools import product

import pytest

from generators.documents.json import Document, key_of, mapping, mappings
from generators.isolation.walls import walls
from tests.generators.builders import config
from webhook.controller.walls import steps


def wall(grants: int) -> dict[str, Document]:
    """That of a tenant which so many others may enter, each on a port of its own."""
    others = [f"t{n}" for n in range(grants)]
    allowed = [{"tenant": t, "ports": [{"port": 1000 + n}]} for n, t in enumerate(others)]
    tenants = [{"name": "owner", "namespaces": {"names": ["owner"]}, "allowFrom": allowed}]
    tenants += [
        {"name": t, "namespaces": {"names": [t]}, "allowTo": [{"tenant": "owner"}]} for t in others
    ]
    head = {"apiVersion": "ringfence.io/v1alpha1", "kind": "TenantConfig", "labelKey": "client"}
    found = walls(config(json.dumps({**head, "tenants": tenants})))
    named = {key_of(each).name: each for each in found}
    return {name: each for name, each in named.items() if name.startswith("ringfence-wall-owner")}


def denies(parts: dict[str, Document]) -> bool:
    rules = [rule for part in parts.values() for rule in mappings(mapping(part, "spec"), "ingress")]
    return any(rule["action"] == "Deny" for rule in rules)


PARTS = {f"{len(wall(count))} parts": wall(count) for count in (0, 3, 30, 60, 240, 300)}


@pytest.mark.parametrize(("before", "after"), list(product(PARTS, PARTS)))
def test_a_wall_that_grows_or_shrinks_always_denies(before: str, after: str) -> None:
    now = dict(PARTS[before])
    for name, part in steps(PARTS[after], PARTS[before]):
        if part is None:
            del now[name]
        else:
            now[name] = part
        assert denies(now), name
    assert now == PARTS[after]
