"""Envoy takes what the reader of policies takes: else one policy holds up others' rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enforcer.http import envoy, xds
from generators.http import BadPattern, HeaderRule, HttpRule, RuleSet, compiled
from tests.enforcer.http.proxied import needs_envoy

pytestmark = [pytest.mark.timeout(120), needs_envoy]

SHAPES = ("/(a|bc){0,%d}", r"/\pL{%d}", "/(?i)[^/]{%d}x", r"/\xFF{1,%d}", "/.{%d}.*", "é{%d}")
TAKEN = (
    *(r"/\x{ff}", r"/\p{Greek}", "/é", "/[^/]{3}", r"/\C", "(?P<n>a)(?P<n>b)", "(?<n>a)", "a\x00b"),
    *(r"\Qa.b\E", "(?U)a+", "[[:word:]]", r"\z", "^/a$", "(?s).", "a\nb", "x*" * 900),
)
REFUSED = (
    *(r"/\x{100}", r"/\x{10FFFF}", "a{1001}", "(", "[", "a**", r"\1", "(?=a)", r"\pX"),
    *("(?P<é>a)", "[b-a]"),
)


def largest(shape: str) -> str:
    """The largest expression of a shape that the reader takes."""
    taken = ""
    for count in range(1, 1001):
        try:
            compiled(shape % count)
        except BadPattern:
            break
        taken = shape % count
    assert taken
    return taken


def is_taken(folder: Path, *rules: HttpRule) -> bool:
    """Whether Envoy takes a configuration with the routes of these rules."""
    named = tuple((f"n/cnp:p#ingress[0].http[{i}]", rule) for i, rule in enumerate(rules))
    told = xds.routes(0, {1024: RuleSet("Ingress", "n/cnp:p#ingress[0]", named)}, "1")
    parts: Any = json.loads(json.dumps([told, xds.connection_manager(0), xds.bootstrap()]))
    routes, (manager, bootstrap) = parts[0]["resources"][0], parts[1:]
    del manager["rds"], routes["@type"], bootstrap["dynamic_resources"], bootstrap["admin"]
    name = "envoy.filters.network.http_connection_manager"
    filters = [{"name": name, "typed_config": {**manager, "route_config": routes}}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    listener = {"name": "1024", "address": address, "filter_chains": [{"filters": filters}]}
    bootstrap["static_resources"]["listeners"] = [listener]
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    command = [str(envoy.find()), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return not done.returncode


def test_all_that_the_reader_takes(tmp_path: Path) -> None:
    expressions = [*TAKEN, *map(largest, SHAPES)]
    for expression in expressions:
        compiled(expression)
    rules = [HttpRule(path=expression) for expression in expressions]
    values = ("ünï", "", "a b", "x" * 4096)
    rules += [HttpRule(method="GET", headers=(HeaderRule("x-a", value),)) for value in values]
    assert is_taken(tmp_path, *rules)


@pytest.mark.parametrize("expression", REFUSED)
def test_the_reader_refuses_what_envoy_refuses(tmp_path: Path, expression: str) -> None:
    assert not is_taken(tmp_path, HttpRule(path=expression))
    with pytest.raises(BadPattern):
        compiled(expression)
