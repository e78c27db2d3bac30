"""The running webhook: TLS, reload, renewal, bad clients, shutdown. The real command throughout."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import orjson
import pytest

from tests.testbed.waiting import ended, eventually, patience
from tests.webhook.processes import (
    Webhook,
    ask,
    gone,
    new_certificate,
    prepare,
    running,
)
from tests.webhook.reviews import KEY, TENANTS, TWO, JSONObject, body, decoded, ns, request

APP = request("CREATE", ns("app-test01"))
RENAMED = TENANTS.replace("name: test01", "name: blue")
BROKEN = TENANTS.replace("labelKey: client", "labelKey: [client")


def tenant_of(response: JSONObject) -> str:
    """The tenant that the patch of an answer gives."""
    value = decoded(str(response["patch"]))[0]["value"]
    assert isinstance(value, dict)
    return str(value[KEY])


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    with running(prepare(tmp_path)) as process:
        yield process


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """One for tests that leave it as it was; impatient with slow clients."""
    folder = prepare(tmp_path_factory.mktemp("webhook"))
    with running(folder, "--request-seconds", "1") as process:
        yield process


class TestServing:
    def test_one_connection_carries_many_reviews(self, shared: Webhook) -> None:
        with closing(shared.connect()) as connection:
            connection.connect()
            first = connection.sock
            for _ in range(50):
                assert tenant_of(ask(connection, "/mutate", APP)) == "test01"
            assert connection.sock is first

    def test_health_says_what_is_in_force(self, shared: Webhook) -> None:
        assert shared.get("/livez") == (200, "ok\n")
        assert shared.get("/readyz") == (200, "ok\n")
        status, text = shared.get("/readyz?verbose")
        assert status == 200
        assert [line[:12] for line in text.splitlines()] == [
            "[+]config ok",
            "[+]certifica",
            "[+]serving",
            "ok",
        ]

    def test_each_decision_is_one_log_event_without_its_body(self, shared: Webhook) -> None:
        asked = request("CREATE", ns("log-test01", {"a": "secret-value"}), by=TWO)
        asked |= {"uid": "log-1", "dryRun": True}
        with closing(shared.connect()) as connection:
            ask(connection, "/mutate", asked)
        [event] = eventually(
            lambda: [e for e in shared.events("review") if e["uid"] == "log-1"], "the event"
        )
        expected = {
            "webhook": "mutate",
            "operation": "CREATE",
            "resource": "namespaces",
            "name": "log-test01",
            "user": "bert",
            "allowed": False,
            "patch": False,
            "dryRun": True,
        }
        assert {key: event[key] for key in expected} == expected
        assert "test01" in str(event["reason"])
        assert isinstance(event["milliseconds"], float)
        assert "secret-value" not in shared.log.read_text()

    def test_an_unexpected_kind_is_let_through_and_reported_once(self, shared: Webhook) -> None:
        gizmos: JSONObject = {"group": "example.com", "version": "v1", "resource": "gizmos"}
        asked = request("CREATE", ns("x"), resource=gizmos)
        with closing(shared.connect()) as connection:
            assert [ask(connection, "/validate", asked)["allowed"] for _ in range(3)] == [True] * 3
        assert len(shared.events("unexpected_resource")) == 1

    def test_metrics_count_by_decision(self, shared: Webhook) -> None:
        def count(decision: str) -> float:
            labels = f'decision="{decision}",operation="CREATE",resource="namespaces"'
            name = f'ringfence_webhook_requests_total{{{labels},webhook="mutate"}}'
            return shared.metrics().get(name, 0.0)

        before = [count("patched"), count("denied")]
        with closing(shared.connect()) as connection:
            ask(connection, "/mutate", APP)
            ask(connection, "/mutate", request("CREATE", ns("app-test01"), by=TWO))
        assert [count("patched"), count("denied")] == [before[0] + 1, before[1] + 1]
        assert shared.metrics()["ringfence_config_last_reload_successful"] == 1
        assert "ringfence_webhook_certificate_expiry_timestamp_seconds" in shared.metrics()
        assert "process_resident_memory_bytes" in shared.metrics()


class TestTenantFile:
    def test_a_change_is_in_force_on_connections_that_are_open(self, webhook: Webhook) -> None:
        with closing(webhook.connect()) as connection:
            assert tenant_of(ask(connection, "/mutate", APP)) == "test01"
            (webhook.folder / "tenants.yaml").write_text(RENAMED)
            eventually(lambda: tenant_of(ask(connection, "/mutate", APP)) == "blue", "reload")

    def test_a_bad_one_is_refused_said_and_mended(self, webhook: Webhook) -> None:
        path = webhook.folder / "tenants.yaml"
        path.write_text(BROKEN)
        eventually(lambda: webhook.events("tenant_file_refused"), "refusal")
        with closing(webhook.connect()) as connection:
            assert tenant_of(ask(connection, "/mutate", APP)) == "test01"
        status, text = webhook.get("/readyz")
        assert status == 200
        assert text.startswith("[!]config refused, ")
        assert "tenants.yaml:" in text
        assert webhook.metrics()["ringfence_config_last_reload_successful"] == 0
        path.write_text(RENAMED)
        eventually(lambda: webhook.get("/readyz") == (200, "ok\n"), "mended")
        assert webhook.metrics()["ringfence_config_last_reload_successful"] == 1
        assert len(webhook.events("tenant_file_refused")) == 1

    def test_a_missing_one_leaves_the_last_in_force(self, webhook: Webhook) -> None:
        (webhook.folder / "tenants.yaml").unlink()
        eventually(lambda: "[!]config refused" in webhook.get("/readyz")[1], "refusal")
        with closing(webhook.connect()) as connection:
            assert tenant_of(ask(connection, "/mutate", APP)) == "test01"

    def test_the_links_of_a_configmap_may_be_swapped(self, tmp_path: Path) -> None:
        for version, text in (("..1", TENANTS), ("..2", RENAMED)):
            (tmp_path / version).mkdir()
            (tmp_path / version / "tenants.yaml").write_text(text)
        (tmp_path / "..data").symlink_to("..1")
        new_certificate(tmp_path)
        (tmp_path / "tenants.yaml").symlink_to("..data/tenants.yaml")
        with running(tmp_path) as webhook, closing(webhook.connect()) as connection:
            assert tenant_of(ask(connection, "/mutate", APP)) == "test01"
            (tmp_path / "..data_tmp").symlink_to("..2")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            eventually(lambda: tenant_of(ask(connection, "/mutate", APP)) == "blue", "reload")


def served(webhook: Webhook) -> bytes | None:
    """The certificate that a new connection gets, whoever signed it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", webhook.port), timeout=patience(10)) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.getpeercert(binary_form=True)


