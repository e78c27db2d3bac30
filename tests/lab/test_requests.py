"""`lab probe --http`: requests through the real proxy reach the server as `trace` judged them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from generators.http import HttpRule, RuleSet, request_of
from tests.lab.conftest import Lab

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(400)]

STAR_WARS = Path(__file__).parents[2] / "examples/star-wars"
CLIENT, SERVER = "galaxy/tiefighter", "galaxy/deathstar-1"
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: public, namespace: galaxy}
spec:
  endpointSelector: {}
  ingress:
    - toPorts:
        - ports: [{port: "80", protocol: TCP}]
          rules: {http: [{path: "/public/.*"}]}
"""
RULES = RuleSet("Ingress", "public", (("public", HttpRule(path="/public/.*")),))
PATHS = (
    "/public/x?a=/../b",
    "/public/../admin",
    "/public/%2e%2e/admin",
    "/public/..;/admin",
    "/public/a/..;x=1/b",
    "/public/.;/x",
    "/public/a//../b",
    "/public/%41%7e/x",
    "/public/a%3Bb",
    "//public//x",
    "/public/%252e%252e/admin",
    "/public/%2Fadmin",
)


def answer(lab: Lab, path: str) -> Mapping[str, object]:
    asked = ("--from", CLIENT, "--to", SERVER, "--timeout", "5", "-o", "json")
    (found,) = json.loads(lab.ok("probe", "--http", f"GET {path}", *asked))["answers"]
    return dict(found)


def test_the_path_that_is_judged_is_the_one_that_the_server_gets(
    new_lab: Callable[[], Lab], tmp_path: Path
) -> None:
    lab, policy = new_lab(), tmp_path / "public.yaml"
    policy.write_text(POLICY)
    lab.ok("up", "-f", str(STAR_WARS / "cluster.yaml"), "-f", str(policy))
    for path in PATHS:
        request = request_of("GET", path)
        found = answer(lab, path)
        if RULES.matching(request) is None:
            assert found["status"] in (400, 403), path
            continue
        assert found["status"] == 200, path
        assert f": GET {request.path} from " in str(found["body"]), path
