"""The uplink joins a node's loopback to the API server's, and to nothing else."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from lab import netns, network
from lab.api.plane import free_ports
from tests.testbed.waiting import ending, eventually, patience

pytestmark = pytest.mark.bpf


@pytest.fixture
def node() -> Iterator[str]:
    """A network namespace that reaches nothing but itself."""
    name = f"ringfence.t-{token_hex(4)}.uplink"
    netns.create(name)
    try:
        network.prepare_node(name)
        yield name
    finally:
        netns.remove(name)


@contextlib.contextmanager
def uplink(node: str, port: int, ready: Path) -> Iterator[None]:
    words = ("127.0.0.1", str(port), str(port), str(ready), node)
    command = [sys.executable, "-m", "lab.api.uplink", *words]
    with ending(subprocess.Popen(command)):
        eventually(ready.exists, "the uplink listens")
        yield


def ask(node: str, port: int, question: bytes) -> bytes:
    """Send, say that this was all, and read to the end."""
    with netns.inside(node):
        connection = socket.create_connection(("127.0.0.1", port), timeout=patience(10))
    with connection:
        connection.sendall(question)
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:  # no ConnectionError: the other end has reset it before
            raise ConnectionResetError("cut") from error
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_a_node_sends_arrives_whole_and_comes_back(node: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                heard = b"".join(iter(lambda: connection.recv(65536), b""))
                connection.sendall(heard[::-1])

        thread = threading.Thread(target=echo)
        thread.start()
        question = bytes(range(256)) * 4000
        with uplink(node, port, tmp_path / "ready"):
            assert ask(node, port, question) == question[::-1]
        thread.join(patience(10))


def test_a_target_that_is_away_is_a_broken_connection(node: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        uplink(node, port, tmp_path / "ready"),
        contextlib.suppress(ConnectionError),
    ):
        assert ask(node, port, b"hello") == b""
