"""A TCP balancer on loopback that takes the replicas behind it in turn, as a Service does."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Sequence

from tests.testbed.waiting import patience

PIECE = 65536


class Balancer:
    """Listens on `port` until `close`."""

    def __init__(self, port: int, replicas: Sequence[int]) -> None:
        self._turns = itertools.cycle(replicas)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._connections: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection, so that the next requests are dealt out anew."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        address = ("127.0.0.1", next(self._turns))
        with client, contextlib.suppress(OSError), socket.create_connection(address) as replica:
            self._connections |= {client, replica}
            back = threading.Thread(target=_pump, args=(replica, client), daemon=True)
            back.start()
            _pump(client, replica)
            back.join(patience(60))
            self._connections -= {client, replica}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
