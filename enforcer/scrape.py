"""The agent's HTTP listener: /metrics, /healthz and /readyz.

What may surprise: /readyz lists every reason why not, a line each; /healthz says only that the
agent answers, because restarting it mends none of those reasons.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
)

from enforcer.answers.status import unready
from enforcer.metrics import AgentCollector, Observed

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Scrapes are not events."""


def serve(observed: Observed, host: str, port: int) -> None:
    """Answer on an address for the rest of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(AgentCollector(observed))
    app = application(make_wsgi_app(registry), lambda: unready(observed.board.state))
    server = make_server(host, port, app, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def application(metrics: WSGIApplication, troubles: Callable[[], list[str]]) -> WSGIApplication:
    """Metrics beside health."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/healthz":
                return _text(start, HTTPStatus.OK, "ok")
            case "/readyz":
                found = troubles()
                status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
                return _text(start, status, "\n".join(found) or "ok")
            case "/metrics":
                return metrics(environ, start)
        return _text(start, HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")

    return answer


def _text(start: StartResponse, status: HTTPStatus, body: str) -> Iterable[bytes]:
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    start(f"{status.value} {status.phrase}", headers)
    return [f"{body}\n".encode()]
