"""HTTP rules when something dies or changes: refused at once, never passed unjudged, nothing else
touched.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from enforcer.http import envoy
from enforcer.http.proxy import DIRECTORY
from lab import netns
from tests.enforcer.http.proxied import (
    DEATHSTAR,
    DENIED,
    TIE,
    Proxied,
    egress,
    ingress,
    needs_envoy,
    rules,
    said,
    started,
)
from tests.enforcer.node import PORT, Document, stop
from tests.testbed.processes import free_ports
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120), needs_envoy]

LANDING, WEATHER = "POST /v1/request-landing", "GET /v1/weather"


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Two pods, no agent yet."""
    with started(tmp_path_factory.mktemp("node"), (DEATHSTAR, TIE)) as made:
        yield made


def landing(*requests: str, name: str = "landing") -> Document:
    return ingress(name, *rules(*(requests or (LANDING,))))


def begin(node: Proxied, *policies: Document, more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    agent = node.start(*more)
    node.enforce(agent, *policies)
    return agent


def refused(node: Proxied, family: int = 4) -> bool:
    try:
        node.ask(TIE, DEATHSTAR, LANDING, family)
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it died meanwhile
        return True
    return False


def memory(node: Proxied) -> Path:
    """What the running Envoy shares with a successor."""
    running = envoy.last(node.run_dir / DIRECTORY)
    assert running is not None
    assert envoy.shared_memory(running.base).exists()
    return envoy.shared_memory(running.base)


def test_a_dead_envoy_refuses_at_once_and_is_started_again(node: Proxied) -> None:
    begin(node, landing(), ingress("plain", port=PORT))
    left = memory(node)
    os.kill(node.envoy_pid(), signal.SIGKILL)
    assert node.reaches(TIE, DEATHSTAR), "ports without HTTP rules go on"
    eventually(lambda: not refused(node), "Envoy is started again")
    assert node.ask(TIE, DEATHSTAR, LANDING)[0] == 200
    assert not left.exists() or left == memory(node)
    assert '"starts": 2' in json.dumps(node.status()["http"])


def test_an_envoy_that_always_ends_is_told_and_nothing_else_is_touched(node: Proxied) -> None:
    (port,) = free_ports(1)
    more = (f"--metrics-listen=127.0.0.1:{port}", "--envoy=/bin/false")
    agent = node.start(*more)
    node.wait(node.write(*node.documents(landing(), ingress("plain", port=PORT))), agent)
    node.wait_until_enforced()
    eventually(lambda: "Envoy has ended" in str(node.status()["problems"]), "status says so")
    for family in (4, 6):
        assert refused(node, family)
        assert node.reaches(TIE, DEATHSTAR, family)
    assert "ringfence_http_rules_in_force 0.0" in node.scrape(port)
    down = "ringfence_http_proxy_up 0.0"
    eventually(lambda: down in node.scrape(port), "it mostly waits for its next start")
    assert node.status()["errors"] == {}, "the agent stays ready"


def test_a_changed_expression_holds_for_kept_connections(node: Proxied, family: int) -> None:
    agent = begin(node, landing())
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, LANDING)[0] == 200
        node.enforce(agent, landing(WEATHER))
        assert said(kept, LANDING) == DENIED
        assert said(kept, WEATHER)[0] == 200
        node.enforce(agent, landing(WEATHER, LANDING))
        assert said(kept, LANDING)[0] == 200


def test_a_connection_under_other_rules_is_reset(node: Proxied, family: int) -> None:
    agent = begin(node, landing())
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, LANDING)[0] == 200
        node.enforce(agent, landing(), landing(WEATHER, name="weather"))
        with pytest.raises(ConnectionResetError):
            said(kept, WEATHER)
    assert node.ask(TIE, DEATHSTAR, WEATHER, family)[0] == 200
    assert node.ask(TIE, DEATHSTAR, LANDING, family)[0] == 200


def test_a_connection_that_is_to_be_judged_from_now_on_is_reset(node: Proxied, family: int) -> None:
    agent = begin(node, ingress("plain"))
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, "GET /anything")[0] == 200
        node.enforce(agent, landing())
        with pytest.raises(ConnectionResetError):
            said(kept, "GET /anything")
    assert node.ask(TIE, DEATHSTAR, "GET /anything", family) == DENIED


def test_a_connection_goes_on_when_nothing_judges_any_more(node: Proxied, family: int) -> None:
    agent = begin(node, landing())
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, LANDING)[0] == 200
        node.enforce(agent, ingress("plain"))
        assert said(kept, LANDING)[0] == 200
    assert node.ask(TIE, DEATHSTAR, "GET /anything", family)[0] == 200
    node.enforce(agent)
    assert node.ask(TIE, DEATHSTAR, "GET /anything", family)[0] == 200


def test_a_connection_that_is_denied_by_now_is_cut(node: Proxied) -> None:
    agent = begin(node, landing())
    with node.connected(TIE, node.address(DEATHSTAR, 4), seconds=0.5) as kept:
        assert said(kept, LANDING)[0] == 200
        node.enforce(agent, ingress("landing", *rules(LANDING), source={"org": "alliance"}))
        with pytest.raises(TimeoutError):
            said(kept, LANDING)


def test_connections_outlive_the_agent(node: Proxied, family: int) -> None:
    agent = begin(node, landing())
    pid = node.envoy_pid()
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, LANDING)[0] == 200
        stop(agent, signal.SIGKILL)
        assert said(kept, LANDING)[0] == 200
        assert node.ask(TIE, DEATHSTAR, LANDING, family)[0] == 200
        assert node.ask(TIE, DEATHSTAR, WEATHER, family) == DENIED
        agent = begin(node, landing(LANDING, WEATHER))
        assert said(kept, WEATHER)[0] == 200
        assert node.envoy_pid() == pid, "the agent found what the one before had started"


def test_uninstall_ends_envoy(node: Proxied) -> None:
    agent = begin(node, landing())
    pid, shared = node.envoy_pid(), memory(node)
    stop(agent)
    subprocess.run(node.command("uninstall"), check=True)
    assert not envoy.listening(pid)
    assert not shared.exists()
    assert not (node.run_dir / DIRECTORY).exists()
    assert node.ask(TIE, DEATHSTAR, WEATHER)[0] == 200, "nothing is enforced any more"


def test_nothing_runs_where_no_pod_has_http_rules(node: Proxied) -> None:
    begin(node, ingress("plain"), egress("other", *rules(LANDING), source={"a": "b"}, to={}))
    assert node.status()["http"] == {"listeners": 0, "proxy": None, "starts": 0, "refused": 0}
    with netns.inside(node.name):
        assert "rfp0" not in [name for _, name in socket.if_nameindex()]
