"""`ringfence trace --http`: what becomes of one request, by the files alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ENDS = ("galaxy/tiefighter", "svc/galaxy/deathstar", "80/TCP")
RULE = "galaxy/cnp:landing#ingress[0].toPorts[0].rules.http[0]"


@pytest.fixture
def files(checkout: Path) -> list[str]:
    folder = checkout / "examples/star-wars"
    return ["-f", str(folder / "cluster.yaml"), "-f", str(folder / "l7.yaml")]


def test_a_request_that_a_rule_matches_passes_and_names_it(
    ringfence: Run, files: list[str]
) -> None:
    asked = ("--http", "POST /v1/request-landing", "-o", "json", "--expect", "FORWARDED")
    done = ringfence("trace", *ENDS, *files, *asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["http"]["verdict"]) == ("FORWARDED", "FORWARDED")
    (stage,) = found["http"]["stages"]
    assert (stage["direction"], stage["rule"]) == ("Ingress", RULE)


def test_one_that_none_matches_says_why_and_what_to_write(ringfence: Run, files: list[str]) -> None:
    asked = (
        "--http",
        "PUT /v1/exhaust-port?now",
        "--header",
        "X-Force: yes",
        "--host",
        "deathstar",
    )
    done = ringfence("trace", *ENDS, *files, *asked, "--expect", "FORWARDED")
    assert done.returncode == 1
    assert "Verdict: REDIRECTED" in done.stdout
    assert f"{RULE} no match: method 'PUT' does not match POST" in done.stdout
    assert "Request: DROPPED (403 Access denied: no HTTP rule of ingress matches)" in done.stdout
    assert "path: /v1/exhaust-port\\?now" in done.stdout
    assert "expected FORWARDED, found DROPPED" in done.stderr


def test_one_that_no_connection_carries_is_dropped(ringfence: Run, files: list[str]) -> None:
    ends = ("galaxy/xwing", *ENDS[1:])
    done = ringfence("trace", *ends, *files, "--http", "POST /v1/request-landing")
    assert "Request: DROPPED (no connection carries it, see above)" in done.stdout


def test_where_nothing_judges_requests_all_of_them_pass(ringfence: Run, files: list[str]) -> None:
    done = ringfence("trace", *ENDS, *files[:2], "--http", "PUT /v1/exhaust-port")
    assert "Request: FORWARDED (no rule looks at requests here)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--http", "PUT"), "write METHOD PATH"),
        (("--http", "PUT http://deathstar/"), "write METHOD PATH"),
        (("--http", "GET /", "--header", "Force"), 'write "Name: value"'),
        (("--header", "Force: yes"), "--header and --host belong to --http"),
    ],
)
def test_what_is_no_request_is_bad_usage(
    ringfence: Run, files: list[str], arguments: tuple[str, ...], message: str
) -> None:
    done = ringfence("trace", *ENDS, *files, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
