"""The pages of a process beside its work: health, readiness and metrics, on plain ports.

Webhook, controller and node agent serve them by this. Answers are small, threads and connections
few, and who reads slowly is dropped.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from generators.checks import Check, healthy
from generators.serving.connections import Phase, ServerLimits
from generators.serving.http import Answer, HttpRequest, plain
from generators.serving.metrics import counter, gauges
from generators.serving.server import Server
from generators.serving.service import HttpService
from generators.serving.wsgi import handler

REASONS = ("source", "client", "connections", "large", "descriptors")
LIMITS = ServerLimits(threads=2, connections=64, idle_seconds=60)

Page = Callable[[HttpRequest], Answer]


def checks(look: Callable[[], Sequence[Check]]) -> Page:
    """A page that lists checks; 503 when one of them fails."""

    def page(_: HttpRequest) -> Answer:
        found = look()
        good = healthy(found)
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return plain(status, "\n".join([*map(str, found), "ok" if good else "not ok"]))

    return page


def alive(_: HttpRequest) -> Answer:
    """A page that shows only that the process answers."""
    return plain(HTTPStatus.OK, "ok")


def serve(
    name: str,
    listener: socket.socket,
    pages: Mapping[str, Page],
    registry: CollectorRegistry | None = None,
) -> Server:
    """Serve the pages, and with a registry /metrics, for the rest of the process."""
    server = Server(HttpService(name, pages_of(pages, registry), LIMITS), listener)
    server.start()
    return server


@contextmanager
def serving(
    name: str,
    listener: socket.socket,
    pages: Mapping[str, Page],
    registry: CollectorRegistry | None = None,
) -> Iterator[Server]:
    """The same for as long as the block runs."""
    server = serve(name, listener, pages, registry)
    try:
        yield server
    finally:
        server.stop()


def pages_of(
    pages: Mapping[str, Page], registry: CollectorRegistry | None
) -> Callable[[HttpRequest], Answer]:
    """The handler of some pages."""
    metrics = None if registry is None else handler(make_wsgi_app(registry))
    known = sorted([*pages, *(["/metrics"] if metrics else [])])

    def handle(request: HttpRequest) -> Answer:
        page = pages.get(request.path)
        if page is not None:
            return page(request)
        if metrics is not None and request.path == "/metrics":
            return metrics(request)
        return plain(HTTPStatus.NOT_FOUND, f"there is {', '.join(known)}")

    return handle


class ServerMetrics(Collector):
    """What the servers of a process hold and whom they sent away; `port` names the server."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        known = {server.service.name: server for server in self._servers}
        phases = {port: server.connections.phases() for port, server in known.items()}
        yield gauges(
            "ringfence_server_threads",
            "Threads that answer requests.",
            ("port",),
            {(port,): server.service.limits.threads for port, server in known.items()},
        )
        yield gauges(
            "ringfence_server_threads_busy",
            "Threads that are answering a request now.",
            ("port",),
            {(port,): server.busy for port, server in known.items()},
        )
        yield gauges(
            "ringfence_server_connections",
            "Open connections by phase (new, handshake, head, body, queued, busy, answer, idle, "
            "linger).",
            ("port", "phase"),
            {(port, phase.value): phases[port][phase] for port in known for phase in Phase},
        )
        yield counter(
            "ringfence_server_connections_refused",
            "Connections refused or closed early, by reason (source, client, "
            "connections, large, descriptors).",
            ("port", "reason"),
            {(p, why): s.connections.refused[why] for p, s in known.items() for why in REASONS},
        )
        yield counter(
            "ringfence_server_connections_timed_out",
            "Connections closed at a deadline, by phase.",
            ("port", "phase"),
            {(p, at.value): s.connections.timed_out[at] for p, s in known.items() for at in Phase},
        )
