"""A plain port under clients that open, drip and do not read: real sockets, in this process."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus
from http.client import HTTPException
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from generators.serving import pages
from generators.serving.http import plain
from generators.serving.server import Server
from tests.testbed.waiting import ended, ending, eventually, patience


@pytest.fixture
def server() -> Iterator[tuple[Server, int]]:
    """/livez, a page of 4 MiB and /metrics; told to stop at the end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port, registry = listener.getsockname()[1], CollectorRegistry()
    large = plain(HTTPStatus.OK, "x" * (4 << 20))
    shown = {"/livez": pages.alive, "/large": lambda _: large}
    with pages.serving("test", listener, shown, registry) as served:
        registry.register(pages.ServerMetrics([served]))
        yield served, port


def get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=patience(10)) as answer:
        return str(answer.read().decode())


def knock(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=patience(10))
    with suppress(OSError):
        connection.sendall(data)
    return connection


@pytest.mark.parametrize("data", [b"", b"GET /met"], ids=["silent", "half a request"])
def test_more_connections_than_there_is_room_for(server: tuple[Server, int], data: bytes) -> None:
    served, port = server
    assert get(port, "/livez") == "ok\n"
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(knock(port, data))
        assert get(port, "/livez") == "ok\n"
        assert len(served.connections) <= pages.LIMITS.connections
        assert threading.active_count() == threads
    samples = {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in text_string_to_metric_families(get(port, "/metrics"))
        for sample in family.samples
    }
    assert samples["ringfence_server_connections_refused_total", "connections"] >= 200


def test_who_does_not_read_holds_no_thread(server: tuple[Server, int]) -> None:
    _, port = server
    with ExitStack() as stack:
        for _ in range(3 * pages.LIMITS.threads):
            stack.enter_context(knock(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert get(port, "/livez") == "ok\n"


def test_several_requests_in_one_piece_are_answered_in_order(server: tuple[Server, int]) -> None:
    _, port = server
    both = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /no HTTP/1.1\r\nConnection: close\r\n\r\n"
    with knock(port, both) as connection:
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404"]


OUT_OF_DESCRIPTORS = """
import os, resource, socket, sys
from generators.serving import pages
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
pages.serve("test", listener, {"/livez": pages.alive})
sys.stdin.read()
"""


def answers(port: int) -> bool:
    with suppress(ConnectionError, HTTPException):
        return get(port, "/livez") == "ok\n"
    return False


def test_a_process_without_descriptors_goes_on_answering() -> None:
    """It may open 40, which is fewer than the connections that it would hold."""
    few = 40
    command = [sys.executable, "-c", OUT_OF_DESCRIPTORS]
    crowded = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)),
    )
    with ending(crowded) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(knock(port, b"G"))
            # One that came while there was no room is cut, as a probe may be; the next is answered.
            eventually(lambda: answers(port), "/livez answers", 10)
            assert len(os.listdir(f"/proc/{process.pid}/fd")) <= few
        assert process.stdin is not None
        process.stdin.close()
        ended(process)
    assert process.returncode == 0
