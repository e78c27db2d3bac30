"""The agent's end of the CNI plugin: a socket of its own below the run directory, for root only.

The shim connects once a call and sends the descriptor of the pod's network namespace with its first
byte. A thread a call; a call that cannot be understood is answered with an error of CNI, and one
that nobody reads the answer of ends quietly.
"""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

from enforcer.cni.call import Call, CallRefused, Code, failure, parse

SOCKET = "cni.sock"
MAX_CALL = (1 << 20) + (1 << 16)
READ_SECONDS = 5.0
CHUNK = 1 << 16

Answer = Callable[[Call, int | None], bytes]
"""From a call and the pod's network namespace, if it is there, to the answer."""


class CniServer:
    """The serving side; `start` once everything that `answer` needs is there."""

    def __init__(self, run_dir: Path, answer: Answer) -> None:
        self._path = run_dir / SOCKET
        self._path.unlink(missing_ok=True)  # the caller holds the run directory's lock
        mask = os.umask(0o177)
        try:
            self._server = _UnixServer(str(self._path), _handler(answer))
        finally:
            os.umask(mask)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the socket; shims that wait ask the next agent."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(answer: Answer) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            self.request.settimeout(READ_SECONDS)
            netns: list[int] = []
            try:
                first, netns, _, _ = socket.recv_fds(self.request, 1, 1)
                if first:
                    self.request.sendall(_answer(self.request, answer, netns))
            except OSError:
                return  # the shim has gone; nobody is left to tell
            finally:
                for descriptor in netns:
                    os.close(descriptor)

    return Handler


def _answer(connection: socket.socket, answer: Answer, netns: list[int]) -> bytes:
    version = ""
    try:
        call = parse(_read(connection))
        version = call.version
        return answer(call, netns[0] if netns else None)
    except CallRefused as error:
        return failure(error, version)


def _read(connection: socket.socket) -> bytes:
    found = bytearray()
    while chunk := connection.recv(CHUNK):
        found += chunk
        if len(found) > MAX_CALL:
            raise CallRefused(
                Code.BAD_CONTENT, "the call is too long", f"more than {MAX_CALL} bytes"
            )
    return bytes(found)
