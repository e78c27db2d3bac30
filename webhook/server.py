"""gunicorn around the Flask application: one `gthread` worker, TLS, a plain second port for
metrics.

Called by cli.py with sockets that are bound already, so that a port in use is an error of the
command and port 0 can be told. The master holds the sockets and respawns a dead worker; the worker
answers. Surprises: the certificate is chosen anew at each connection; after SIGTERM requests are
still served for a while, because the API server goes on sending them until it has seen the endpoint
go; a worker whose master is gone ends by itself.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, cast

import orjson
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import Request
from gunicorn.http.errors import (
    ConfigurationProblem,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import TConn, ThreadWorker
from prometheus_client import MetricsHandler

from generators.logs import event
from webhook.app import create_app
from webhook.reload import Changed, watch
from webhook.state import State

if TYPE_CHECKING:
    from gunicorn._types import _WSGIAppType

log = logging.getLogger("ringfence.webhook")

THREADS = 16
KEEPALIVE_SECONDS = 75
GRACEFUL_SECONDS = 25
SHARED_MEMORY = "/dev/shm"  # noqa: S108  # the worker's heartbeat must not wait for a disk
ANSWER_SECONDS = 5.0
"""How long a client may take to read the answer, after the time for its request is over."""


def serve(state: State, listener: socket.socket, metrics: socket.socket | None) -> None:
    """Serve until SIGTERM or SIGINT; ends with SystemExit, as gunicorn does."""
    event(
        log,
        "listening",
        logging.INFO,
        address=_address(listener),
        metrics=None if metrics is None else _address(metrics),
        config=state.tenants.config.digest,
    )
    Server(state, listener, metrics).run()


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server(BaseApplication):
    """gunicorn's application: our settings, no configuration file, no environment."""

    def __init__(
        self, state: State, listener: socket.socket, metrics: socket.socket | None
    ) -> None:
        self.state = state
        # gunicorn owns the descriptor from here: a copy kept open would keep the port listening.
        self.bind = f"fd://{listener.detach()}"
        self.metrics = metrics
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        settings = self.state.settings
        ours: dict[str, object] = {
            "bind": [self.bind],
            "worker_class": StallGuard,
            "workers": 1,
            "threads": THREADS,
            "keepalive": KEEPALIVE_SECONDS,
            "timeout": 30,
            "graceful_timeout": GRACEFUL_SECONDS,
            "worker_tmp_dir": SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None,
            "control_socket_disable": True,
            "logger_class": JsonLogger,
            "certfile": str(settings.certificate),
            "keyfile": str(settings.key),
            "ssl_context": self._ssl_context,
            "pre_request": self._pre_request,
            "post_worker_init": self._start_threads,
        }
        for name, value in ours.items():
            self.cfg.set(name, value)

    def load(self) -> _WSGIAppType:
        """The WSGI application, in the worker."""
        # Flask and gunicorn type "start_response" differently.
        return cast("_WSGIAppType", create_app(self.state))

    def run(self) -> None:
        """Become the master process."""
        Master(self).run()

    def _ssl_context(self, config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """gunicorn's hook, at each connection: a renewed pair is served at once."""
        self.state.certificate.check()
        return self.state.certificate.context

    def _pre_request(self, worker: Worker, request: Request) -> None:
        if self.state.draining.begun:
            request.force_close()

    def _start_threads(self, worker: Worker) -> None:
        """Threads do not survive a fork, so they start here, in the worker."""
        watch(self.state.tenants.check, self.state.certificate.check)
        if self.state.policies is not None:
            self.state.policies.start()
        if self.metrics is not None:
            serve_metrics(self.state, self.metrics)


def report(changed: Changed) -> None:
    """Log that a file was taken or refused."""
    level = logging.ERROR if changed.refused else logging.INFO
    event(log, changed.event, level, file=changed.file, detail=changed.detail)


def serve_metrics(state: State, listener: socket.socket) -> None:
    """Answer Prometheus, on a socket of the master: a respawned worker finds it bound."""

    class Page(MetricsHandler):
        timeout = 10
        registry = state.metrics.registry

    server = ThreadingHTTPServer(listener.getsockname()[:2], Page, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class Master(Arbiter):
    """gunicorn's arbiter with a drain before the stop."""

    app: Server

    def handle_term(self) -> None:
        """First SIGTERM: not ready, but serving. When the time is over, or at the second: stop."""
        state = self.app.state
        if state.draining.begun or not state.settings.drain_seconds:
            super().handle_term()
        state.draining.begin()
        event(log, "draining", seconds=state.settings.drain_seconds)
        again = threading.Timer(state.settings.drain_seconds, self.signal, (signal.SIGTERM, None))
        again.daemon = True
        again.start()

    def murder_workers(self) -> None:
        """Called every second.

        The master follows the files, too: a respawned worker inherits the last good ones from it.
        It is the one that logs changes, so each is logged once.
        """
        state = self.app.state
        files = () if state.policies is None else (state.policies.check,)
        for check in (state.tenants.check, state.certificate.check, *files):
            changed = check()
            if changed is not None:
                report(changed)
        super().murder_workers()


class StallGuard(ThreadWorker):
    """The threaded worker with a deadline for each request, whatever it stalls in.

    gunicorn reads from a blocking socket without a limit: a handful of clients that send half a
    request would hold all threads. At the deadline the reading side is shut down, so the
    application sees a cut body and can answer; a little later the other side follows. A client
    that sends nothing holds no thread at all.
    """

    app: Server

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.started: dict[TConn, float] = {}

    def accept(self, listener: socket.socket) -> None:
        """Let a new connection wait for its first byte in the poller, not in a thread."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        conn = TConn(self.cfg, client, address, listener.getsockname())
        conn.timeout = time.monotonic() + self._request_seconds()
        self.pending_conns.append(conn)
        readable = functools.partial(self.on_pending_socket_readable, conn)
        self.poller.register(client, selectors.EVENT_READ, readable)

    def handle(self, conn: TConn) -> bool:
        """Serve one request of a connection, in a thread of the pool."""
        self.started[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            self.started.pop(conn, None)

    def murder_pending(self) -> None:
        """Called every second by the main loop."""
        super().murder_pending()
        self._end_stalled(self._request_seconds())

    def _request_seconds(self) -> float:
        return self.app.state.settings.request_seconds

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Stop accepting for good: who connects from now on is refused, not left in the queue."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()

    def run(self) -> None:
        """Serve; at the end no thread may be left waiting, or the process would never exit."""
        super().run()
        self._end_stalled(-ANSWER_SECONDS)

    def _end_stalled(self, limit: float) -> None:
        now = time.monotonic()
        for conn, since in list(self.started.items()):
            if now - since > limit + ANSWER_SECONDS:
                _shut(conn.sock, socket.SHUT_RDWR)
            elif now - since > limit:
                _shut(conn.sock, socket.SHUT_RD)

    def handle_error(
        self, req: Request | None, client: socket.socket, addr: object, exc: BaseException
    ) -> None:
        """Answer what is no HTTP request with JSON, too. On a failed handshake there is nobody to
        answer."""
        if isinstance(exc, ssl.SSLError):
            return
        status = _status(exc)
        level = logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
        event(log, "bad_request", level, client=str(addr), problem=f"{type(exc).__name__}: {exc}")
        with contextlib.suppress(OSError):
            client.sendall(_plain_response(status))


def _shut(sock: socket.socket, how: int) -> None:
    """SSLSocket.shutdown would drop the TLS state under the thread that uses it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, how)


def _status(error: BaseException) -> HTTPStatus:
    if isinstance(error, LimitRequestLine):
        return HTTPStatus.REQUEST_URI_TOO_LONG
    if isinstance(error, LimitRequestHeaders):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if isinstance(error, ParseException) and not isinstance(error, ConfigurationProblem):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _plain_response(status: HTTPStatus) -> bytes:
    body = orjson.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status.value,
            "reason": status.phrase.replace(" ", ""),
            "message": "this is not an HTTP request that can be read",
        }
    )
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


class JsonLogger(Logger):
    """gunicorn's own messages go where ours go."""

    def setup(self, cfg: Config) -> None:
        """Hand everything to the root logger."""
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True
