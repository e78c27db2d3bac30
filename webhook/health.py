"""GET /livez, /readyz and /metrics of the controller, on one plain port.

The webhook has its health pages on its TLS port (app.py); the controller serves nothing else.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry, MetricsHandler

Lines = Callable[[], list[str]]
"""One line a check: `[+]` good, `[!]` bridged by what was good last, `[-]` not good."""


def healthy(lines: list[str]) -> bool:
    """Whether no check failed."""
    return not any(line.startswith("[-]") for line in lines)


def serve(listener: socket.socket, metrics: CollectorRegistry, live: Lines, ready: Lines) -> None:
    """Answer from daemon threads for as long as the process lives."""
    pages = {"/livez": live, "/readyz": ready}

    class Page(MetricsHandler):
        timeout = 10
        registry = metrics

        def do_GET(self) -> None:
            lines = pages.get(self.path.partition("?")[0])
            if lines is None:
                super().do_GET()
                return
            found = lines()
            good = healthy(found)
            body = "\n".join([*found, "ok" if good else "not ok", ""]).encode()
            self.send_response(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(listener.getsockname()[:2], Page, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
