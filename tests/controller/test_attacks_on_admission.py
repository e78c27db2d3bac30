"""Whoever reaches the webhook's ports stops no write: a real API server asks it meanwhile.

The registered timeout (5 s) and failurePolicy Fail decide what a write that is not answered in time
becomes: an error of the request, which fails the test.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.controller.cluster import Cluster, ControllerProcess, cluster
from tests.testbed.planes import Planes
from tests.testbed.processes import free_ports
from tests.testbed.waiting import eventually, patience
from tests.webhook.knocking import ATTACKS, attacked
from webhook.review import MAX_BODY

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
MANY = 600
WRITES = 8


@dataclass(frozen=True, slots=True)
class Port:
    """One that somebody knocks at."""

    port: int
    ca: Path | None = None

    def socket(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=patience(30))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, and what an attacker reaches of it."""

    cluster: Cluster
    controller: ControllerProcess
    admission: Port
    metrics: Port

    def writes_succeed(self, mark: str) -> None:
        """Namespaces of a member are made, labelled and isolated."""
        anna = self.cluster.as_user("anna", "team-test01")
        for number in range(WRITES):
            self.cluster.make(f"{mark}-{number}", anna)
            assert self.cluster.tenant(f"{mark}-{number}") == "test01"
        last = partial(self.cluster.isolated, f"{mark}-{WRITES - 1}", "test01")
        eventually(last, "the controller goes on as well")


@pytest.fixture(scope="module")
def site(planes: Planes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with cluster(tmp_path_factory.mktemp("attacked"), plane=planes.one()) as made:
        controller = made.controller()
        (metrics,) = free_ports(1)
        made.webhook("--metrics-listen", f"127.0.0.1:{metrics}")
        eventually(controller.in_force, "in force")
        admission = Port(made.webhook_port, made.certificates / "ca.crt")
        yield Site(made, controller, admission, Port(metrics))


@pytest.mark.parametrize("attack", ATTACKS)
def test_writes_succeed_while_many_knock(
    site: Site, attack: str, unique_name: Callable[[str], str]
) -> None:
    with attacked(site.admission, ATTACKS[attack], MANY):
        site.writes_succeed(unique_name("k"))


@contextmanager
def posting(port: Port, body: bytes) -> Iterator[None]:
    """Somebody sends that again and again."""
    over = threading.Event()

    def send() -> None:
        context = ssl.create_default_context(cafile=port.ca)
        while not over.is_set():
            with (
                suppress(OSError, http.client.HTTPException),
                closing(
                    http.client.HTTPSConnection(
                        "127.0.0.1", port.port, timeout=patience(30), context=context
                    )
                ) as connection,
            ):
                connection.request("POST", "/validate", body, {"Content-Type": "application/json"})
                connection.getresponse().read()
            over.wait(0.5)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience(60))


def test_writes_succeed_beside_bodies_of_millions_of_elements(
    site: Site, unique_name: Callable[[str], str]
) -> None:
    body = b'{"request":{"options":[' + b"[]," * ((MAX_BODY - 100) // 3) + b"0]}}"
    with posting(site.admission, body):
        site.writes_succeed(unique_name("b"))


def test_writes_succeed_while_many_hold_the_ports_of_metrics(
    site: Site, unique_name: Callable[[str], str]
) -> None:
    half = ATTACKS["TCP and silence"]
    with ExitStack() as stack:
        for port in (site.metrics, Port(site.controller.port)):
            stack.enter_context(attacked(port, half, MANY))
        site.writes_succeed(unique_name("m"))
    eventually(lambda: site.controller.get("/livez")[0] == 200, "health answers")
