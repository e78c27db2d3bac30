"""The agent's HTTP listener: /metrics, /healthz and /readyz.

/readyz lists every reason why not, a line each; /healthz shows only that the agent answers, because
a restart fixes none of those reasons.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from enforcer.answers.metrics import AgentCollector, Observed
from enforcer.answers.status import unready
from generators.serving import pages
from generators.serving.http import Answer, HttpRequest, plain

BACKLOG = 128


def serve(observed: Observed, host: str, port: int) -> None:
    """Answer on an address for the rest of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(AgentCollector(observed))
    listener = socket.create_server((host, port), backlog=BACKLOG)
    ready = readiness(lambda: unready(observed.board.state))
    health = {"/healthz": pages.alive, "/readyz": ready}
    server = pages.serve("metrics", listener, health, registry)
    registry.register(pages.ServerMetrics([server]))


def readiness(troubles: Callable[[], list[str]]) -> pages.Page:
    """A page with every trouble, a line each."""

    def page(_: HttpRequest) -> Answer:
        found = troubles()
        status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
        return plain(status, "\n".join(found) or "ok")

    return page
