"""An HTTP server on loopback that answers as a test says: slowly, endlessly, or with too much."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Self

from generators.kube.client import Client
from generators.kube.config import Fixed, access_for
from generators.kube.transport import Transport

Answer = Callable[[socket.socket, threading.Event], None]
LONG = 30.0


def whole(body: bytes) -> Answer:
    """An answer as it should be."""
    return lambda sock, _: sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def dripping(head: bytes, drop: bytes) -> Answer:
    """A byte now and then, for ever."""

    def answer(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(head)
        while not over.wait(0.02):
            sock.sendall(drop)

    return answer


def pouring(sock: socket.socket, over: threading.Event) -> None:
    """More than anybody can keep, as fast as it is taken."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while not over.is_set():
        sock.sendall(chunk)


def silent(sock: socket.socket, _: threading.Event) -> None:
    """Nothing at all, until the client goes."""
    sock.recv(1)
    raise OSError


def broken(sock: socket.socket, _: threading.Event) -> None:
    """Half an answer."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}")
    raise OSError


class SlowServer:
    """Runs from entering to leaving the `with` block; `answer` may be changed at any time."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.targets: list[str] = []
        self.ended: list[threading.Event] = []
        """One for each connection, in order: set once the client has closed it."""
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.client = Client(Transport(Fixed(access_for(self.url)), "ringfence-test"))

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.client.close()
        for sock in (self._listener, *self._sockets):
            # Wakes the thread that reads from it.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                ended = threading.Event()
                self.ended.append(ended)
                self._sockets.append(sock)
                self._spawn(partial(self._serve, sock, ended))

    def _serve(self, sock: socket.socket, ended: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while request := self._request(sock):
                self.targets.append(request.split(b" ")[1].decode())
                self.answer(sock, self._over)
        sock.close()
        ended.set()

    @staticmethod
    def _request(sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(1 << 16)):
                return b""
            data += more
        return data
