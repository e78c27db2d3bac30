"""Clients that knock, drip and never finish, beside an API server that wants answers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme

from tests.testbed.waiting import eventually, patience
from tests.webhook.knocking import ATTACKS, attacked, plain
from tests.webhook.processes import Webhook, ask, new_certificate, prepare, running
from tests.webhook.reviews import ns, request

APP = request("CREATE", ns("app-test01"))
REVIEWS = 15
MANY = 600
"""Nearly as many as the webhook holds."""


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    folder = prepare(tmp_path_factory.mktemp("webhook"))
    with running(folder, "--health-listen", "127.0.0.1:0") as process:
        yield process


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_review_is_answered_while_many_knock(webhook: Webhook, attack: str) -> None:
    """On a connection that is kept, and on new ones."""
    with (
        attacked(webhook, ATTACKS[attack], MANY),
        closing(webhook.connect()) as kept,
        closing(webhook.connect()) as fresh,
    ):
        for _ in range(REVIEWS):
            for connection in (kept, fresh):
                assert ask(connection, "/mutate", APP)["allowed"] is True
            fresh.close()
        assert health(webhook, "/livez") == (200, "ok\n")
    assert webhook.metrics()['ringfence_server_threads_busy{port="admission"}'] == 0


def health(webhook: Webhook, path: str) -> tuple[int, str]:
    """What the port of health says."""
    address = webhook.events("listening")[0]["health"]
    try:
        with urlopen(f"http://{address}{path}", timeout=patience(30)) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_who_was_sent_away_is_counted(webhook: Webhook) -> None:
    name = 'ringfence_server_connections_timed_out_total{phase="handshake",port="admission"}'
    before = webhook.metrics()[name]
    with plain(webhook, b"\x16\x03\x01"):
        eventually(lambda: webhook.metrics()[name] > before, "the deadline of a handshake")


def test_health_has_a_port_of_its_own(webhook: Webhook) -> None:
    assert health(webhook, "/livez") == (200, "ok\n")
    assert health(webhook, "/readyz") == (200, "ok\n")
    assert health(webhook, "/readyz?verbose")[1].startswith("[+]config ok")
    assert health(webhook, "/mutate")[0] == 404


def test_only_the_networks_of_allow_from_are_let_in(tmp_path: Path) -> None:
    with running(prepare(tmp_path), "--allow-from", "127.0.0.1/32") as webhook:
        assert webhook.get("/livez")[0] == 200
        stranger = socket.socket()
        with stranger, suppress(ConnectionResetError):
            stranger.bind(("127.0.0.2", 0))
            stranger.connect(("127.0.0.1", webhook.port))
            assert stranger.recv(10) == b""
        name = 'ringfence_server_connections_refused_total{port="admission",reason="source"}'
        assert webhook.metrics()[name] == 1


def client_certificate(authority: trustme.CA, folder: Path, name: str) -> Path:
    """tls.crt and tls.key of a client of that name, in a new folder."""
    folder.mkdir()
    leaf = authority.issue_cert(common_name=name)
    leaf.private_key_pem.write_to_path(folder / "tls.key")
    leaf.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    return folder


def shown(webhook: Webhook, pair: Path | None) -> int:
    """The status of /livez for a client that shows this certificate; 0 when it is sent away."""
    context = ssl.create_default_context(cafile=webhook.folder / "ca.crt")
    if pair is not None:
        context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", webhook.port), 30) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return int((connection.recv(4096).split() or [b"", b"0"])[1])
    return 0


def test_with_a_client_ca_only_its_clients_are_answered(tmp_path: Path) -> None:
    ours, theirs, clients = trustme.CA(), trustme.CA(), tmp_path / "clients.crt"
    api = client_certificate(ours, tmp_path / "api", "kube-apiserver")
    other = client_certificate(ours, tmp_path / "other", "somebody")
    stranger = client_certificate(theirs, tmp_path / "stranger", "kube-apiserver")
    ours.cert_pem.write_to_path(clients)
    wanted = ("--client-ca", str(clients), "--client-name", "kube-apiserver")
    pages = ("--health-listen", "127.0.0.1:0")
    with running_closed(prepare(tmp_path), *wanted, *pages) as webhook:
        assert shown(webhook, api) == 200
        assert [shown(webhook, each) for each in (other, stranger, None)] == [0, 0, 0]
        theirs.cert_pem.write_to_path(clients)
        assert [shown(webhook, each) for each in (api, stranger)] == [0, 200]


@contextmanager
def running_closed(folder: Path, *options: str) -> Iterator[Webhook]:
    """A webhook that answers nobody without a certificate: ready by its port of health."""
    webhook = Webhook(folder, *options, ready=lambda found: health(found, "/readyz")[0] == 200)
    try:
        yield webhook
    finally:
        webhook.stop()


def test_a_renewed_pair_is_served_while_many_knock(webhook: Webhook) -> None:
    with attacked(webhook, ATTACKS["TLS and silence"], 100):
        new_certificate(webhook.folder)
        with closing(webhook.connect()) as connection:
            assert ask(connection, "/mutate", APP)["allowed"] is True
