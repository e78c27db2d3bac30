"""A server on a UNIX socket below the run directory, for root only: a thread a connection.

The agent's commands and its CNI plugin each have one, with a protocol of their own.
"""

from __future__ import annotations

import os
import socketserver
import threading
from pathlib import Path


class UnixSocketServer:
    """Answers from `start` to `stop`; none of its threads outlives the process."""

    def __init__(
        self, path: Path, handler: type[socketserver.BaseRequestHandler], waiting: int
    ) -> None:
        """`waiting`: so many connections wait until one is taken."""
        self._path = path
        path.unlink(missing_ok=True)  # the caller holds the run directory's lock: it is a leftover
        self._server = _Server(str(path), handler, bind_and_activate=False)
        self._server.request_queue_size = waiting
        mask = os.umask(0o177)
        try:
            self._server.server_bind()
        finally:
            os.umask(mask)
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the socket; running answers die with the process."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
