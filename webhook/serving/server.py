"""gunicorn's master around our own worker: TLS for the API server, plain ports for the rest.

Called by commands/webhook.py with sockets that are bound already, so that a port in use is an error
of the command and the number for port 0 is known. The master holds the sockets and respawns a dead
worker; the worker answers, by the loop and the threads of generators/serving. The certificate is
chosen for each connection; after SIGTERM requests are still served for a while, because the API
server keeps sending them until it has seen the endpoint go; a worker whose master is gone ends
itself.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import orjson
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from generators.process import memory
from generators.process.logs import event
from generators.serving import pages
from generators.serving.connections import ServerLimits
from generators.serving.http import Answer, HttpRequest, plain
from generators.serving.pages import ServerMetrics
from generators.serving.server import Server
from generators.serving.service import HttpService
from generators.serving.wsgi import handler
from generators.tenants.watched import Changed
from webhook.reload import watch
from webhook.review import MAX_BODY
from webhook.serving.app import create_app, readiness_text
from webhook.serving.state import WebhookState
from webhook.settings import FILES_PAGE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from gunicorn._types import _WSGIAppType
    from gunicorn.sock import BaseSocket

log = logging.getLogger("ringfence.webhook")

THREADS = 16
KEEPALIVE_SECONDS = 75
GRACEFUL_SECONDS = 25
MOST_CONNECTIONS = 640
"""With what else is open below 1,024 descriptors, which is what some runtimes give."""
LARGE_BYTES = 4 * MAX_BODY
"""All larger bodies together, with what decoding takes within the memory limit of the chart."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108  # the worker's heartbeat must not wait for a disk


@dataclass(frozen=True, slots=True)
class ServingSockets:
    """Listening sockets, bound: reviews over TLS, and plain ones where asked for."""

    admission: socket.socket
    metrics: socket.socket | None = None
    health: socket.socket | None = None


def serve(state: WebhookState, ports: ServingSockets) -> None:
    """Serve until SIGTERM or SIGINT; ends with SystemExit, as gunicorn does."""
    memory.share_arenas()
    AdmissionServer(state, ports).run()


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def say_listening(server: AdmissionServer) -> None:
    """Where it listens; printed once signals are handled."""
    ports = server.ports
    event(
        log,
        "listening",
        logging.INFO,
        address=server.address,
        metrics=None if ports.metrics is None else _address(ports.metrics),
        health=None if ports.health is None else _address(ports.health),
        config=server.state.tenants.config.digest,
    )


class AdmissionServer(BaseApplication):
    """gunicorn's application: our settings, no configuration file, no environment."""

    def __init__(self, state: WebhookState, ports: ServingSockets) -> None:
        self.state = state
        self.ports = ports
        self.address = _address(ports.admission)
        # gunicorn owns the descriptor from here: a copy kept open would keep the port listening.
        self.bind = f"fd://{ports.admission.detach()}"
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        ours: dict[str, object] = {
            "bind": [self.bind],
            "worker_class": AdmissionWorker,
            "workers": 1,
            "timeout": 30,
            "graceful_timeout": GRACEFUL_SECONDS,
            "worker_tmp_dir": SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None,
            "control_socket_disable": True,
            "logger_class": JsonLogger,
            "when_ready": lambda _arbiter: say_listening(self),
            "post_worker_init": self._start_threads,
        }
        for name, value in ours.items():
            self.cfg.set(name, value)

    def load(self) -> _WSGIAppType:
        """gunicorn wants an application before the worker runs; the worker makes the real one."""
        return lambda environ, start_response: ()

    def run(self) -> None:
        """Become the master process."""
        Master(self).run()

    def _start_threads(self, worker: Worker) -> None:
        """Threads do not survive a fork, so they start here, in the worker."""
        watch(self.state.tenants.check, self.state.certificate.check)
        if self.state.policies is not None:
            self.state.policies.start()

    def serve_pages(self) -> list[Server]:
        """Answer on the plain ports, on sockets of the master: a respawned worker finds them
        bound."""

        def ready(request: HttpRequest) -> Answer:
            status, text = readiness_text(self.state, "verbose" in request.query)
            return plain(status, text)

        def files(_: HttpRequest) -> Answer:
            return plain(HTTPStatus.OK, "\n".join(self.state.tenants.digests))

        found, state = [], self.state
        if self.ports.health is not None:
            health = {"/livez": pages.alive, "/readyz": ready, FILES_PAGE: files}
            found.append(pages.serve("health", self.ports.health, health))
        if self.ports.metrics is not None:
            found.append(pages.serve("metrics", self.ports.metrics, {}, state.metrics.registry))
        return found


def report(changed: Changed) -> None:
    """Log that a file was taken or refused."""
    level = logging.ERROR if changed.refused else logging.INFO
    event(log, changed.event, level, file=changed.file, detail=changed.detail)


class Master(Arbiter):
    """gunicorn's arbiter with a drain before the stop."""

    app: AdmissionServer

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


class AdmissionWorker(Worker):
    """gunicorn's worker around the loop of generators/serving.

    gunicorn's own workers give a thread to every client that sends a first byte, or have no
    deadlines for handshakes and heads (docs/benchmarks.md has the measurements).
    """

    app: AdmissionServer

    def run(self) -> None:
        """Serve until stopped; then finish what has begun."""
        state = self.app.state
        admission = Server(admission_service(state), cast("BaseSocket", self.sockets[0]).sock)
        servers = [admission, *self.app.serve_pages()]
        state.metrics.registry.register(ServerMetrics(servers))
        admission.run(self._beat, self.cfg.graceful_timeout)

    def _beat(self) -> bool:
        """Tell the master that the loop runs; False when it is time to stop."""
        self.notify()
        return self.alive and self.ppid == os.getppid()


def admission_service(state: WebhookState) -> HttpService:
    """The port that the API server calls."""
    settings = state.settings

    def context() -> ssl.SSLContext:
        state.certificate.check()  # a renewed pair is served at once
        return state.certificate.context

    return HttpService(
        "admission",
        # Flask and typeshed type "start_response" differently.
        handler(cast("WSGIApplication", create_app(state)), "https"),
        ServerLimits(
            threads=THREADS,
            connections=MOST_CONNECTIONS,
            request_seconds=settings.request_seconds,
            idle_seconds=KEEPALIVE_SECONDS,
            body=MAX_BODY,
            large_bytes=LARGE_BYTES,
        ),
        context,
        settings.allow_from,
        settings.client_names,
        refuse,
        lambda: state.draining.begun,
    )


def refuse(status: HTTPStatus, problem: str) -> Answer:
    """Anything that is not an HTTP request gets JSON too."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": status.value,
        "reason": status.phrase.replace(" ", ""),
        "message": problem,
    }
    return Answer(status, orjson.dumps(body), "application/json")


class JsonLogger(Logger):
    """gunicorn's own messages go where ours go."""

    def setup(self, cfg: Config) -> None:
        """Hand everything to the root logger."""
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True
