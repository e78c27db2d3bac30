"""A plain HTTP proxy in front of the real API server, on which a test can make faults.

It proves an identity to the API server by a client certificate, as `kubectl proxy` does. Requests
can be rewritten or answered by the test, before they were carried out or afterwards; connections
can be cut, or frozen so that they stay open and nothing arrives: a half-open connection.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from generators.kube.client import Client
from generators.kube.config import Fixed, access_for
from generators.kube.transport import Transport
from lab.api.plane import client_pair
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import patience

READ_BYTES = 1 << 16

Rewrite = Callable[[str], str]
Answer = Callable[[str], bytes | None]
Late = Callable[[str, str], bytes | None]
"""What the client is told of a method and target that the API server has carried out."""


def refusal(code: int, reason: str, headers: str = "") -> bytes:
    """A Status as the API server sends it."""
    body = json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "by the test"})
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


class _Connection:
    """One client's connection and its counterpart to the API server: one request, one answer."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.upstream: socket.socket | None = None
        self.frozen = threading.Event()

    def close(self) -> None:
        for one in (self.client, self.upstream):
            if one is not None:
                # Wakes the thread that reads from it; it then closes both.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)


class FaultProxy:
    """Runs from entering to leaving the `with` block."""

    def __init__(self, plane: ControlPlane, user: str, groups: Sequence[str] = ()) -> None:
        self.rewrite: Rewrite = lambda target: target
        self.answer: Answer = lambda _: None
        self.late: Late = lambda _, __: None
        self.targets: list[str] = []
        self._plane = plane
        self._tls = self._identity(plane, user, groups)
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._clients: list[Client] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for client in self._clients:
            client.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def kubeconfig(self) -> Path:
        """For a process whose every request goes through here."""
        port = self._listener.getsockname()[1]
        path = self._plane.folder / f"kubeconfig-proxy-{port}"
        one = {"name": "proxy"}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [one | {"cluster": {"server": self.url}}],
                    "contexts": [one | {"context": {"cluster": "proxy", "user": "proxy"}}],
                    "users": [one | {"user": {}}],
                    "current-context": "proxy",
                }
            )
        )
        return path

    def client(self) -> Client:
        """A client whose every request goes through here."""
        client = Client(Transport(Fixed(access_for(self.url)), "ringfence-test"))
        self._clients.append(client)
        return client

    def cut(self) -> None:
        """Reset every open connection."""
        with self._lock:
            for connection in self._connections:
                connection.close()

    def freeze(self) -> None:
        """Open connections stay open, and nothing arrives on them any more; new ones work."""
        with self._lock:
            for connection in self._connections:
                connection.frozen.set()

    @staticmethod
    def _identity(plane: ControlPlane, user: str, groups: Sequence[str]) -> ssl.SSLContext:
        pair = client_pair(plane.authority, user, groups)
        path = plane.folder / f"proxy-{user}.pem"
        path.write_bytes(pair.certificate + pair.key)
        context = ssl.create_default_context(cadata=plane.ca.decode())
        context.load_cert_chain(path)
        return context

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(client)
            with self._lock:
                self._connections.append(connection)
            self._spawn(partial(self._serve, connection))

    def _serve(self, connection: _Connection) -> None:
        try:
            with connection.client, contextlib.suppress(OSError):
                self._relay(connection)
        finally:
            if connection.upstream is not None:
                connection.upstream.close()
            with self._lock:
                self._connections.remove(connection)

    def _relay(self, connection: _Connection) -> None:
        head, body = self._request(connection.client)
        if not head:
            return
        line, *headers = head.decode().split("\r\n")
        method, target, version = line.split(" ")
        self.targets.append(target)
        if canned := self.answer(target):
            connection.client.sendall(canned)
            return
        kept = [h for h in headers if not h.lower().startswith("connection:")]
        lines = [f"{method} {self.rewrite(target)} {version}", *kept, "Connection: close", "", ""]
        plain = socket.create_connection(("127.0.0.1", self._plane.port), timeout=patience(5))
        plain.settimeout(None)
        upstream = self._tls.wrap_socket(plain, server_hostname="127.0.0.1")
        connection.upstream = upstream
        upstream.sendall("\r\n".join(lines).encode() + body)
        if canned := self.late(method, target):
            while upstream.recv(READ_BYTES):
                continue
            connection.client.sendall(canned)
            return
        while data := upstream.recv(READ_BYTES):
            if connection.frozen.is_set():
                # Drained, so that only the client notices.
                continue
            connection.client.sendall(data)

    @staticmethod
    def _request(client: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(READ_BYTES)
            if not more:
                return b"", b""
            data += more
        head, body = data.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.decode().split("\r\n"):
            if line.lower().startswith("content-length:"):
                length = int(line.split(":")[1])
        while len(body) < length:
            body += client.recv(READ_BYTES)
        return head, body
