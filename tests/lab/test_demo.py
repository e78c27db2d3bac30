"""`lab demo` tells its whole story, and ends no lab but its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.demos.stage import find_example
from tests.lab.builders import CLUSTER, EXAMPLE
from tests.lab.conftest import Lab

pytestmark = pytest.mark.timeout(400)


def test_the_example_is_found_from_any_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_example("two-clients") == EXAMPLE


@pytest.mark.bpf
def test_the_story_is_told_to_its_end(new_lab: Callable[[], Lab]) -> None:
    lab = new_lab()
    done = lab("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    story = re.sub(r"\s+", " ", done.stdout)
    for claim in (
        "FORWARDED 512",
        "client=test01",
        "networkpolicy/allow-ingress-namespace created in namespace app-test02 by ringfence",
        "DROPPED at ingress: TENANT_WALL by tenant/test01#wall",
        "xx drop (Tenant wall)",
        "Verdict: DROPPED",
        "kill -9",
        "The lab is gone again",
    ):
        assert claim in story, claim
    assert 'admission webhook "validate.ringfence.io" denied the request' in done.stderr
    assert "\x1b[" not in done.stdout, "colour is for terminals"
    assert lab.traces() == []


@pytest.mark.bpf
def test_the_story_of_the_death_star_is_told_to_its_end(new_lab: Callable[[], Lab]) -> None:
    lab = new_lab()
    done = lab("demo", "star-wars")
    assert done.returncode == 0, done.stdout + done.stderr
    story = re.sub(r"\s+", " ", done.stdout)
    address = r"from 10[.]244[.][0-9]+[.][0-9]+"
    for claim in (
        f"tiefighter -> galaxy/deathstar-1 200 .*: POST /v1/request-landing {address}",
        "xwing -> galaxy/deathstar-1 --- no answer within 1 s",
        "PUT /v1/exhaust-port galaxy/tiefighter -> galaxy/deathstar-1 403 Access denied",
        "GET /v1/hangar galaxy/xwing -> galaxy/deathstar-1 403 Access denied",
        f"xwing -> galaxy/deathstar-1 200 galaxy/deathstar-1: GET /v1/surrender {address}",
        r"Request: DROPPED \(403 Access denied: no HTTP rule of ingress matches\)",
        r"On node lab, by its maps: .* ingress at galaxy/deathstar-1: REDIRECTED \(L7, ",
        r"http-request DROPPED \(HTTP/1.1 403",
        "The lab is gone again",
    ):
        assert re.search(claim, story), claim
    assert lab.traces() == []


@pytest.mark.bpf
def test_a_lab_that_is_up_is_not_ended_by_the_demo(new_lab: Callable[[], Lab]) -> None:
    lab = new_lab()
    lab.ok("up", "-f", CLUSTER)
    done = lab("demo")
    assert done.returncode == 1
    assert "is up already" in done.stderr
    assert len(lab.status()["processes"]) == 2