class TestCertificate:
    def test_a_new_pair_is_served_to_the_next_connection(self, webhook: Webhook) -> None:
        old = served(webhook)
        with closing(webhook.connect()) as connection:
            ask(connection, "/mutate", APP)
            new_certificate(webhook.folder, days=60)
            assert served(webhook) != old
            ask(connection, "/mutate", APP)
        with closing(webhook.connect()) as connection:
            ask(connection, "/mutate", APP)  # trusts the new CA alone

    @pytest.mark.parametrize("broken", ["tls.crt", "tls.key"])
    @pytest.mark.parametrize("how", ["of another pair", "no PEM", "missing"])
    def test_a_broken_pair_keeps_the_old_one(
        self, webhook: Webhook, tmp_path: Path, broken: str, how: str
    ) -> None:
        old, kept = served(webhook), (tmp_path / broken).read_bytes()
        (tmp_path / "other").mkdir()
        new_certificate(tmp_path / "other")
        if how == "of another pair":
            shutil.copy(tmp_path / "other" / broken, tmp_path / broken)
        elif how == "no PEM":
            (tmp_path / broken).write_text("nothing")
        else:
            (tmp_path / broken).unlink()
        assert served(webhook) == old
        status, text = webhook.get("/readyz")
        assert status == 200
        assert "[!]certificate refused, the old one stays" in text
        assert webhook.metrics()["ringfence_webhook_certificate_last_reload_successful"] == 0
        (tmp_path / broken).write_bytes(kept)
        eventually(lambda: webhook.get("/readyz") == (200, "ok\n"), "mended")

    def test_renewal_under_load_fails_no_call(self, webhook: Webhook) -> None:
        for days in range(2, 12):
            with closing(webhook.connect()) as before:
                ask(before, "/mutate", APP)
                new_certificate(webhook.folder, days)
                ask(before, "/mutate", APP)
                with closing(webhook.connect()) as after:
                    ask(after, "/mutate", APP)


