"""A read with bounds ends in time, whatever the other side sends, and leaves nothing behind."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from generators.kube.errors import TooMuch, Unreachable
from generators.kube.transport import Bounds
from tests.generators.kube.slow import (
    LONG,
    Answer,
    SlowServer,
    broken,
    dripping,
    pouring,
    silent,
    whole,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = OK + b"Content-Length: 1000000\r\n\r\n"
SHORT = Bounds(0.3, 1 << 20)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(silent, "takes longer than 0.3 s", id="nothing"),
        pytest.param(dripping(b"", b"H"), "takes longer than 0.3 s", id="a status line by bytes"),
        pytest.param(dripping(OK, b"A: b\r\n"), "takes longer than 0.3 s", id="endless headers"),
        pytest.param(dripping(CHUNKED, b"1\r\n \r\n"), "takes longer than 0.3 s", id="a watch"),
        pytest.param(dripping(LENGTH, b" "), "takes longer than 0.3 s", id="a body by bytes"),
        pytest.param(pouring, "longer than 1048576 bytes", id="more than one can keep"),
    ],
)
def test_a_read_ends_in_time_and_its_connection_is_closed(answer: Answer, why: str) -> None:
    with SlowServer(answer) as server:
        began = time.monotonic()
        with pytest.raises(TooMuch, match=why):
            server.client.read("/api/v1/namespaces", bounds=SHORT)
        assert time.monotonic() - began < LONG / 2
        server.answer = whole(b'{"kind": "List"}')
        assert server.client.read("/next", bounds=SHORT) == {"kind": "List"}
        assert server.ended[0].wait(LONG)
        assert len(server.ended) == 2


def test_a_second_attempt_gets_what_is_left_of_the_time() -> None:
    with SlowServer(whole(b"{}")) as server:
        server.client.read("/first", bounds=SHORT)

        def gone_then_silent(sock: socket.socket, over: threading.Event) -> None:
            server.answer = silent
            raise OSError

        server.answer = gone_then_silent
        with pytest.raises(TooMuch):
            server.client.read("/second", bounds=SHORT)
        assert server.targets == ["/first", "/second", "/second"]


def test_what_is_read_within_bounds_goes_on_on_the_same_connection() -> None:
    with SlowServer(whole(b'{"a": 1}')) as server:
        for _ in range(3):
            assert server.client.read("/x", bounds=SHORT) == {"a": 1}
            assert server.client.read("/y") == {"a": 1}
        assert len(server.ended) == 1
        assert len(server.targets) == 6


def test_half_an_answer_is_none() -> None:
    with SlowServer(broken) as server, pytest.raises(Unreachable, match="IncompleteRead"):
        server.client.read("/x", bounds=SHORT)
