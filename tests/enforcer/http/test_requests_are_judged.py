"""HTTP rules by real packets and a real Envoy: what passes, what not, whom the server sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.names import PodNetwork, Shape
from tests.enforcer.http.proxied import (
    DEATHSTAR,
    DENIED,
    TIE,
    XWING,
    Proxied,
    client_of,
    ingress,
    needs_envoy,
    rules,
    said,
    started,
)
from tests.enforcer.node import PORT

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120), needs_envoy]

RANGES = ("10.7.0.0/24", "fd07::/64")
LANDING, EXHAUST = "POST /v1/request-landing", "PUT /v1/exhaust-port"


@pytest.fixture(scope="module", params=[Shape.GATEWAY, Shape.BRIDGE])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    """The empire may ask for a landing, tie fighters for the weather too, and all of it another
    port; the death star answers.
    """
    network = PodNetwork(request.param, RANGES)
    with started(tmp_path_factory.mktemp("node"), network=network) as made:
        agent = made.start()
        made.enforce(
            agent,
            ingress("landing", *rules(LANDING)),
            ingress("weather", *rules("GET /v1/weather.*"), source={"class": "tiefighter"}),
            ingress("crew", *rules("GET /v1/crew"), source={"class": "xwing"}),
            ingress("plain", port=PORT),
        )
        yield made


def test_an_allowed_request_reaches_the_server_with_its_clients_address(
    node: Proxied, family: int
) -> None:
    answer = node.ask(TIE, DEATHSTAR, LANDING, family)
    assert client_of(answer) == node.address(TIE, family)


def test_a_forbidden_request_is_answered_access_denied(node: Proxied, family: int) -> None:
    assert node.ask(TIE, DEATHSTAR, EXHAUST, family) == DENIED


def test_each_client_has_its_own_rules_at_one_port(node: Proxied, family: int) -> None:
    assert node.ask(TIE, DEATHSTAR, "GET /v1/weather?of=endor", family)[0] == 200
    assert node.ask(XWING, DEATHSTAR, "GET /v1/crew", family)[0] == 200
    assert node.ask(XWING, DEATHSTAR, "GET /v1/weather", family) == DENIED
    assert node.ask(TIE, DEATHSTAR, "GET /v1/crew", family) == DENIED


def test_each_request_of_a_kept_connection_is_judged(node: Proxied, family: int) -> None:
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        assert said(kept, LANDING)[0] == 200
        assert said(kept, EXHAUST) == DENIED
        assert said(kept, LANDING)[0] == 200


def test_other_ports_make_no_detour(node: Proxied, family: int) -> None:
    assert node.reaches(TIE, DEATHSTAR, family)
    assert node.hangs(XWING, node.address(DEATHSTAR, family), PORT)


def test_large_bodies_pass(node: Proxied, family: int) -> None:
    with node.connected(TIE, node.address(DEATHSTAR, family)) as kept:
        kept.request("POST", "/v1/request-landing", body=bytes(20 << 20))
        assert kept.getresponse().status == 200