def raw(webhook: Webhook, *parts: bytes, end: bool = False) -> bytes:
    """Everything that the server says to these bytes, until it closes."""
    with webhook.socket() as connection:
        for part in parts:
            connection.sendall(part)
        if end:
            socket.socket.shutdown(connection, socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, ssl.SSLError):
            pass
        return answer


HEAD = (
    b"POST /validate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
)
GOOD = body(APP)


def with_length(length: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % length


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def status_of(answer: bytes) -> int:
    """The HTTP status of an answer whose body must be JSON."""
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    assert isinstance(orjson.loads(content), dict)
    return int(head.split()[1])


class TestBadClients:
    def test_a_chunked_body_is_read(self, shared: Webhook) -> None:
        chunks = [GOOD[i : i + 100] for i in range(0, len(GOOD), 100)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        assert status_of(raw(shared, CHUNKED, sent, b"0\r\n\r\n")) == 200

    @pytest.mark.parametrize(
        ("parts", "status"),
        [
            ((with_length(len(GOOD) + 10), GOOD), 400),
            ((with_length(len(GOOD)), GOOD[:50]), 400),
            ((CHUNKED, b"10\r\nabc"), 400),
            ((CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n"), 400),
            ((CHUNKED, b"3\r\nabcdef\r\n0\r\n\r\n"), 400),
            ((CHUNKED, b"ffffffffffffffff\r\n"), 400),
            ((HEAD, b"Content-Length: x\r\n\r\n"), 400),
            ((HEAD, b"Content-Length: -1\r\n\r\n"), 400),
            ((HEAD, b"Content-Length: 99999999999\r\n\r\n"), 413),
            ((HEAD, b"X: " + b"y" * 20000 + b"\r\n\r\n"), 431),
            ((b"GET /" + b"y" * 20000 + b" HTTP/1.1\r\n\r\n",), 414),
            ((b"\x00\x01\x02 garbage\r\n\r\n",), 400),
            ((b"GET /livez HTTP/9.9\r\n\r\n",), 400),
        ],
        ids=[
            "longer than sent",
            "cut",
            "cut chunk",
            "chunk size is no number",
            "chunk longer than said",
            "endless chunk",
            "length is no number",
            "length is negative",
            "length is huge",
            "long header",
            "long path",
            "garbage",
            "another HTTP",
        ],
    )
    def test_a_malformed_request_gets_json(
        self, shared: Webhook, parts: tuple[bytes, ...], status: int
    ) -> None:
        assert status_of(raw(shared, *parts, end=True)) == status

    def test_nine_mebibytes_are_a_413(self, shared: Webhook) -> None:
        size = 9 * 1024 * 1024
        assert status_of(raw(shared, with_length(size), b"x" * size)) == 413

    def test_nine_mebibytes_in_chunks_are_a_413(self, shared: Webhook) -> None:
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        assert status_of(raw(shared, CHUNKED, chunk * 9, b"0\r\n\r\n")) == 413

    def test_clients_that_stall_do_not_hold_the_threads(self, shared: Webhook) -> None:
        """More than there are threads, stalled in handshake, header and body."""
        stalled: list[socket.socket] = []
        for index in range(24):
            if index % 3 == 0:
                half = socket.create_connection(("127.0.0.1", shared.port), timeout=patience(20))
                half.sendall(b"\x16\x03\x01")
            else:
                half = shared.socket()
                half.sendall(with_length(len(GOOD)) + GOOD[:9] if index % 3 == 1 else HEAD[:20])
            stalled.append(half)
        assert shared.get("/livez")[0] == 200
        answers = [half.recv(65536) for half in stalled if isinstance(half, ssl.SSLSocket)]
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}
        for half in stalled:
            half.close()

    def test_clients_that_say_nothing_do_not_hold_the_threads(self, webhook: Webhook) -> None:
        """Four times as many as there are threads."""
        with ExitStack() as stack:
            for _ in range(64):
                idle = socket.create_connection(("127.0.0.1", webhook.port), timeout=patience(20))
                stack.enter_context(idle)
            assert webhook.get("/livez")[0] == 200

    def test_http_without_tls_is_closed(self, shared: Webhook) -> None:
        with socket.create_connection(("127.0.0.1", shared.port), timeout=patience(10)) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"200" not in plain.recv(1024)

    def test_the_log_holds_no_traceback_of_all_this(self, shared: Webhook) -> None:
        assert "Traceback" not in shared.log.read_text()


class TestShutdown:
    def test_sigterm_drains_and_ends_with_0(self, tmp_path: Path) -> None:
        with running(prepare(tmp_path), "--drain-seconds", "2") as webhook:
            [worker] = webhook.workers()
            with closing(webhook.connect()) as connection:
                ask(connection, "/mutate", APP)
                webhook.process.send_signal(signal.SIGTERM)
                eventually(lambda: webhook.get("/readyz")[0] == 503, "not ready")
                assert "[-]shutting down" in webhook.get("/readyz")[1]
                connection.request(
                    "POST", "/mutate", body(APP), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                assert answer.status == 200
                assert answer.headers["Connection"] == "close"
            assert ended(webhook.process) == 0
            assert gone(worker)

    def test_a_request_on_its_way_is_answered(self, tmp_path: Path) -> None:
        with (
            running(prepare(tmp_path), "--drain-seconds", "0") as webhook,
            webhook.socket() as connection,
        ):
            connection.sendall(with_length(len(GOOD)) + GOOD[:50])
            webhook.process.send_signal(signal.SIGTERM)
            eventually(lambda: webhook.get("/livez")[0] == 0, "listener closed")
            connection.sendall(GOOD[50:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            assert ended(webhook.process) == 0

    def test_sighup_replaces_the_worker_on_the_same_ports(self, webhook: Webhook) -> None:
        [worker] = webhook.workers()
        webhook.process.send_signal(signal.SIGHUP)
        eventually(lambda: gone(worker), "the old worker ends")
        with closing(webhook.connect()) as connection:
            assert tenant_of(ask(connection, "/mutate", APP)) == "test01"
        assert webhook.metrics()["ringfence_config_last_reload_successful"] == 1

    def test_sigint_ends_at_once(self, webhook: Webhook) -> None:
        webhook.process.send_signal(signal.SIGINT)
        assert ended(webhook.process) == 0

    def test_a_killed_master_leaves_no_worker(self, tmp_path: Path) -> None:
        """Not even with one connection that idles and one that stalls."""
        with (
            running(prepare(tmp_path), "--request-seconds", "1") as webhook,
            closing(webhook.connect()) as idle,
            webhook.socket() as stalled,
        ):
            [worker] = webhook.workers()
            ask(idle, "/mutate", APP)
            stalled.sendall(HEAD)
            webhook.process.kill()
            ended(webhook.process)
            eventually(lambda: gone(worker), "the worker ends")

    def test_a_killed_worker_is_replaced_with_the_last_good_tenant_file(
        self, webhook: Webhook
    ) -> None:
        """Also when the file is bad by then, and with the same metrics port."""
        [worker] = webhook.workers()
        path = webhook.folder / "tenants.yaml"
        path.write_text(RENAMED)
        eventually(lambda: webhook.events("tenant_file_loaded"), "loaded")
        digest = str(webhook.events("tenant_file_loaded")[0]["detail"])
        path.write_text(BROKEN)
        eventually(lambda: webhook.events("tenant_file_refused"), "refused")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: webhook.workers() not in ([], [worker]), "a new worker")
        eventually(lambda: digest in webhook.get("/readyz?verbose")[1], "it answers")
        with closing(webhook.connect()) as connection:
            assert tenant_of(ask(connection, "/mutate", APP)) == "blue"
        assert webhook.metrics()["ringfence_config_last_reload_successful"] == 0
