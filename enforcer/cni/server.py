"""The agent's end of the CNI plugin: a socket of its own below the run directory, for root only.

The shim connects once a call and sends the descriptor of the pod's network namespace with its first
byte. A thread a call; an invalid call is answered with an error of CNI, and a caller that does not
read its answer is dropped quietly.
"""

from __future__ import annotations

import os
import socket
import socketserver
from collections.abc import Callable
from pathlib import Path

from enforcer.agent.unix_socket import UnixSocketServer
from enforcer.cni.call import Call, CallRefused, Code, failure, parse

SOCKET = "cni.sock"
MAX_CALL = (1 << 20) + (1 << 16)
READ_SECONDS = 5.0
CHUNK = 1 << 16
WAITING = 128

Answer = Callable[[Call, int | None], bytes]
"""From a call and the pod's network namespace, if it is there, to the answer."""


def cni_server(run_dir: Path, answer: Answer) -> UnixSocketServer:
    """The serving side; start it once everything that `answer` needs is there.

    When it stops, shims that wait ask the next agent.
    """
    return UnixSocketServer(run_dir / SOCKET, _handler(answer), WAITING)


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
