"""HTTP rules of what leaves, at both ends at once, through Services, and over a hot restart."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from enforcer.http import envoy
from lab import netns
from tests.enforcer.http.proxied import (
    DEATHSTAR,
    DENIED,
    HTTP,
    TIE,
    XWING,
    Proxied,
    client_of,
    egress,
    ingress,
    needs_envoy,
    rules,
    said,
    started,
)
from tests.enforcer.node import NODE_NAME, Document, stop
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120), needs_envoy]

LANDING, WEATHER, EXHAUST = "POST /v1/request-landing", "GET /v1/weather", "PUT /v1/exhaust-port"
SERVICE = {4: "10.96.0.10", 6: "fd96::10"}
TIES, STARS = {"class": "tiefighter"}, {"class": "deathstar"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Tie fighters may call for landing and weather, the death star answers landing and exhaust;
    a Service leads to it, as kube-proxy makes one.
    """
    with started(tmp_path_factory.mktemp("node")) as made:
        translate(made)
        agent = made.start()
        policies = (
            egress("calls", *rules(LANDING, WEATHER), source=TIES, to=STARS),
            ingress("landing", *rules(LANDING, EXHAUST)),
        )
        made.wait(made.write(*made.documents(*policies, *service(made))), agent)
        made.wait_until_enforced()
        made.wait_until_told()
        yield made


def translate(node: Proxied) -> None:
    """A ClusterIP for the death star, in the node's nftables."""
    lines = ["add table inet services"]
    hook = "type nat hook prerouting priority -100"
    lines.append(f"add chain inet services calls {{ {hook}; }}")
    for family, name in ((4, "ip"), (6, "ip6")):
        to = node.address(DEATHSTAR, family)
        target = f"[{to}]:{HTTP}" if family == 6 else f"{to}:{HTTP}"
        match = f"{name} daddr {SERVICE[family]} tcp dport {HTTP}"
        lines.append(f"add rule inet services calls {match} dnat {name} to {target}")
    with netns.inside(node.name):
        subprocess.run(["nft", "-f", "-"], input="\n".join(lines), text=True, check=True)


def service(node: Proxied) -> tuple[Document, ...]:
    meta = {"name": "deathstar", "namespace": "default"}
    ports = [{"port": HTTP, "protocol": "TCP", "targetPort": HTTP}]
    clusterips = [SERVICE[4], SERVICE[6]]
    spec = {"clusterIP": SERVICE[4], "clusterIPs": clusterips, "ports": ports, "selector": STARS}
    found: list[Document] = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    ]
    for family, kind in ((4, "IPv4"), (6, "IPv6")):
        endpoint = {
            "addresses": [node.address(DEATHSTAR, family)],
            "nodeName": NODE_NAME,
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": "deathstar", "namespace": "default"},
        }
        labels = {"kubernetes.io/service-name": "deathstar"}
        found.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "name": f"deathstar-{family}", "labels": labels},
                "addressType": kind,
                "endpoints": [endpoint],
                "ports": [{"name": "", "port": HTTP, "protocol": "TCP"}],
            }
        )
    return tuple(found)


@pytest.fixture(params=["pod", "service"])
def called(request: pytest.FixtureRequest, node: Proxied, family: int) -> str:
    """The address of the death star, or of its Service."""
    return node.address(DEATHSTAR, family) if request.param == "pod" else SERVICE[family]


def test_both_ends_judge_a_request(node: Proxied, family: int, called: str) -> None:
    with node.connected(TIE, called) as kept:
        assert client_of(said(kept, LANDING)) == node.address(TIE, family)
        assert said(kept, WEATHER) == DENIED, "by the called"
        assert said(kept, EXHAUST) == DENIED, "by the caller"
        assert said(kept, LANDING)[0] == 200


def test_a_call_that_no_rule_names_does_not_leave(node: Proxied, family: int) -> None:
    assert node.hangs(TIE, node.address(XWING, family))


@pytest.mark.slow
def test_a_hot_restart_loses_no_request(tmp_path: Path) -> None:
    copy = tmp_path / "envoy"
    shutil.copy(envoy.find() or "", copy)
    (tmp_path / "node").mkdir()
    with started(tmp_path / "node", (DEATHSTAR, TIE)) as node:
        agent = node.start()
        node.enforce(agent, ingress("landing", *rules(LANDING)))
        first = node.envoy_pid()
        done, failures = threading.Event(), list[str]()
        counted = [0, 0]
        calling = [
            threading.Thread(target=call, args=(node, kept, done, failures, counted))
            for kept in (True, False)
        ]
        for thread in calling:
            thread.start()
        stop(agent)
        agent = node.start(f"--envoy={copy}")
        node.enforce(agent, ingress("landing", *rules(LANDING)))
        eventually(lambda: node.envoy_pid() != first, "a new Envoy takes over")
        eventually(lambda: not envoy.listening(first), "the old one has ended", 60)
        before = list(counted)
        eventually(lambda: counted[0] > before[0] and counted[1] > before[1], "all goes on")
        done.set()
        for thread in calling:
            thread.join(patience(20))
        assert failures == []


def call(
    node: Proxied, kept: bool, done: threading.Event, failures: list[str], counted: list[int]
) -> None:
    """Ask until done: on one connection as long as the server keeps it, or a new one each time."""
    while not done.is_set():
        try:
            with node.connected(TIE, node.address(DEATHSTAR, 4), seconds=patience(5)) as connection:
                closed = False
                while not done.is_set() and not closed:
                    connection.request("POST", "/v1/request-landing")
                    answer = connection.getresponse()
                    answer.read()
                    assert answer.status == 200
                    counted[kept] += 1
                    closed = not kept or answer.will_close
        except (OSError, HTTPException, AssertionError) as error:
            failures.append(repr(error))
            return
