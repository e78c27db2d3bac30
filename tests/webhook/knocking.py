"""Clients that connect to a webhook and never bring a whole request."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from tests.testbed.waiting import patience

HEAD = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Target(Protocol):
    """A webhook on loopback."""

    @property
    def port(self) -> int: ...

    def socket(self) -> ssl.SSLSocket:
        """A TLS connection that trusts its CA."""
        ...


def plain(target: Target, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", target.port), timeout=patience(30))
    connection.sendall(data)
    return connection


def secure(target: Target, data: bytes) -> socket.socket:
    connection = target.socket()
    connection.sendall(data)
    return connection


Knock = Callable[[Target], socket.socket]
ATTACKS: dict[str, Knock] = {
    "TCP and silence": lambda target: plain(target, b""),
    "half a handshake": lambda target: plain(target, b"\x16\x03\x01\x02\x00\x01"),
    "TLS and silence": lambda target: secure(target, b""),
    "half a head": lambda target: secure(target, HEAD[:9]),
    "half a body": lambda target: secure(target, HEAD + b"Content-Length: 1000\r\n\r\n{"),
}


@contextmanager
def attacked(target: Target, knock: Knock, many: int) -> Iterator[None]:
    """That many connections in the block, opened anew when the webhook closes them."""
    over = threading.Event()

    def hold(share: int) -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            with suppress(OSError, ssl.SSLError):
                held.append(knock(target))
            if len(held) >= share:
                held.pop(0).close()
        for each in held:
            each.close()

    threads = [threading.Thread(target=hold, args=(many // 4,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(patience(30))
